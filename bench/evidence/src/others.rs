//! Verification by others. What they check differs: nitro_attest neither the order nor the usage of certificates, sev nothing but
//! the four signatures, dcap-qvl neither the names nor the end of a quote (docs/evidence-hardware.md).

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::VerifiedReport;
use nitro_attest::UnparsedAttestationDoc;
use sev::certs::snp::{Chain, Verifiable};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;
use time::OffsetDateTime;

use crate::{ARK, ASK, COLLATERAL, Check, QUOTE, QUOTE_TIME, REPORT, VCEK};

pub(crate) fn document(bytes: &'static [u8], now: u64) -> Option<Check> {
    let now = OffsetDateTime::from_unix_timestamp(i64::try_from(now).ok()?).ok()?;
    Some(Box::new(move || UnparsedAttestationDoc::from(bytes).parse_and_verify(now).is_ok()))
}

/// It takes no time, and compares no root.
pub(crate) fn report() -> Check {
    Box::new(|| {
        let (chain, report) = (Chain::from_der(ARK, ASK, VCEK), AttestationReport::from_bytes(REPORT));
        matches!((chain, report), (Ok(chain), Ok(report)) if (&chain, &report).verify().is_ok())
    })
}

/// A function of dcap-qvl.
type Verify<E> = fn(&[u8], &QuoteCollateralV3, u64) -> Result<VerifiedReport, E>;

pub(crate) fn quote<E: 'static>(verify: Verify<E>) -> Option<Check> {
    let collateral: QuoteCollateralV3 = serde_json::from_slice(COLLATERAL).ok()?;
    Some(Box::new(move || verify(QUOTE, &collateral, QUOTE_TIME).is_ok()))
}
