//! An init for trials by hand, with a boot that goes wrong in the way `/cloister/trial` names: docs/init.md has the
//! commands.
//!
//! Its law: it is never shipped. All but its table is the real init.

use cloister_init::boot::{self, BootError, Machine, Stage, chain};
use cloister_init::end;

const STAGES: [Stage; 4] = [
    Stage { name: "mounts", run: boot::mounts },
    Stage { name: "console", run: boot::console },
    Stage { name: "platform", run: boot::platform },
    Stage { name: "trial", run: go_wrong },
];

fn main() {
    end::catch_panics();
    let mut machine = Machine::default();
    for (index, stage) in STAGES.into_iter().enumerate() {
        if let Err(failed) = machine.run(index, STAGES.len(), stage) {
            end::remember(&machine);
            end::fatal(failed.stage, &chain(&failed.error));
        }
    }
    end::remember(&machine);
    end::fatal("trial", "nothing went wrong");
}

#[expect(clippy::panic, reason = "what a panic of PID 1 does is what is tried")]
fn go_wrong(_: &mut Machine) -> Result<String, BootError> {
    match std::fs::read_to_string("/cloister/trial").unwrap_or_default().trim() {
        "panic" => panic!("a \"quoted\" reason\nof two lines"),
        "mount" => Err(BootError::Mount("/nowhere", std::io::Error::from_raw_os_error(19))),
        _ => Ok(String::new()),
    }
}
