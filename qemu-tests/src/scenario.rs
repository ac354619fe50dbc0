//! The definition of a scenario, and its possible results.

use std::fmt;
use std::process::ExitCode;

use serde_json::Value;

use crate::lab::{Lab, Running};

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// A sentence in snake case: what a user could observe.
    pub name: &'static str,
    /// The host half.
    pub host: fn(&mut Lab) -> Outcome,
    /// The guest half: what `/probe NAME ROLE…` does inside, given the arguments after the name.
    pub guest: fn(&[String]) -> ExitCode,
}

/// A scenario that shares one machine with others. It has its own services, with names of their own, looks at nothing else,
/// and leaves the machine running. A boot takes longer than most of these scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// As in [`Scenario`].
    pub name: &'static str,
    /// Its lines below `services` in the machine's manifest.
    pub services: &'static str,
    /// Those of its services that are allowed to control others.
    pub control: &'static [&'static str],
    /// The host half, which receives the running machine.
    pub host: fn(&Running) -> Outcome,
    /// The guest half, as in [`Scenario`].
    pub guest: fn(&[String]) -> ExitCode,
}

/// The vsock implementation that the enclaves of a run use.
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
    /// This vsock implementation. Scenarios without this need run on either.
    Vsock(Vsock),
    /// Real images, which `scripts/inputs` creates.
    Inputs,
    /// QEMU's Nitro enclave machine, which `scripts/qemu-nitro` builds.
    Nitro,
    /// The kernel for tests, which `scripts/kernel --variant tsm-test` builds.
    TestKernel,
    /// About ten gigabytes of free disk space.
    Space,
    /// A processor that supports KVM and lacks RDRAND. No known processor is like that, only an emulated one.
    BareCpu,
}

impl Need {
    /// The need of this name on the command line.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "inputs" => Some(Self::Inputs),
            "nitro" => Some(Self::Nitro),
            "test-kernel" => Some(Self::TestKernel),
            "space" => Some(Self::Space),
            "bare-cpu" => Some(Self::BareCpu),
            _ => None,
        }
    }
}

/// The result of a host half: `Err` is a failed expectation, or the reason why the scenario cannot run on this machine.
pub type Outcome = Result<(), Failure>;

/// Why a scenario did not pass.
#[derive(Debug)]
pub enum Failure {
    /// A failed expectation.
    Failed(String),
    /// What this machine lacks. In CI a skipped scenario counts as a failure.
    Skipped(String),
}

impl Failure {
    /// A failed expectation, with this message.
    pub fn failed(what: impl fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(format!("the scenario itself failed: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(format!("the output is not the expected JSON: {error}"))
    }
}

/// Fails the scenario unless `holds`; `what` states what was expected and what was seen.
pub fn expect(holds: bool, what: impl fmt::Display) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::failed(what)) }
}

/// Fails the scenario unless the two are equal.
pub fn expect_eq<T: PartialEq + fmt::Debug>(seen: &T, expected: &T, what: &str) -> Outcome {
    expect(seen == expected, format_args!("{what}: expected {expected:?}, saw {seen:?}"))
}

/// Fails the scenario unless `value` has `expected` at `pointer` (RFC 6901).
pub fn expect_at(value: &Value, pointer: &str, expected: impl Into<Value>) -> Outcome {
    expect_eq(value.pointer(pointer).unwrap_or(&Value::Null), &expected.into(), pointer)
}

/// Bytes shown of the start and of the end of an unexpected text: one or two screens.
const SHOWN: usize = 4096;

/// The start and the end of a text, or all of a short one.
#[must_use]
pub fn excerpt(text: &str) -> String {
    let (start, end) =
        (text.floor_char_boundary(SHOWN), text.ceil_char_boundary(text.len().saturating_sub(SHOWN)));
    if start < end {
        format!("{}\n… {} bytes …\n{}", &text[..start], end - start, &text[end..])
    } else {
        text.to_owned()
    }
}

/// Fails the scenario unless `text` contains `part`.
pub fn expect_in(text: &str, part: &str, what: &str) -> Outcome {
    expect(text.contains(part), format_args!("{what}: expected {part:?} in:\n{}", excerpt(text)))
}
