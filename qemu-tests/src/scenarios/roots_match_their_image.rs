//! The application's root: a file larger than any 32-bit limit, and writes when the space above it is exhausted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::ExitCode;

use crate::guest::print;
use crate::lab::{BUILD_LIMIT, path_str};
use crate::scenario::{Failure, expect, expect_in};
use crate::{Lab, Outcome, Scenario};

/// A large file.
pub(super) const LARGE_FILE: Scenario = Scenario {
    name: "a_file_of_more_than_four_gigabytes_is_read_to_its_end",
    host: large_file,
    guest: read_large,
};

/// A service that writes until the space is exhausted.
pub(super) const FULL: Scenario =
    Scenario { name: "a_full_root_is_an_error_only_for_its_service", host: full, guest: fill };

/// Files that are copied up, linked and locked.
pub(super) const IDENTITY: Scenario = Scenario {
    name: "a_file_keeps_its_identity_when_changed_linked_and_locked",
    host: identity,
    guest: identify,
};

const LARGE: &str = "large";

/// More than 32 bits can count; the limits of cpio and of old tools are below.
const LENGTH: u64 = (5 << 30) + 3;

/// The places of the marks: at both ends, and on either side of 4 GiB.
const PLACES: [u64; 4] = [0, (4 << 30) - 4, 4 << 30, LENGTH - 3];

/// The mark at a place.
fn mark(place: u64) -> [u8; 3] {
    [b'<', b'0' + u8::try_from(place % 7).unwrap_or_default(), b'>']
}

fn large_file(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    let file = File::create(root.join(LARGE))?;
    file.set_len(LENGTH)?;
    for place in PLACES {
        file.write_all_at(&mark(place), place)?;
    }
    drop(file);
    let manifest = lab.manifest("{version: 1, services: {web: {command: [PROBE], restart: never}}}")?;
    let image = lab.folder().join("large.cloister");
    let from = format!("dir:{}", root.display());
    let args = ["build", "--image", &from, "--manifest", path_str(&manifest)?, "-o", path_str(&image)?];
    lab.sleeve(&args).limit(BUILD_LIMIT).finish()?.expect_code(0)?;
    let mut web = lab.run(&image, &[])?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    expect_in(&ended.stdout, &format!("{LENGTH} bytes, 4 of 4 marks, zeros between"), "the guest's report")
}

