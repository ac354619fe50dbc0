//! A value that a manifest gives to one service reaches that service, and no observer.

use std::fs;
use std::process::ExitCode;

use rustix::process::Signal;

use crate::guest::{catch, print};
use crate::lab::path_str;
use crate::scenario::{expect, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario { name: "values_reach_only_their_service", host, guest };

/// A substring of each value.
const SECRET: &str = "swordfish";

fn host(lab: &mut Lab) -> Outcome {
    let image = lab.image(
        "
version: 1
services:
  web:
    command: [PROBE, web]
    user: app
    env: {IN_VARIABLE: swordfish-1}
    files: {/etc/web/key: {content: swordfish-22, mode: 0400}}
    sealed: {KEY_FILE: swordfish-333, OTHER_FILE: swordfish-4444}
    ready: {log: web has them}
    critical: true
  stranger: {command: [PROBE, stranger], user: 1001, kind: job, after: [web]}
",
    )?;
    let mut web = lab.run(&image, &[])?;
    web.wait_service("stranger", "done")?;
    let looks: [&[&str]; 9] = [
        &["ps", "--json"],
        &["inspect", "web"],
        &["inspect", "web", "--json"],
        &["inspect", "web", "--service", "web"],
        &["inspect", "web", "--service", "web", "--json"],
        &["stats", "web", "--json"],
        &["logs", "web"],
        &["logs", "web", "--json"],
        &["logs", "web", "--console"],
    ];
    for args in looks {
        let seen = web.command(args)?;
        seen.expect_code(0)?;
        let is_clean = !seen.stdout.contains(SECRET) && !seen.stderr.contains(SECRET);
        expect(
            is_clean,
            format_args!("host-sleeve {args:?} shows a value:\n{}{}", seen.stdout, seen.stderr),
        )?;
    }
    let built = web.command(&["inspect", path_str(&image)?, "--json"])?;
    expect_in(&built.stdout, "(14 bytes)", "the length of a sealed text")?;
    expect(!built.stdout.contains("swordfish-4444"), "the sealed text itself is not shown")?;
    let ended = web.stop()?;
    ended.expect_code(0)?;
    expect_in(&ended.stdout, "11 12 13 13 14, sealed", "the lengths of the values that the service read")?;
    expect_in(&ended.stdout, "the stranger found nothing", "the result of another user")?;
    expect(!(ended.stdout + &ended.stderr).contains(SECRET), "no value was printed")
}

fn guest(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("web") => read_all(),
        Some("stranger") => search(),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(print(format!("{args:?}: {error}\n").as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn read_all() -> std::io::Result<()> {
    let mut term = catch(Signal::TERM)?;
    let variable = |name| std::env::var(name).map_err(std::io::Error::other);
    let (key, other) = (variable("KEY_FILE")?, variable("OTHER_FILE")?);
    let texts = [
        variable("IN_VARIABLE")?,
        fs::read_to_string("/etc/web/key")?,
        fs::read_to_string(&key)?,
        // A sealed text can be read any number of times.
        fs::read_to_string(&key)?,
        fs::read_to_string(&other)?,
    ];
    let lengths: Vec<String> =
        texts.iter().filter(|text| text.contains(SECRET)).map(|text| text.len().to_string()).collect();
    let is_sealed = fs::write(&key, "x").is_err() && fs::write("/etc/web/key", "x").is_err();
    let state = if is_sealed { "sealed" } else { "not sealed" };
    print(format!("{}, {state}\nweb has them\n", lengths.join(" ")).as_bytes())?;
    term.wait()
}

/// Searches for the values where another service's could be.
fn search() -> std::io::Result<()> {
    let mut places = vec![fs::read("/etc/web/key"), fs::read("/dev/fd/3"), fs::read("/proc/self/environ")];
    for process in fs::read_dir("/proc")?.flatten() {
        for file in ["environ", "cmdline", "fd/3"] {
            places.push(fs::read(process.path().join(file)));
        }
    }
    let found = places.into_iter().flatten().any(|bytes| String::from_utf8_lossy(&bytes).contains(SECRET));
    print(if found { b"the stranger found a value\n".as_slice() } else { b"the stranger found nothing\n" })
}
