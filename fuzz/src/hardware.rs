//! Attestation evidence of SEV-SNP and TDX.

use cloister_evidence::snp::{self, Evidence, Report, kds};
use cloister_evidence::tdx::{self, Collateral, Measurements, Quote, pcs};
use cloister_evidence::{Fetch, Request, Response, Verdict};

const SNP_REPORT: &[u8] = include_bytes!("../../crates/evidence/testdata/snp/recorded/milan-report.bin");
const SNP_VCEK: &[u8] = include_bytes!("../../crates/evidence/testdata/snp/recorded/milan-vcek.der");
const SNP_ASK: &[u8] = include_bytes!("../../crates/evidence/testdata/snp/recorded/milan-ask.der");
const SNP_ARK: &[u8] = include_bytes!("../../crates/evidence/testdata/snp/recorded/milan-ark.der");
/// A time at which the recorded certificates are valid.
const SNP_NOW: u64 = 1_700_000_000;
const TDX_QUOTE: &[u8] = include_bytes!("../../crates/evidence/testdata/tdx/recorded/td10.quote");
/// A time at which the recorded collateral is valid.
const TDX_NOW: u64 = 1_750_750_000;

/// A report. What was read is within its bounds.
pub fn snp_report(data: &[u8]) {
    match Report::parse(data) {
        Ok(report) => {
            assert_eq!(data.len(), snp::REPORT_LEN);
            assert!((2..=5).contains(&report.version));
            assert_eq!(report.processor.is_some(), report.version >= 3);
            assert_eq!(report.mitigations.is_some(), report.version >= 5);
            assert!(report.reserved.iter().all(|offset| *offset < 0x2a0 && data[*offset] != 0));
            for product in snp::Product::ALL {
                let _request = kds::vcek(kds::AMD, product, &report);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// One certificate, at each place of the recorded report's chain: only the recorded one verifies there.
pub fn snp_chain_certificate(data: &[u8]) {
    for index in 0..3 {
        let recorded = [SNP_VCEK, SNP_ASK, SNP_ARK];
        let mut chain = recorded;
        chain[index] = data;
        if snp_verdict(&chain, None).is_none() {
            assert_eq!(data, recorded[index], "another certificate verifies");
        }
    }
}

/// A revocation list for the recorded report.
pub fn snp_crl(data: &[u8]) {
    // We have no recorded list of the recorded root: every list is refused.
    let verdict = snp_verdict(&[SNP_VCEK, SNP_ASK, SNP_ARK], Some(data));
    assert_eq!(verdict.and_then(|verdict| verdict.failure().map(|check| check.name)), Some("revocation"));
}

/// The recorded report's verdict if it is refused.
fn snp_verdict(chain: &[&[u8]], crl: Option<&[u8]>) -> Option<Verdict> {
    let Ok(report) = Report::parse(SNP_REPORT) else { panic!("the recorded report is not read") };
    let minimum = vec![(snp::Product::Milan, snp::Tcb::default())];
    let policy = snp::Policy::new(report.report_data, vec![report.measurement], minimum);
    let evidence = Evidence { report: SNP_REPORT, chain, crl };
    match snp::verify(&evidence, &snp::Root::AMD, &policy, SNP_NOW) {
        Ok(_) => None,
        Err(verdict) => Some(checked(verdict, snp::CHECKS.as_slice())),
    }
}

/// An answer of AMD's key distribution service with a chain.
pub fn snp_chain(data: &[u8]) {
    if let Ok(chain) = kds::chain(data) {
        assert!(chain.iter().all(|certificate| certificate.len() < data.len()));
    }
}

/// A quote. What was read lies in it.
pub fn tdx_quote(data: &[u8]) {
    match Quote::parse(data) {
        Ok(quote) => {
            assert!(data.len() <= tdx::MAX_QUOTE && quote.padding < data.len());
            assert!(data[data.len() - quote.padding..].iter().all(|byte| *byte == 0));
            assert_eq!(quote.report.td15.is_some(), quote.version == 5 && data[48] != 2);
            let _platform = pcs::Platform::of(&quote);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Collateral for the recorded quote. What verifies has the recorded quote's values.
pub fn tdx_collateral(data: &[u8]) {
    let Ok(collateral) = Collateral::from_json(data) else { return };
    let _verdict = tdx_verdict(&collateral);
}

/// The recorded quote's verdict if it is refused with this collateral.
fn tdx_verdict(collateral: &Collateral) -> Option<Verdict> {
    let Ok(quote) = Quote::parse(TDX_QUOTE) else { panic!("the recorded quote is not read") };
    let measurements = Measurements { mr_td: quote.report.mr_td, rtmr: quote.report.rtmr.map(Some) };
    let policy = tdx::Policy::new(quote.report.report_data, vec![measurements]);
    match tdx::verify(TDX_QUOTE, collateral, &tdx::Root::INTEL, &policy, TDX_NOW) {
        Ok(verified) => {
            assert_eq!(verified.value().report, quote.report);
            None
        }
        Err(verdict) => Some(checked(verdict, tdx::CHECKS.as_slice())),
    }
}

/// Answers of Intel's provisioning certification service: the same bytes as every body, and as the header if they are a text. They
/// may contain both signed documents, but no signature is that of both, and no header is a document: none of it verifies.
pub fn tdx_answer(data: &[u8]) {
    let platform = pcs::Platform { fmspc: [0; 6], authority: pcs::Authority::Platform };
    let header = std::str::from_utf8(data).ok().map(String::from);
    let service = Service { answer: Response { body: data.to_vec(), header } };
    let Ok(collateral) = pcs::collateral(&service, pcs::INTEL, platform) else { return };
    for name in [r#""tcbInfo""#, r#""enclaveIdentity""#, r#""signature""#] {
        assert!(data.windows(name.len()).any(|part| part == name.as_bytes()), "{name} is not in the answer");
    }
    assert!(tdx_verdict(&collateral).is_some(), "one answer verifies as four");
}

struct Service {
    answer: Response,
}

impl Fetch for Service {
    type Error = std::convert::Infallible;

    fn fetch(&self, _: &Request) -> Result<Response, Self::Error> {
        Ok(self.answer.clone())
    }
}

/// A refusal lists every check, and its text contains no terminal control characters.
fn checked(verdict: Verdict, table: &[&str]) -> Verdict {
    assert!(verdict.checks.iter().map(|check| check.name).eq(table.iter().copied()));
    assert!(verdict.to_string().chars().all(|letter| letter == '\n' || !letter.is_control()));
    verdict
}
