//! PID 1 of the enclave: it boots, holds processes, and ends the machine.
//!
//! Its law: mechanism only. It decides nothing that the supervisor could, waits for no peer, and never ends but through
//! [`end`]. The order of the boot is [`STAGES`].

pub mod boot;
pub mod cgroup;
pub mod channel;
pub mod console;
pub mod end;
pub mod hold;
pub mod root;
pub mod serve;
pub mod spawn;

use boot::{Machine, Stage};
use cloister_wire::causes;

/// The boot, as a table.
pub const STAGES: [Stage; 11] = [
    Stage { name: "mounts", run: boot::mounts },
    Stage { name: "console", run: boot::console },
    Stage { name: "platform", run: boot::platform },
    Stage { name: "entropy", run: boot::entropy },
    Stage { name: "clock", run: boot::clock },
    Stage { name: "lockdown", run: boot::lockdown },
    Stage { name: "measure", run: boot::measure },
    Stage { name: "hold", run: serve::hold },
    // The supervisor becomes its program meanwhile, on another processor.
    Stage { name: "network", run: boot::network },
    Stage { name: "root", run: boot::root },
    Stage { name: "serve", run: serve::serve },
];

/// Boots by this table and serves until the machine ends. The first stage that fails ends it.
pub fn run(stages: &[Stage]) -> ! {
    end::catch_panics();
    let mut machine = Machine::default();
    for (index, stage) in stages.iter().enumerate() {
        if let Err(failed) = machine.run(index, stages.len(), *stage) {
            end::fatal(failed.stage, &causes::line(&failed.error));
        }
    }
    match machine.holder {
        Some(holder) => holder.run(machine.console),
        None => end::fatal("hold", "there is nothing to serve with"),
    }
}
