//! An init whose boot goes wrong in the way that the word in `/trial` names, for the scenarios that look at how the machine
//! ends then.
//!
//! Its law: it is never shipped. All that it adds to the real table are the stages `first`, `pretend` and `late`.

#![expect(clippy::unnecessary_wraps, reason = "a stage of the table can fail")]

use cloister_init::boot::{self, BootError, Machine, Stage, chain};
use cloister_init::{end, serve};
use cloister_sys::platform::Platform;

const STAGES: [Stage; 12] = [
    Stage { name: "first", run: first },
    Stage { name: "mounts", run: boot::mounts },
    Stage { name: "console", run: boot::console },
    Stage { name: "platform", run: boot::platform },
    Stage { name: "pretend", run: pretend },
    Stage { name: "entropy", run: boot::entropy },
    Stage { name: "clock", run: boot::clock },
    Stage { name: "network", run: boot::network },
    Stage { name: "lockdown", run: boot::lockdown },
    Stage { name: "hold", run: serve::hold },
    Stage { name: "serve", run: serve::serve },
    Stage { name: "late", run: late },
];

fn main() {
    end::catch_panics();
    let mut machine = Machine::default();
    for (index, stage) in STAGES.into_iter().enumerate() {
        if let Err(failed) = machine.run(index, STAGES.len(), stage) {
            end::fatal(failed.stage, &chain(&failed.error));
        }
        if stage.name == "pretend" && word() == "end" {
            return;
        }
    }
    match machine.holder {
        Some(holder) => holder.run(machine.console),
        None => end::fatal("hold", "there is nothing to serve with"),
    }
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

/// Makes the stages after it believe in another platform than the machine is.
fn pretend(machine: &mut Machine) -> Result<String, BootError> {
    if word() == "nitro" {
        machine.platform = Some(Platform::Nitro);
    }
    Ok(String::new())
}

/// The supervisor runs here.
#[expect(clippy::panic, reason = "what a panic of PID 1 does is what is tried")]
fn late(_: &mut Machine) -> Result<String, BootError> {
    if word() == "panic-late" { panic!("a \"quoted\" reason\nof two lines") } else { Ok(String::new()) }
}
