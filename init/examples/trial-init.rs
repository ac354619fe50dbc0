//! An init whose boot goes wrong in the way that the word in `/trial` names, for the scenarios that look at how the machine
//! ends then.
//!
//! Its law: it is never shipped. All that it adds to the real table are the stages `first`, `pretend` and `late`.

#![expect(clippy::unnecessary_wraps, reason = "a stage of the table can fail")]

use cloister_init::STAGES;
use cloister_init::boot::{BootError, Machine, Stage};
use cloister_sys::platform::Platform;

fn main() {
    let mut stages = vec![Stage { name: "first", run: first }];
    for stage in STAGES {
        stages.push(stage);
        if stage.name == "platform" {
            stages.push(Stage { name: "pretend", run: pretend });
        }
    }
    stages.push(Stage { name: "late", run: late });
    cloister_init::run(&stages)
}

/// What goes wrong.
fn word() -> String {
    std::fs::read_to_string("/trial").unwrap_or_default().trim().to_owned()
}

/// Nothing is mounted here.
#[expect(clippy::panic, reason = "what a panic of PID 1 does is what is tried")]
fn first(_: &mut Machine) -> Result<String, BootError> {
    if word() == "panic-first" { panic!("before anything was mounted") } else { Ok(String::new()) }
}

/// Makes the stages after it believe in another platform than the machine is, or leaves as PID 1 never does.
#[expect(clippy::exit, reason = "what the kernel does when PID 1 leaves is what is tried")]
fn pretend(machine: &mut Machine) -> Result<String, BootError> {
    match word().as_str() {
        "nitro" => machine.platform = Some(Platform::Nitro),
        "end" => std::process::exit(0),
        _ => {}
    }
    Ok(String::new())
}

/// The supervisor runs here.
#[expect(clippy::panic, reason = "what a panic of PID 1 does is what is tried")]
fn late(_: &mut Machine) -> Result<String, BootError> {
    if word() == "panic-late" { panic!("a \"quoted\" reason\nof two lines") } else { Ok(String::new()) }
}
