//! PID 1: the boot as a table.
//!
//! Its law: the arguments and the environment, which an unmeasured command line can fill, are not read. The first stage that
//! fails ends the machine.

use cloister_init::boot::{self, Machine, Stage, chain};
use cloister_init::{end, serve};

const STAGES: [Stage; 10] = [
    Stage { name: "mounts", run: boot::mounts },
    Stage { name: "console", run: boot::console },
    Stage { name: "platform", run: boot::platform },
    Stage { name: "entropy", run: boot::entropy },
    Stage { name: "clock", run: boot::clock },
    Stage { name: "network", run: boot::network },
    Stage { name: "lockdown", run: boot::lockdown },
    Stage { name: "measure", run: boot::measure },
    Stage { name: "hold", run: serve::hold },
    Stage { name: "serve", run: serve::serve },
];

fn main() {
    if !rustix::process::getpid().is_init() {
        return;
    }
    end::catch_panics();
    let mut machine = Machine::default();
    for (index, stage) in STAGES.into_iter().enumerate() {
        if let Err(failed) = machine.run(index, STAGES.len(), stage) {
            end::fatal(failed.stage, &chain(&failed.error));
        }
    }
    match machine.holder {
        Some(holder) => holder.run(machine.console),
        None => end::fatal("hold", "there is nothing to serve with"),
    }
}
