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

use boot::{Boot, BootStage};
use cloister_wire::causes;

/// The boot, as a table.
pub const STAGES: [BootStage; 11] = [
    BootStage { name: "mounts", run: boot::mounts },
    BootStage { name: "console", run: boot::console },
    BootStage { name: "platform", run: boot::platform },
    BootStage { name: "entropy", run: boot::entropy },
    BootStage { name: "clock", run: boot::clock },
    BootStage { name: "lockdown", run: boot::lockdown },
    BootStage { name: "measure", run: boot::measure },
    BootStage { name: "hold", run: serve::hold },
    // The supervisor becomes its program meanwhile, on another processor.
    BootStage { name: "network", run: boot::network },
    BootStage { name: "root", run: boot::root },
    BootStage { name: "serve", run: serve::serve },
];

/// Boots by this table and serves until the machine ends. The first stage that fails ends it.
pub fn run(stages: &[BootStage]) -> ! {
    end::catch_panics();
    let mut boot = Boot::default();
    for (index, stage) in stages.iter().enumerate() {
        if let Err(failed) = boot.run(index, stages.len(), *stage) {
            end::fatal(failed.stage, &causes::line(&failed.error));
        }
    }
    match boot.holder {
        Some(holder) => holder.run(boot.console),
        None => end::fatal("hold", "there is nothing to serve with"),
    }
}
