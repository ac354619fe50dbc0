//! PID 1 of the enclave: it boots, holds processes, and shuts the machine down.
//!
//! Invariant: mechanism only. It decides nothing that the supervisor could decide, waits for no peer, and exits only through
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
    // Meanwhile the supervisor executes its program, on another processor.
    BootStage { name: "network", run: boot::network },
    BootStage { name: "root", run: boot::root },
    BootStage { name: "serve", run: serve::serve },
];

/// Boots by this table and serves until the machine is shut down. The first stage that fails shuts it down.
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
        None => end::fatal("hold", "the stage has not run"),
    }
}
