//! The attestation benchmark: evidence of booted enclaves, and handshakes with and without evidence in the certificate.
//!
//! `attestation handshakes TERMINATOR ROUNDS` measures a terminator on this host; `attestation evidence ROUNDS ENCLAVE…` measures
//! running enclaves, each given as `NAME,FIRST,SECOND,TLS`: the ports of two guest halves and of the attestation server. Both print
//! a Markdown table. Invariant: compared variants alternate in one run, and a failed request or handshake fails the benchmark.

mod certificate;
mod evidence;
mod handshakes;
mod terminator;

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let table = match arguments.as_slice() {
        ["handshakes", terminator, rounds] => {
            rounds_of(rounds).and_then(|rounds| handshakes::measure(terminator.as_ref(), rounds))
        }
        ["evidence", rounds, enclaves @ ..] => {
            rounds_of(rounds).and_then(|rounds| evidence::measure(rounds, enclaves))
        }
        _ => Err(io::Error::other(
            "usage: attestation handshakes TERMINATOR ROUNDS | evidence ROUNDS NAME,FIRST,SECOND,TLS...",
        )),
    };
    match table.and_then(|table| io::stdout().write_all(table.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "attestation: error: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

fn rounds_of(text: &str) -> io::Result<u32> {
    let rounds = text.parse().ok().filter(|rounds| *rounds > 0);
    rounds.ok_or_else(|| io::Error::other(format!("{text:?} is no number of rounds")))
}

/// Shows progress about ten times, also where there is no terminal.
fn progress(what: &str, round: u32, rounds: u32) {
    let done = round.saturating_add(1);
    if done.is_multiple_of(rounds.div_ceil(10)) || done == rounds {
        writeln!(io::stderr(), "attestation: {what}: {done} of {rounds} rounds").unwrap_or_default();
    }
}
