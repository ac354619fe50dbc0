//! Progress of a measurement, on stderr.

use std::io::{self, Write};

/// Shows progress about ten times, also where there is no terminal.
pub(crate) fn progress(what: &str, round: u32, rounds: u32) {
    let done = round.saturating_add(1);
    if done.is_multiple_of(rounds.div_ceil(10)) || done == rounds {
        writeln!(io::stderr(), "attestation: {what}: {done} of {rounds} rounds").unwrap_or_default();
    }
}
