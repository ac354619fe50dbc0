//! A service cannot replace the manifest's files or another service's writable path, and what a service can change of a file.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use rustix::process::Signal;

use crate::guest::{catch, print};
use crate::scenario::{expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The manifest's files.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "no_service_can_replace_a_file_of_the_manifest", host, guest };

/// A service with a writable directory, and another that is root and may write everywhere.
pub(super) const WRITABLE: Scenario = Scenario {
    name: "a_writable_path_cannot_be_replaced_by_another_service",
    host: writable,
    guest: keep_or_take,
};

/// By file mode, the rogue service is allowed to write every directory on the path; it has no other privileges.
const MANIFEST: &str = "
version: 1
services:
  calm:
    command: [PROBE, calm]
    files: {/srv/app/conf: right, /srv/link/other: right, /srv/app/made/new: right}
    ready: {file: /var/calm}
    critical: true
  rogue: {command: [PROBE, rogue], user: app, kind: job, after: [calm]}
  late:
    command: [PROBE, late]
    files: {/srv/app/conf: right, /srv/link/other: right, /srv/app/made/new: right}
    kind: job
    after: [rogue]
";

/// The files that the services read.
const FILES: [&str; 3] = ["/srv/app/conf", "/srv/link/other", "/srv/app/made/new"];

fn host(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    for folder in ["srv", "srv/app", "srv/linked", "srv/free"] {
        fs::create_dir(root.join(folder))?;
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o777))?;
    }
    fs::set_permissions(root.join("var"), fs::Permissions::from_mode(0o777))?;
    fs::write(root.join("srv/app/conf"), "image")?;
    symlink("linked", root.join("srv/link"))?;
    let manifest = lab.manifest(MANIFEST)?;
    let image = lab.build(&root, &manifest)?;
    let mut web = lab.run(&image, &[])?;
    web.wait_service("late", "done")?;
    let ended = web.stop()?;
    ended.expect_code(0)?;
    for service in ["calm", "late"] {
        for file in FILES {
            let read = format!("{service}: {file}: right\n");
            expect_eq(&ended.stdout.contains(&read), &true, &format!("{read}{}", ended.stdout))?;
        }
    }
    expect_eq(&ended.stdout.matches(": Resource busy").count(), &7, &ended.stdout)?;
    expect_in(&ended.stdout, "rogue: free for all: done\n", "other files can be changed")
}

