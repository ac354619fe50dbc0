//! The application's root: a file beyond every 32-bit limit, and what happens when nothing more can be written above it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use crate::guest::say;
use crate::lab::{BUILD_LIMIT, path_str};
use crate::story::{Failure, expect, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The story of a large file.
pub(super) const LARGE_FILE: Scenario = Scenario {
    name: "a_file_of_more_than_four_gigabytes_is_read_to_its_end",
    host: large_file,
    guest: read_large,
};

/// The story of a service that writes until there is no room.
pub(super) const FULL: Scenario =
    Scenario { name: "a_full_root_is_an_error_to_the_service_and_to_nobody_else", host: full, guest: fill };

const LARGE: &str = "large";

/// More than 32 bits can count; cpio's and old tools' limits lie below.
const LENGTH: u64 = (5 << 30) + 3;

/// Where in it something stands: at both ends, and on either side of 4 GiB.
const PLACES: [u64; 4] = [0, (4 << 30) - 4, 4 << 30, LENGTH - 3];

/// What stands at a place.
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
    let words = ["build", "--image", &from, "--manifest", path_str(&manifest)?, "-o", path_str(&image)?];
    lab.sleeve(&words).limit(BUILD_LIMIT).finish()?.expect_code(0)?;
    let mut web = lab.run(&image, &[])?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    expect_in(&ended.stdout, &format!("{LENGTH} bytes, 4 of 4 marks, zeros between"), "what the guest read")
}

fn read_large(_words: &[String]) -> ExitCode {
    let told = look().and_then(|text| say(text.as_bytes()));
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn look() -> io::Result<String> {
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

/// A service that fills all it may write, and one that looks on.
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
            line.ok_or_else(|| Failure::broken(format_args!("nothing of {place}:\n{}", ended.stdout)))?;
        expect_in(line, "No space left on device, then written again", "what the service was told")?;
        let kib: u64 =
            line.split_whitespace().rev().nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
        expect((1536..=2048).contains(&kib), format_args!("{place} took {kib} KiB of 2048"))?;
    }
    expect_in(&ended.stdout, "other was asked to end", "the other service")?;
    expect(!ended.stderr.contains("supervisor was started again"), "the supervisor was spared")
}

fn fill(words: &[String]) -> ExitCode {
    if words.first().is_some_and(|word| word == "other") {
        return look_on();
    }
    let told = ["/var", "/tmp"].into_iter().try_for_each(|place| say(until_full(place)?.as_bytes()));
    if told.is_ok() { ExitCode::from(7) } else { ExitCode::FAILURE }
}

/// Writes until it is refused, makes room, and writes again.
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
    fs::remove_file(&path)?;
    let again = fs::write(&path, "x").map_or_else(|error| error.to_string(), |()| "written again".to_owned());
    let why =
        if refusal.kind() == ErrorKind::StorageFull { "No space left on device" } else { "another error" };
    Ok(format!("{place}: {why}, then {again} after {} KiB\n", written / 1024))
}

fn look_on() -> ExitCode {
    let lived = crate::guest::catch(rustix::process::Signal::TERM).and_then(|mut term| {
        fs::write("/var/other", "")?;
        term.wait()?;
        say(b"other was asked to end\n")
    });
    if lived.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
