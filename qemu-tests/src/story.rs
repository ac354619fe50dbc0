//! What a scenario is, and how one ends.

use std::fmt;
use std::process::ExitCode;

use serde_json::Value;

use crate::lab::{Lab, Running};

/// One story.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// A sentence in snake case: what a user could notice.
    pub name: &'static str,
    /// The host half.
    pub host: fn(&mut Lab) -> Outcome,
    /// The guest half: what `/probe NAME ROLE…` does inside, given the words after the name.
    pub guest: fn(&[String]) -> ExitCode,
}

/// A story that is told on one machine together with others. It has services of its own, with names of its own, looks at nothing
/// else, and leaves the machine running. A boot takes longer than most stories.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// As a [`Scenario`]'s.
    pub name: &'static str,
    /// Its lines below `services` in the manifest of the machine.
    pub services: &'static str,
    /// Those of its services that may control others.
    pub control: &'static [&'static str],
    /// The host half, which is given the running machine.
    pub host: fn(&Running) -> Outcome,
    /// The guest half, as a [`Scenario`]'s.
    pub guest: fn(&[String]) -> ExitCode,
}

/// Which device carries the vsock of a run's enclaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vsock {
    /// `vhost-device-vsock`, a program that works on every host.
    Program,
    /// The kernel's `vhost_vsock`.
    Kernel,
}

/// What a scenario needs that not every host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// That the vsock is this one. Scenarios without this need run on either.
    Vsock(Vsock),
    /// Real images, which `scripts/inputs` makes.
    Inputs,
    /// QEMU's machine of Nitro enclaves, which `scripts/qemu-nitro` builds.
    Nitro,
    /// A disk with some ten gigabytes to spare.
    Space,
    /// A processor that runs KVM and has no RDRAND. Only an emulated one is known to be like that.
    BareCpu,
}

impl Need {
    /// The need of this name on the command line.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "inputs" => Some(Self::Inputs),
            "nitro" => Some(Self::Nitro),
            "space" => Some(Self::Space),
            "bare-cpu" => Some(Self::BareCpu),
            _ => None,
        }
    }
}

/// How a host half ends: `Err` is a failed expectation, or a reason why the story cannot be told on this machine.
pub type Outcome = Result<(), Failure>;

/// Why a scenario did not pass.
#[derive(Debug)]
pub enum Failure {
    /// An expectation that does not hold.
    Broken(String),
    /// Something this machine does not have, by name. The gate counts it as a failure.
    Skipped(String),
}

impl Failure {
    /// An expectation that does not hold, in words.
    pub fn broken(what: impl fmt::Display) -> Self {
        Self::Broken(what.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(format!("the scenario itself failed: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Broken(format!("what was printed is not the JSON expected: {error}"))
    }
}

/// Fails the story unless `holds`; `what` says what was expected and what was seen.
pub fn expect(holds: bool, what: impl fmt::Display) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::broken(what)) }
}

/// Fails the story unless the two are the same.
pub fn expect_eq<T: PartialEq + fmt::Debug>(seen: &T, expected: &T, what: &str) -> Outcome {
    expect(seen == expected, format_args!("{what}: expected {expected:?}, saw {seen:?}"))
}

/// Fails the story unless `value` has `expected` at `pointer` (RFC 6901).
pub fn expect_at(value: &Value, pointer: &str, expected: impl Into<Value>) -> Outcome {
    expect_eq(value.pointer(pointer).unwrap_or(&Value::Null), &expected.into(), pointer)
}

/// Bytes of a text that are shown of each end, where it is not what was expected: a screen or two.
const SHOWN: usize = 4096;

/// The two ends of a text, or all of a short one.
#[must_use]
pub fn ends_of(text: &str) -> String {
    let (start, end) =
        (text.floor_char_boundary(SHOWN), text.ceil_char_boundary(text.len().saturating_sub(SHOWN)));
    if start < end {
        format!("{}\n… {} bytes …\n{}", &text[..start], end - start, &text[end..])
    } else {
        text.to_owned()
    }
}

/// Fails the story unless `text` contains `part`.
pub fn expect_in(text: &str, part: &str, what: &str) -> Outcome {
    expect(text.contains(part), format_args!("{what}: expected {part:?} in:\n{}", ends_of(text)))
}
