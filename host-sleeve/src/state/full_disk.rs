//! A full disk, for tests.
//!
//! Invariant: the limit applies to the whole process, so a test that sets it runs in a process of its own.

use std::env;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set in the process of such a test.
const ALONE: &str = "CLOISTER_TEST_ALONE";

/// Runs the test of this name alone, in a process in which a file that exceeds the limit is an error and not a deadly signal.
/// Returns whether this is that process.
pub(crate) fn is_alone(module: &str, test: &str) -> bool {
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let (_, module) = module.split_once("::").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::{test}"), "--nocapture"]).env(ALONE, "1");
    let output = command.output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    false
}

/// Files of this process cannot grow beyond this many bytes: a write that exceeds it is cut short there, and the next one fails,
/// as on a full disk.
pub(crate) fn file_limit(bytes: Option<usize>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let current = bytes.map(|bytes| u64::try_from(bytes).unwrap()).or(maximum);
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
}