fn guest(args: &[String]) -> ExitCode {
    let name = args.first().map_or("", String::as_str);
    let done = match name {
        "rogue" => replace(),
        "late" => read(name),
        _ => wait(name),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Is ready, and reads its files when it is asked to stop.
fn wait(name: &str) -> io::Result<()> {
    let mut term = catch(Signal::TERM)?;
    fs::write("/var/calm", "")?;
    term.wait()?;
    read(name)
}

fn read(name: &str) -> io::Result<()> {
    FILES.iter().try_for_each(|file| {
        let text = fs::read_to_string(file).unwrap_or_else(|error| error.to_string());
        print(format!("{name}: {file}: {text}\n").as_bytes())
    })
}

/// Tries every method to replace those files with its own.
fn replace() -> io::Result<()> {
    let report = |what: &str, attempt: io::Result<()>| report("rogue", what, attempt);
    fs::write("/srv/free/wrong", "wrong")?;
    report("free for all", fs::rename("/srv/free/wrong", "/srv/free/mine"))?;
    report("unlink", fs::remove_file("/srv/app/conf"))?;
    report("rename", fs::rename("/srv/app/conf", "/srv/app/old"))?;
    report("rename over", {
        fs::write("/srv/app/mine", "wrong").and_then(|()| fs::rename("/srv/app/mine", "/srv/app/conf"))
    })?;
    report("rename the directory", fs::rename("/srv/app", "/srv/gone"))?;
    report("unlink the link", fs::remove_file("/srv/link"))?;
    report("rename the link", fs::rename("/srv/link", "/srv/gone"))?;
    report("rename a made directory", fs::rename("/srv/app/made", "/srv/app/gone"))?;
    // Where one of them has worked, the readers find these.
    for file in FILES {
        if let Some(folder) = Path::new(file).parent() {
            drop(fs::create_dir_all(folder));
        }
        drop(fs::write(file, "wrong"));
    }
    Ok(())
}

/// `late` starts after the rogue service has tried everything.
const KEEPERS: &str = "
version: 1
services:
  keeper: {command: [PROBE, keeper], writable: [/srv/deep/data], ready: {log: keeper is here}, critical: true}
  rogue: {command: [PROBE, rogue], kind: job, after: [keeper]}
  late: {command: [PROBE, late], writable: [/srv/deep/data], kind: job, restart: never, after: [rogue]}
";

/// The directory that the keepers may write.
const DATA: &str = "/srv/deep/data";

fn writable(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    for folder in ["srv", "srv/deep", "srv/deep/data"] {
        fs::create_dir(root.join(folder))?;
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o777))?;
    }
    let manifest = lab.manifest(KEEPERS)?;
    let image = lab.build(&root, &manifest)?;
    let mut web = lab.run(&image, &[])?;
    web.wait_service("late", "done")?;
    let ended = web.stop()?;
    ended.expect_code(0)?;
    for service in ["keeper", "late"] {
        expect_in(
            &ended.stdout,
            &format!("{service}: written: done\n"),
            "the attempts of a service with `writable`",
        )?;
    }
    for attempt in ["rename the path", "replace the path", "rename the directory", "remove the path"] {
        expect_in(
            &ended.stdout,
            &format!("rogue: {attempt}: Resource busy\n"),
            "the attempts of the other service",
        )?;
    }
    expect_in(&ended.stdout, "rogue: inside: done\n", "the contents can be changed")
}

fn keep_or_take(args: &[String]) -> ExitCode {
    let name = args.first().map_or("", String::as_str);
    let done = match name {
        "rogue" => take(),
        "keeper" => catch(Signal::TERM).and_then(|mut term| {
            print(b"keeper is here\n")?;
            term.wait()?;
            report(name, "written", fs::write(format!("{DATA}/{name}"), "x"))
        }),
        _ => report(name, "written", fs::write(format!("{DATA}/{name}"), "x")),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tries every method to redirect the path.
fn take() -> io::Result<()> {
    let attempt = |what: &str, attempt: io::Result<()>| report("rogue", what, attempt);
    fs::write("/srv/deep/data/a", "")?;
    attempt(
        "inside",
        fs::rename("/srv/deep/data/a", "/srv/deep/data/b").and_then(|()| fs::remove_file("/srv/deep/data/b")),
    )?;
    fs::create_dir("/srv/deep/mine")?;
    attempt("replace the path", fs::rename("/srv/deep/mine", DATA))?;
    attempt("remove the path", fs::remove_dir(DATA))?;
    attempt("rename the path", fs::rename(DATA, "/srv/deep/gone"))?;
    attempt("rename the directory", fs::rename("/srv/deep", "/srv/gone"))
}

/// Prints the result of an attempt, without the error's number.
fn report(name: &str, what: &str, attempt: io::Result<()>) -> io::Result<()> {
    let result = attempt.map_or_else(|error| error.to_string(), |()| "done".to_owned());
    print(format!("{name}: {what}: {}\n", result.split(" (").next().unwrap_or_default()).as_bytes())
}

/// Changes all metadata of a file.
pub(super) fn change(path: &str) -> [(&'static str, io::Result<()>); 4] {
    let now = Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = Timestamps { last_access: now, last_modification: now };
    let (flags, own) = (XattrFlags::empty(), rustix::process::getgid());
    [
        ("chmod", fs::set_permissions(path, fs::Permissions::from_mode(0o777))),
        ("chown", rustix::fs::chown(path, None, Some(own)).map_err(Into::into)),
        ("setxattr", rustix::fs::setxattr(path, "user.note", b"x", flags).map_err(Into::into)),
        ("utimes", rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).map_err(Into::into)),
    ]
}
