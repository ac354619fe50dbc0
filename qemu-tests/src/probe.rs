//! The guest half of every scenario: `/probe NAME ROLE…` runs the guest half of the scenario NAME with these arguments.
//! As the supervisor of a machine it is started without arguments, and `/trial` has the name.

use std::io::Write;
use std::process::ExitCode;

/// Where [`qemu_tests::lab::Release::with_guest_as_supervisor`] puts the name.
const TRIAL: &str = "/trial";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() {
        args.extend(std::fs::read_to_string(TRIAL).ok());
    }
    let Some((name, rest)) = args.split_first() else {
        return usage_error("usage: probe SCENARIO [ARG…]");
    };
    let soak = Some(qemu_tests::soak::GUEST).filter(|soak| soak.name == name).map(|soak| soak.guest);
    match qemu_tests::scenarios::guest(name).or(soak) {
        Some(guest) => guest(rest),
        None => usage_error(&format!("probe: no scenario is named {name}")),
    }
}

fn usage_error(what: &str) -> ExitCode {
    // Without a stderr there is nowhere to report it.
    drop(writeln!(std::io::stderr(), "{what}"));
    ExitCode::from(2)
}
