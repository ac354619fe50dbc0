//! The evidence benchmark: verifying a document of AWS Nitro, and the five P-384 signatures that this takes alone.
//!
//! `evidence ROUNDS` prints a Markdown table. The two are measured alternately, on recorded documents at their own time.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use cloister_bench::figures::{median, table};
use cloister_evidence::nitro::{self, Binding, Events, Expectation, Freshness, Measurements, Nonce, Roots};
use p384::ecdsa::signature::{Signer as _, Verifier as _};
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};

/// Each document, and a second in which it is valid.
const DOCUMENTS: [(&str, &[u8], u64); 3] = [
    (
        "16 registers, a key",
        include_bytes!("../../../crates/evidence/testdata/nitro/n1-production.cose"),
        1_736_179_630,
    ),
    (
        "17 registers, indefinite length",
        include_bytes!("../../../crates/evidence/testdata/nitro/n4-register-16.cose"),
        1_762_795_220,
    ),
    (
        "19 registers",
        include_bytes!("../../../crates/evidence/testdata/nitro/n5-registers-20-to-22.cose"),
        1_734_707_290,
    ),
];

/// Bytes of what the five signatures of a document are over: four certificates and the payload.
const SIGNED: [usize; 5] = [590, 690, 590, 520, 4500];

/// Checks that the document is authentic, and not in debug mode.
const DOCUMENT_ONLY: Expectation<'_> = Expectation {
    allow_virtual: false,
    freshness: Freshness { max_age: 3 * 3600, max_ahead: 3 * 3600 },
    nonce: Nonce::Unchecked,
    binding: Binding::Unchecked,
    measurements: Measurements::Unchecked,
    events: Events::Unchecked,
};

fn main() -> ExitCode {
    let rounds = std::env::args().nth(1).map_or(Some(101), |rounds| rounds.parse().ok());
    if let Some(text) = rounds.and_then(measure) {
        write!(io::stdout(), "{text}").unwrap_or_default();
        ExitCode::SUCCESS
    } else {
        writeln!(io::stderr(), "usage: evidence [ROUNDS]; each document must verify").unwrap_or_default();
        ExitCode::FAILURE
    }
}

fn measure(rounds: u32) -> Option<String> {
    let key = SigningKey::from_slice(&[7; 48]).ok()?;
    let signed = SIGNED.map(|length| {
        let message = vec![7; length];
        let signature: Signature = key.sign(&message);
        (message, signature)
    });
    let point = VerifyingKey::from(&key).to_sec1_point(false);
    let signatures = || {
        signed.iter().all(|(message, signature)| {
            VerifyingKey::from_sec1_bytes(point.as_bytes())
                .is_ok_and(|key| key.verify(message, signature).is_ok())
        })
    };
    let mut rows = Vec::new();
    for (name, bytes, now) in DOCUMENTS {
        let roots = Roots::aws();
        let verify = || nitro::verify(bytes, &roots, now, &DOCUMENT_ONLY).is_ok();
        let (mut whole, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            whole.push(milliseconds(verify)?);
            alone.push(milliseconds(signatures)?);
        }
        let (whole, alone) = (median(&whole), median(&alone));
        rows.push(vec![
            name.to_owned(),
            format!("{whole:.2}"),
            format!("{alone:.2}"),
            format!("{:.2}", whole / alone),
        ]);
    }
    Some(table(&["document", "verified, ms", "five signatures alone, ms", "ratio"], &rows))
}

/// How long something that must succeed takes.
fn milliseconds(what: impl FnOnce() -> bool) -> Option<f64> {
    let start = Instant::now();
    let succeeded = what();
    let took = start.elapsed();
    succeeded.then_some(took.as_secs_f64() * 1000.0)
}
