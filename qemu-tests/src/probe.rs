//! The guest half of every scenario: `/probe NAME ROLE…` runs the guest half of the scenario NAME with these arguments.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
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
