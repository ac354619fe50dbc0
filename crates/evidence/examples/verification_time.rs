//! Measures how long the verification of a report and of a quote takes, next to the signatures in it alone.
//!
//! ```text
//! cargo run --release -p cloister-evidence --example verification_time
//! ```
//!
//! Invariant: only recorded evidence is measured, and every verification that is measured succeeds.
#![expect(clippy::print_stdout, reason = "a program that prints figures")]
#![expect(clippy::indexing_slicing, reason = "recorded evidence has its known length")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use cloister_evidence::snp::{self, Evidence, Product, Report, Tcb};
use cloister_evidence::tdx::{self, Collateral, Measurements, Quote};
use p256::ecdsa::signature::{Signer, Verifier};
use rsa::pkcs1::RsaPublicKeyRef;
use sha2::Sha384;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

const REPORT: &[u8] = include_bytes!("../testdata/snp/recorded/milan-report.bin");
const VCEK: &[u8] = include_bytes!("../testdata/snp/recorded/milan-vcek.der");
const ASK: &[u8] = include_bytes!("../testdata/snp/recorded/milan-ask.der");
const ARK: &[u8] = include_bytes!("../testdata/snp/recorded/milan-ark.der");
const QUOTE: &[u8] = include_bytes!("../testdata/tdx/recorded/td10.quote");
const COLLATERAL: &[u8] = include_bytes!("../testdata/tdx/recorded/td10.collateral.json");
/// Times at which they are valid.
const SNP_NOW: u64 = 1_700_000_000;
const TDX_NOW: u64 = 1_750_750_000;
/// The signatures of a quote with its collateral: the quote, the quoting enclave's report, the platform's certificate, its authority's,
/// the signer's, TCB info, QE identity, and two revocation lists.
const QUOTE_SIGNATURES: u32 = 9;
/// Repetitions: the figure is the fastest, which is disturbed least.
const ROUNDS: u32 = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let rsa = fastest(rsa_signature()?);
    let p384 = fastest(p384_signature()?);
    let p256 = fastest(p256_signature()?);
    let report = fastest(report()?);
    let quote = fastest(quote()?);
    println!("RSA-PSS 4096 {rsa:?}, ECDSA P-384 {p384:?}, ECDSA P-256 {p256:?}");
    let signatures = rsa * 3 + p384;
    println!(
        "report: {report:?}, its signatures (3 RSA, 1 P-384): {signatures:?}, {:.2}",
        ratio(report, signatures)
    );
    let signatures = p256 * QUOTE_SIGNATURES;
    println!(
        "quote: {quote:?}, its signatures ({QUOTE_SIGNATURES} P-256): {signatures:?}, {:.2}",
        ratio(quote, signatures)
    );
    Ok(())
}

fn ratio(time: Duration, base: Duration) -> f64 {
    time.as_secs_f64() / base.as_secs_f64()
}

fn fastest(mut run: impl FnMut() -> bool) -> Duration {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        assert!(black_box(run()), "a verification failed");
        start.elapsed()
    });
    times.min().unwrap_or_default()
}

fn report() -> Result<impl FnMut() -> bool, Box<dyn Error>> {
    let content = Report::parse(REPORT)?;
    let minimum = vec![(Product::Milan, Tcb::default())];
    let policy = snp::Policy::new(content.report_data, vec![content.measurement], minimum);
    Ok(move || {
        let evidence = Evidence { report: REPORT, chain: &[VCEK, ASK, ARK], crl: None };
        snp::verify(&evidence, &snp::Root::AMD, &policy, SNP_NOW).is_ok()
    })
}

fn quote() -> Result<impl FnMut() -> bool, Box<dyn Error>> {
    let content = Quote::parse(QUOTE)?.report;
    let measurements = Measurements { mr_td: content.mr_td, rtmr: content.rtmr.map(Some) };
    let policy = tdx::Policy::new(content.report_data, vec![measurements]);
    let collateral = Collateral::from_json(COLLATERAL)?;
    Ok(move || tdx::verify(QUOTE, &collateral, &tdx::Root::INTEL, &policy, TDX_NOW).is_ok())
}

fn rsa_signature() -> Result<impl FnMut() -> bool, Box<dyn Error>> {
    let root = Certificate::from_der(ARK)?;
    let fields = root.tbs_certificate();
    let key = fields.subject_public_key_info().subject_public_key.as_bytes().unwrap_or_default();
    let key = rsa::PublicKey::try_from(RsaPublicKeyRef::from_der(key)?)?;
    let (message, signature) = (fields.to_der()?, root.signature().as_bytes().unwrap_or_default().to_vec());
    Ok(move || key.pss_verify::<Sha384>(&message, &signature).is_ok())
}

fn p384_signature() -> Result<impl FnMut() -> bool, Box<dyn Error>> {
    let vcek = Certificate::from_der(VCEK)?;
    let key =
        vcek.tbs_certificate().subject_public_key_info().subject_public_key.as_bytes().unwrap_or_default();
    let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(key)?;
    let number = |offset: usize| {
        let mut bytes = [0; 48];
        bytes.copy_from_slice(&REPORT[offset..offset + 48]);
        bytes.reverse();
        bytes
    };
    let signature = p384::ecdsa::Signature::from_scalars(number(0x2a0), number(0x2e8))?;
    Ok(move || key.verify(&REPORT[..0x2a0], &signature).is_ok())
}

fn p256_signature() -> Result<impl FnMut() -> bool, Box<dyn Error>> {
    let private = p256::ecdsa::SigningKey::from_slice(&[7; 32])?;
    let signature: p256::ecdsa::Signature = private.sign(&QUOTE[..632]);
    let key = *private.verifying_key();
    Ok(move || key.verify(&QUOTE[..632], &signature).is_ok())
}
