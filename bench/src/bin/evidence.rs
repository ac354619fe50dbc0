//! The evidence benchmark: verifying evidence of each platform, and the signatures that this takes alone.
//!
//! `evidence ROUNDS` prints a Markdown table. Invariant: the two are measured alternately, on recorded evidence at its own time, and
//! every verification that is measured succeeds.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use cloister_bench::figures::{median, table};
use cloister_evidence::nitro::{self, Binding, Events, Expectation, Freshness, Measurements, Nonce, Roots};
use cloister_evidence::snp::{self, Product, Report, Tcb};
use cloister_evidence::tdx::{self, Collateral, Quote};
use p384::ecdsa::signature::{Signer as _, Verifier as _};
use rsa::pkcs1::RsaPublicKeyRef;
use sha2::Sha384;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

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

/// Bytes of what the five signatures of a document are over: four certificates and the payload.
const DOCUMENT_SIGNED: [usize; 5] = [590, 690, 590, 520, 4500];

/// Checks that the document is authentic, and not in debug mode.
const DOCUMENT_ONLY: Expectation<'_> = Expectation {
    allow_virtual: false,
    freshness: Freshness { max_age: 3 * 3600, max_ahead: 3 * 3600 },
    nonce: Nonce::Unchecked,
    binding: Binding::Unchecked,
    measurements: Measurements::Unchecked,
    events: Events::Unchecked,
};

/// A report of SEV-SNP with its certificates, and a second in which they are valid.
const REPORT: &[u8] = include_bytes!("../../../crates/evidence/testdata/snp/recorded/milan-report.bin");
const VCEK: &[u8] = include_bytes!("../../../crates/evidence/testdata/snp/recorded/milan-vcek.der");
const ASK: &[u8] = include_bytes!("../../../crates/evidence/testdata/snp/recorded/milan-ask.der");
const ARK: &[u8] = include_bytes!("../../../crates/evidence/testdata/snp/recorded/milan-ark.der");
const REPORT_TIME: u64 = 1_700_000_000;

/// RSA signatures of a report: of its three certificates.
const REPORT_RSA: usize = 3;

/// Bytes of what the report's own signature is over.
const REPORT_SIGNED: [usize; 1] = [0x2a0];

/// A quote of TDX with its collateral, and a second in which it is valid.
const QUOTE: &[u8] = include_bytes!("../../../crates/evidence/testdata/tdx/recorded/td10.quote");
const COLLATERAL: &[u8] =
    include_bytes!("../../../crates/evidence/testdata/tdx/recorded/td10.collateral.json");
const QUOTE_TIME: u64 = 1_750_750_000;

/// Bytes of what the signatures of this quote and its collateral are over: the root's certificate in each of three chains; both
/// revocation lists; the certificates of the signer, the authority and the platform; TCB info and the quoting enclave's identity; the
/// enclave's report and the quote.
const QUOTE_SIGNED: [usize; 12] = [568, 568, 568, 203, 461, 566, 577, 1178, 2934, 2572, 384, 632];

/// Something that is measured: whether it succeeded.
type Check = Box<dyn Fn() -> bool>;

fn main() -> ExitCode {
    let rounds = std::env::args().nth(1).map_or(Some(101), |rounds| rounds.parse().ok());
    if let Some(text) = rounds.and_then(measure) {
        write!(io::stdout(), "{text}").unwrap_or_default();
        ExitCode::SUCCESS
    } else {
        writeln!(io::stderr(), "usage: evidence [ROUNDS]; all evidence must verify").unwrap_or_default();
        ExitCode::FAILURE
    }
}

fn measure(rounds: u32) -> Option<String> {
    let mut rows = Vec::new();
    for (name, bytes, now) in DOCUMENTS {
        let roots = Roots::aws();
        let verify = move || nitro::verify(bytes, &roots, now, &DOCUMENT_ONLY).is_ok();
        rows.push(row(rounds, name, "5 P-384", &verify, &p384_signatures(&DOCUMENT_SIGNED)?)?);
    }
    let (certificates, own) = (rsa_signatures(REPORT_RSA)?, p384_signatures(&REPORT_SIGNED)?);
    let signatures = move || certificates() && own();
    rows.push(row(rounds, "SEV-SNP: Milan", "3 RSA-4096, 1 P-384", &report()?, &signatures)?);
    let signatures = p256_signatures(&QUOTE_SIGNED)?;
    rows.push(row(rounds, "TDX: version 4", "12 P-256", &quote()?, &signatures)?);
    let head = ["evidence", "signatures", "verified, ms", "signatures alone, ms", "ratio"];
    Some(table(&head, &rows))
}

