//! Verification by this project: everything that evidence alone is checked for, with a policy that accepts it.

use cloister_evidence::nitro::{self, Binding, Events, Expectation, Freshness, Measurements, Nonce, Roots};
use cloister_evidence::snp::{self, Product, Report, Tcb};
use cloister_evidence::tdx::{self, Collateral, Quote};

use crate::{ARK, ASK, COLLATERAL, Check, QUOTE, QUOTE_TIME, REPORT, REPORT_TIME, VCEK};

/// Checks that the document is authentic, and not in debug mode.
const DOCUMENT_ONLY: Expectation<'_> = Expectation {
    allow_virtual: false,
    freshness: Freshness { max_age: 3 * 3600, max_ahead: 3 * 3600 },
    nonce: Nonce::Unchecked,
    binding: Binding::Unchecked,
    measurements: Measurements::Unchecked,
    events: Events::Unchecked,
};

pub(crate) fn document(bytes: &'static [u8], now: u64) -> Check {
    let roots = Roots::aws();
    Box::new(move || nitro::verify(bytes, &roots, now, &DOCUMENT_ONLY).is_ok())
}

pub(crate) fn report() -> Option<Check> {
    let content = Report::parse(REPORT).ok()?;
    let minimum = vec![(Product::Milan, Tcb::default())];
    let policy = snp::Policy::new(content.report_data, vec![content.measurement], minimum);
    Some(Box::new(move || {
        let evidence = snp::Evidence { report: REPORT, chain: &[VCEK, ASK, ARK], crl: None };
        snp::verify(&evidence, &snp::Root::AMD, &policy, REPORT_TIME).is_ok()
    }))
}

pub(crate) fn quote() -> Option<Check> {
    let content = Quote::parse(QUOTE).ok()?.report;
    let measurements = tdx::Measurements { mr_td: content.mr_td, rtmr: content.rtmr.map(Some) };
    let policy = tdx::Policy::new(content.report_data, vec![measurements]);
    let collateral = Collateral::from_json(COLLATERAL).ok()?;
    Some(Box::new(move || tdx::verify(QUOTE, &collateral, &tdx::Root::INTEL, &policy, QUOTE_TIME).is_ok()))
}
