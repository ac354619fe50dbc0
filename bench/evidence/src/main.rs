//! The evidence benchmark: verifying evidence of each platform, next to the signatures that this takes alone and to other verifiers.
//!
//! `cloister-bench-evidence ROUNDS` prints a Markdown table. Invariant: all variants are measured alternately, on one thread, with
//! recorded evidence at its own time, and every verification that is measured succeeds.
#![forbid(unsafe_code)]

mod cloister;
#[path = "../../src/figures.rs"]
mod figures;
mod others;
mod signatures;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use figures::{median, table};

/// Each document of AWS Nitro, and a second in which it is valid.
const DOCUMENTS: [(&str, &[u8], u64); 3] = [
    (
        "AWS Nitro: 16 registers, a key",
        include_bytes!("../../../crates/evidence/testdata/nitro/n1-production.cose"),
        1_736_179_630,
    ),
    (
        "AWS Nitro: 17 registers, indefinite length",
        include_bytes!("../../../crates/evidence/testdata/nitro/n4-register-16.cose"),
        1_762_795_220,
    ),
    (
        "AWS Nitro: 19 registers",
        include_bytes!("../../../crates/evidence/testdata/nitro/n5-registers-20-to-22.cose"),
        1_734_707_290,
    ),
];

/// A report of SEV-SNP with its certificates, and a second in which they are valid.
const REPORT: &[u8] = include_bytes!("../../../crates/evidence/testdata/snp/recorded/milan-report.bin");
const VCEK: &[u8] = include_bytes!("../../../crates/evidence/testdata/snp/recorded/milan-vcek.der");
const ASK: &[u8] = include_bytes!("../../../crates/evidence/testdata/snp/recorded/milan-ask.der");
const ARK: &[u8] = include_bytes!("../../../crates/evidence/testdata/snp/recorded/milan-ark.der");
const REPORT_TIME: u64 = 1_700_000_000;

/// A quote of TDX with its collateral, and a second in which it is valid.
const QUOTE: &[u8] = include_bytes!("../../../crates/evidence/testdata/tdx/recorded/td10.quote");
const COLLATERAL: &[u8] =
    include_bytes!("../../../crates/evidence/testdata/tdx/recorded/td10.collateral.json");
const QUOTE_TIME: u64 = 1_750_750_000;

/// Something that is measured: whether it succeeded.
type Check = Box<dyn Fn() -> bool>;

/// One piece of evidence.
struct Evidence {
    name: &'static str,
    /// The signatures alone, which the others are compared with, then each verifier.
    variants: Vec<(&'static str, Check)>,
}

fn main() -> ExitCode {
    let rounds = std::env::args().nth(1).map_or(Some(101), |rounds| rounds.parse().ok());
    let Some(rounds) = rounds.filter(|rounds| *rounds > 0) else {
        eprintln!("usage: cloister-bench-evidence [ROUNDS]");
        return ExitCode::from(2);
    };
    match measure(rounds).map(|text| io::stdout().write_all(text.as_bytes())) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("cloister-bench-evidence: error: the table could not be written: {error}");
            ExitCode::FAILURE
        }
        Err(what) => {
            eprintln!("cloister-bench-evidence: error: {what}: all evidence must verify");
            ExitCode::FAILURE
        }
    }
}

fn measure(rounds: u32) -> Result<String, String> {
    let mut rows = Vec::new();
    for evidence in evidence().ok_or("the recorded evidence could not be read")? {
        rows.extend(compare(rounds, &evidence)?);
    }
    Ok(table(&["evidence", "verified by", "ms", "per second and core", "/ signatures alone"], &rows))
}

fn evidence() -> Option<Vec<Evidence>> {
    let mut all = Vec::new();
    for (name, bytes, now) in DOCUMENTS {
        let variants = vec![
            ("5 P-384 signatures alone", signatures::document()?),
            ("**Cloister**", cloister::document(bytes, now)),
            ("nitro_attest, ring", others::document(bytes, now)?),
        ];
        all.push(Evidence { name, variants });
    }
    let variants = vec![
        ("3 RSA-4096 and 1 P-384 signatures alone", signatures::report()?),
        ("**Cloister**", cloister::report()?),
        ("sev, RustCrypto", others::report()),
    ];
    all.push(Evidence { name: "SEV-SNP: Milan", variants });
    let variants = vec![
        ("12 P-256 signatures alone", signatures::quote()?),
        ("**Cloister**", cloister::quote()?),
        ("dcap-qvl alone, RustCrypto", others::quote(dcap_qvl::verify::rustcrypto::verify)?),
        ("dcap-qvl alone, ring", others::quote(dcap_qvl::verify::ring::verify)?),
    ];
    all.push(Evidence { name: "TDX: version 4", variants });
    Some(all)
}

/// The rows of one piece of evidence.
fn compare(rounds: u32, evidence: &Evidence) -> Result<Vec<Vec<String>>, String> {
    let mut samples = vec![Vec::new(); evidence.variants.len()];
    for _ in 0..rounds {
        for ((name, check), samples) in evidence.variants.iter().zip(&mut samples) {
            samples.push(milliseconds(check).ok_or_else(|| format!("{}, {name}: failed", evidence.name))?);
        }
    }
    let medians: Vec<f64> = samples.iter().map(|samples| median(samples)).collect();
    let alone = medians.first().copied().unwrap_or(f64::NAN);
    let rows = evidence.variants.iter().zip(medians).map(|((name, _), took)| {
        let figures = [format!("{took:.2}"), format!("{:.0}", 1000.0 / took), format!("{:.2}", took / alone)];
        [evidence.name.to_owned(), (*name).to_owned()].into_iter().chain(figures).collect()
    });
    Ok(rows.collect())
}

/// How long something that must succeed takes.
fn milliseconds(what: &Check) -> Option<f64> {
    let start = Instant::now();
    let succeeded = what();
    let took = start.elapsed();
    succeeded.then_some(took.as_secs_f64() * 1000.0)
}
