//! The guest half of every scenario: `/probe NAME ROLE…` does what the scenario NAME says for these words.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = words.split_first() else {
        return complain("usage: probe SCENARIO [WORD…]");
    };
    let soak = Some(qemu_tests::soak::GUEST).filter(|soak| soak.name == name).map(|soak| soak.guest);
    match qemu_tests::scenarios::guest(name).or(soak) {
        Some(guest) => guest(rest),
        None => complain(&format!("probe: there is no scenario {name}")),
    }
}

fn complain(what: &str) -> ExitCode {
    // Without a stderr there is nobody left to tell.
    drop(writeln!(std::io::stderr(), "{what}"));
    ExitCode::from(2)
}