fn read_large(_args: &[String]) -> ExitCode {
    let printed = read_marks().and_then(|text| print(text.as_bytes()));
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read_marks() -> io::Result<String> {
    let file = File::open(format!("/{LARGE}"))?;
    let mut found = 0;
    for place in PLACES {
        let mut bytes = [0; 3];
        file.read_exact_at(&mut bytes, place)?;
        found += usize::from(bytes == mark(place));
    }
    let mut between = [1; 4096];
    file.read_exact_at(&mut between, (4 << 30) + 4096)?;
    let zeros = if between == [0; 4096] { "zeros" } else { "something" };
    let length = file.metadata()?.len();
    Ok(format!("{length} bytes, {found} of {} marks, {zeros} between\n", PLACES.len()))
}

/// A service that fills all it may write, and one that watches.
fn full(lab: &mut Lab) -> Outcome {
    let manifest = "
version: 1
services:
  web: {command: [PROBE, fill], restart: never, critical: true, after: [other]}
  other: {command: [PROBE, other], ready: {file: /var/other}}
root: {writable: 2MiB}
";
    let ended = lab.boot(manifest, &[])?.finish()?;
    ended.expect_code(7)?;
    for place in ["/var", "/tmp"] {
        let line = ended.stdout.lines().find(|line| line.contains(&format!("{place}: ")));
        let line =
            line.ok_or_else(|| Failure::failed(format_args!("nothing of {place}:\n{}", ended.stdout)))?;
        expect_in(line, "No space left on device, then written again", "the service's error")?;
        let kib: u64 =
            line.split_whitespace().rev().nth(1).and_then(|number| number.parse().ok()).unwrap_or_default();
        expect((1536..=2048).contains(&kib), format_args!("{place} took {kib} KiB of 2048"))?;
    }
    let image_file = "rename, chmod and removal of a file of the image: refused refused refused, then done";
    expect_in(&ended.stdout, image_file, "changes to the image's files")?;
    expect_in(&ended.stdout, "other was asked to stop", "the other service")?;
    expect(!ended.stderr.contains("restarted after a crash"), "the supervisor kept running")
}

fn fill(args: &[String]) -> ExitCode {
    if args.first().is_some_and(|role| role == "other") {
        return watch();
    }
    let printed = ["/var", "/tmp"].into_iter().try_for_each(|place| print(until_full(place)?.as_bytes()));
    if printed.is_ok() { ExitCode::from(7) } else { ExitCode::FAILURE }
}

/// Writes until a write fails, frees space, and writes again.
fn until_full(place: &str) -> io::Result<String> {
    let path = format!("{place}/fill");
    let mut file = OpenOptions::new().create_new(true).write(true).open(&path)?;
    let mut written = 0_u64;
    let refusal = loop {
        match file.write(&[b'x'; 4096]) {
            Ok(count) => written += u64::try_from(count).unwrap_or_default(),
            Err(error) => break error,
        }
    };
    drop(file);
    let of_image = if place == "/tmp" { String::new() } else { change_image() };
    fs::remove_file(&path)?;
    if !of_image.is_empty() {
        fs::remove_file(OF_IMAGE)?;
        print(
            format!("rename, chmod and removal of a file of the image: {of_image}, then done\n").as_bytes(),
        )?;
    }
    let again = fs::write(&path, "x").map_or_else(|error| error.to_string(), |()| "written again".to_owned());
    let why =
        if refusal.kind() == ErrorKind::StorageFull { "No space left on device" } else { "another error" };
    Ok(format!("{place}: {why}, then {again} after {} KiB\n", written / 1024))
}

/// A file of the image, not changed yet.
const OF_IMAGE: &str = "/etc/group";

/// The results of changes to a file of the image without space for a copy.
fn change_image() -> String {
    let attempts = [
        fs::rename(OF_IMAGE, "/etc/other"),
        fs::set_permissions(OF_IMAGE, fs::Permissions::from_mode(0o600)),
        fs::remove_file(OF_IMAGE),
    ];
    let result = |attempt: &io::Result<()>| match attempt {
        Err(error) if error.kind() == ErrorKind::StorageFull => "refused",
        Err(_) => "another error",
        Ok(()) => "done",
    };
    attempts.iter().map(result).collect::<Vec<_>>().join(" ")
}

fn watch() -> ExitCode {
    let result = crate::guest::catch(rustix::process::Signal::TERM).and_then(|mut term| {
        fs::write("/var/other", "")?;
        term.wait()?;
        print(b"other was asked to stop\n")
    });
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A root with two names of one file, and a service that may drop the kernel's file caches: that takes root's capability for a
/// system call that is refused by default.
fn identity(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    fs::create_dir(root.join("data"))?;
    for (name, other) in [("changed", None), ("linked", None), ("first", Some("second"))] {
        fs::write(root.join("data").join(name), "old\n")?;
        if let Some(other) = other {
            fs::hard_link(root.join("data").join(name), root.join("data").join(other))?;
        }
    }
    let manifest = lab.manifest(
        "{version: 1, services: {web: {command: [PROBE], restart: never, capabilities: [sys_admin], allow_syscalls: [mount]}}}",
    )?;
    let image = lab.build(&root, &manifest)?;
    let ended = lab.run(&image, &[])?.finish()?;
    ended.expect_code(0)?;
    for fact in [
        "numbers before and after a change: same",
        "numbers of a file and its new link: same",
        "locks on both names: refused",
        "text by the other name: old new",
        "numbers of the image's two names: same",
        "names of it: 2",
    ] {
        expect_in(&ended.stdout, &format!("{fact}\n"), "the service's result")?;
    }
    Ok(())
}

fn identify(_args: &[String]) -> ExitCode {
    match try_identities() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(print(format!("{error}\n").as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn try_identities() -> io::Result<()> {
    let proc = "/tmp/proc";
    fs::create_dir(proc)?;
    rustix::mount::mount("proc", proc, "proc", rustix::mount::MountFlags::empty(), None)?;
    // Unused pages, names and inodes (`Documentation/admin-guide/sysctl/vm.rst`).
    let forget = || fs::write(format!("{proc}/sys/vm/drop_caches"), "3");
    let same = |one: &str, other: &str| if one == other { "same" } else { "different" };

    let before = numbers("changed")?;
    fs::set_permissions("/data/changed", fs::Permissions::from_mode(0o600))?;
    forget()?;
    print(
        format!("numbers before and after a change: {}\n", same(&before, &numbers("changed")?)).as_bytes(),
    )?;

    fs::hard_link("/data/linked", "/data/new")?;
    forget()?;
    let (linked, new) = (numbers("linked")?, numbers("new")?);
    print(format!("numbers of a file and its new link: {}\n", same(&linked, &new)).as_bytes())?;

    let (one, other) = (File::open("/data/linked")?, File::open("/data/new")?);
    one.lock()?;
    let refused = matches!(other.try_lock(), Err(fs::TryLockError::WouldBlock));
    print(format!("locks on both names: {}\n", if refused { "refused" } else { "granted" }).as_bytes())?;

    OpenOptions::new().append(true).open("/data/first")?.write_all(b"new\n")?;
    forget()?;
    let text = fs::read_to_string("/data/second")?;
    print(format!("text by the other name: {}\n", text.lines().collect::<Vec<_>>().join(" ")).as_bytes())?;
    let pair = same(&numbers("first")?, &numbers("second")?);
    print(format!("numbers of the image's two names: {pair}\n").as_bytes())?;
    print(format!("names of it: {}\n", fs::metadata("/data/first")?.nlink()).as_bytes())
}

/// Device and inode number of a file, as reported by stat(2).
fn numbers(name: &str) -> io::Result<String> {
    let found = fs::metadata(format!("/data/{name}"))?;
    Ok(format!("{}:{}", found.dev(), found.ino()))
}
