//! Ctrl-C during a build: it stops at once, reports that, and leaves nothing beside its output or in the cache.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::guest::no_guest;
use crate::lab::{BUILD_LIMIT, path_str};
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "a_build_that_is_interrupted_leaves_nothing_behind", host, guest: no_guest };

/// Megabytes of the application: compression takes seconds, and the signal arrives after milliseconds.
const MEGABYTES: usize = 256;

/// Time limit for the exit: far shorter than the build, and long enough for a busy machine that syncs what it has begun.
const SOON: Duration = Duration::from_secs(8);

fn host(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    write_large(&root.join("large"))?;
    let manifest = lab.manifest("{version: 1, services: {web: {command: [PROBE]}}}")?;
    let (out, cache) = (lab.folder().join("out"), lab.folder().join("cache"));
    fs::create_dir(&out)?;
    let (from, image) = (format!("dir:{}", root.display()), out.join("app.cloister"));
    let args = ["build", "--image", &from, "--manifest", path_str(&manifest)?, "-o", path_str(&image)?];
    for signal in [Signal::INT, Signal::TERM] {
        let build = lab.sleeve(&args).env("CLOISTER_CACHE", path_str(&cache)?).into_command();
        interrupted(build, signal, &out)?;
        expect_eq(&names(&out)?, &Vec::new(), "what is beside the output")?;
        expect_eq(&names(&cache.join("tmp"))?, &Vec::new(), "what is in the cache")?;
    }
    Ok(())
}

/// Sends `signal` when the build has begun to write into `out`, and expects that it exits.
fn interrupted(mut build: Command, signal: Signal, out: &Path) -> Outcome {
    let mut child = build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let outcome = within(&mut child, BUILD_LIMIT, |child| {
        let over = child.try_wait()?.is_some();
        expect(!over, "the build ended before it wrote anything")?;
        Ok(!names(out)?.is_empty())
    })
    .and_then(|()| Ok(kill_process(Pid::from_child(&child), signal).map_err(std::io::Error::from)?))
    .and_then(|()| within(&mut child, SOON, |child| Ok(child.try_wait()?.is_some())));
    // In any case nothing must keep running. A process that has already exited cannot be killed.
    drop(child.kill());
    let ended = child.wait_with_output()?;
    outcome?;
    let stderr = String::from_utf8_lossy(&ended.stderr);
    expect_eq(
        &ended.status.code(),
        &Some(130),
        &format!("the exit code after {signal:?}; its output:\n{stderr}"),
    )?;
    expect_in(&stderr, "error: the build was interrupted", "the message")
}

fn within(
    child: &mut Child,
    limit: Duration,
    mut has_come: impl FnMut(&mut Child) -> Result<bool, Failure>,
) -> Outcome {
    let started = Instant::now();
    while !has_come(child)? {
        expect(started.elapsed() < limit, format_args!("nothing happened within {limit:?}"))?;
        std::thread::yield_now();
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>, Failure> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    Ok(names.collect::<std::io::Result<_>>()?)
}

/// Writes bytes that no compression makes smaller (xorshift64, Marsaglia 2003).
fn write_large(path: &Path) -> Outcome {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..MEGABYTES * 1024 * 1024 / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    Ok(file.flush()?)
}