/// Measures a verification and its signatures.
fn row(
    rounds: u32,
    name: &str,
    signatures: &str,
    verify: &dyn Fn() -> bool,
    verify_signatures: &dyn Fn() -> bool,
) -> Option<Vec<String>> {
    let (mut whole, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        whole.push(milliseconds(verify)?);
        alone.push(milliseconds(verify_signatures)?);
    }
    let (whole, alone) = (median(&whole), median(&alone));
    let figures = [format!("{whole:.2}"), format!("{alone:.2}"), format!("{:.2}", whole / alone)];
    Some([name.to_owned(), signatures.to_owned()].into_iter().chain(figures).collect())
}

/// How long something that must succeed takes.
fn milliseconds(what: &dyn Fn() -> bool) -> Option<f64> {
    let start = Instant::now();
    let succeeded = what();
    let took = start.elapsed();
    succeeded.then_some(took.as_secs_f64() * 1000.0)
}

fn report() -> Option<Check> {
    let content = Report::parse(REPORT).ok()?;
    let minimum = vec![(Product::Milan, Tcb::default())];
    let policy = snp::Policy::new(content.report_data, vec![content.measurement], minimum);
    Some(Box::new(move || {
        let evidence = snp::Evidence { report: REPORT, chain: &[VCEK, ASK, ARK], crl: None };
        snp::verify(&evidence, &snp::Root::AMD, &policy, REPORT_TIME).is_ok()
    }))
}

fn quote() -> Option<Check> {
    let content = Quote::parse(QUOTE).ok()?.report;
    let measurements = tdx::Measurements { mr_td: content.mr_td, rtmr: content.rtmr.map(Some) };
    let policy = tdx::Policy::new(content.report_data, vec![measurements]);
    let collateral = Collateral::from_json(COLLATERAL).ok()?;
    Some(Box::new(move || tdx::verify(QUOTE, &collateral, &tdx::Root::INTEL, &policy, QUOTE_TIME).is_ok()))
}

/// The signature of the ARK's own certificate, this many times.
fn rsa_signatures(count: usize) -> Option<Check> {
    let ark = Certificate::from_der(ARK).ok()?;
    let fields = ark.tbs_certificate();
    let key = fields.subject_public_key_info().subject_public_key.as_bytes()?.to_vec();
    let (message, signature) = (fields.to_der().ok()?, ark.signature().as_bytes()?.to_vec());
    let verify = move || {
        let key = RsaPublicKeyRef::from_der(&key).ok().and_then(|key| rsa::PublicKey::try_from(key).ok());
        key.is_some_and(|key| key.pss_verify::<Sha384>(&message, &signature).is_ok())
    };
    Some(Box::new(move || (0..count).all(|_| verify())))
}

/// A signature over each of these lengths, with ECDSA and SHA-384 on P-384.
fn p384_signatures(lengths: &[usize]) -> Option<Check> {
    let key = p384::ecdsa::SigningKey::from_slice(&[7; 48]).ok()?;
    let point = p384::ecdsa::VerifyingKey::from(&key).to_sec1_point(false);
    let signed = lengths.iter().map(|length| {
        let message = vec![7; *length];
        let signature: p384::ecdsa::Signature = key.sign(&message);
        (message, signature)
    });
    let signed: Vec<_> = signed.collect();
    Some(Box::new(move || {
        signed.iter().all(|(message, signature)| {
            p384::ecdsa::VerifyingKey::from_sec1_bytes(point.as_bytes())
                .is_ok_and(|key| key.verify(message, signature).is_ok())
        })
    }))
}

/// A signature over each of these lengths, with ECDSA and SHA-256 on P-256.
fn p256_signatures(lengths: &[usize]) -> Option<Check> {
    let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).ok()?;
    let point = p256::ecdsa::VerifyingKey::from(&key).to_sec1_point(false);
    let signed = lengths.iter().map(|length| {
        let message = vec![7; *length];
        let signature: p256::ecdsa::Signature = key.sign(&message);
        (message, signature)
    });
    let signed: Vec<_> = signed.collect();
    Some(Box::new(move || {
        signed.iter().all(|(message, signature)| {
            p256::ecdsa::VerifyingKey::from_sec1_bytes(point.as_bytes())
                .is_ok_and(|key| key.verify(message, signature).is_ok())
        })
    }))
}
