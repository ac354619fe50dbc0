//! Intel TDX: quotes of versions 4 and 5, verified with collateral of Intel's.
//!
//! Invariant: a quote counts only if `dcap-qvl` verified its signatures, certificates, revocation lists and TCB levels under the given
//! root, and the checks that the library leaves out hold as well. The names of all checks are in one table, in the order in which they
//! are made.
//!
//! What the library leaves out, and is checked here: bytes after the quote and in between, types of certification data, names of the
//! signers, roots by name of the part, lists and certificates from the future, the second half of the quoting enclave's report data,
//! and the PCE's identifier. `docs/evidence-hardware.md` gives the whole list.
//!
//! Sources: Intel TDX DCAP Quoting Library API; Intel SGX/TDX Provisioning Certification Service, API version 4.

mod collateral;
mod crypto;
pub mod pcs;
mod policy;
mod quote;
mod status;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuotePolicy};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::bytes::{Text, date, is_zero};
use crate::hex;
use crate::verdict::{Checklist, Verdict, Verified};
use collateral::Decoded;
use crypto::Intel;

pub use collateral::{Collateral, CollateralError, Edition, MAX_COLLATERAL};
pub use policy::{Measurements, Policy};
pub use quote::{Attributes, MAX_QUOTE, Quote, QuoteError, Td15, TdReport};
pub use status::TcbStatus;

/// The names of all checks, in the order in which they are made.
pub const CHECKS: [&str; 19] = [
    "quote",
    "debug",
    "attributes",
    "collateral",
    "names",
    "root",
    "dates",
    "signatures",
    "qe-report",
    "pce",
    "tcb-status",
    "advisories",
    "evaluation",
    "mrtd",
    "rtmr",
    "report-data",
    "config-id",
    "owner",
    "owner-config",
];

/// The root that quotes and collateral are signed under.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// Its certificate, in DER.
    pub certificate: &'a [u8],
    /// SHA-256 of its key with the algorithm (DER of `SubjectPublicKeyInfo`).
    pub key_sha256: [u8; 32],
}

impl Root<'static> {
    /// Intel's production root, from
    /// `https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer`.
    pub const INTEL: Self = Self { certificate: include_bytes!("intel-root.der"), key_sha256: INTEL_KEY };
}

const INTEL_KEY: [u8; 32] = [
    0xa0, 0xaf, 0x03, 0x12, 0x89, 0xf5, 0xd5, 0xd4, 0x13, 0x2f, 0x91, 0x86, 0x06, 0x8a, 0x7f, 0xc1, 0x36,
    0x28, 0x63, 0x3b, 0xa2, 0x35, 0x77, 0x74, 0x72, 0xe2, 0x9b, 0x6b, 0x6c, 0x67, 0xa4, 0x9e,
];

/// What a verified quote states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The TD's report.
    pub report: TdReport,
    /// How the platform compares with what Intel has published.
    pub status: TcbStatus,
    /// The same for the versions when the quote was made, which may differ from those at launch. Since TDX 1.5.
    pub current_status: Option<TcbStatus>,
    /// The status of the quoting enclave by itself.
    pub enclave_status: TcbStatus,
    /// Intel's advisories for the platform.
    pub advisories: Vec<String>,
    /// The platform's family, model, stepping and package (FMSPC).
    pub fmspc: [u8; 6],
    /// The number of Intel's evaluation that the status is from.
    pub evaluation: u32,
    /// The last second in which the collateral is valid.
    pub collateral_until: u64,
}

/// Verifies a quote at the time `now`, in seconds since 1970.
///
/// The error is the verdict with at least one failed check.
pub fn verify(
    quote: &[u8],
    collateral: &Collateral,
    root: &Root<'_>,
    policy: &Policy,
    now: u64,
) -> Result<Verified<Guest>, Verdict> {
    let mut checks = Checklist::new("tdx", &CHECKS);
    let guest = authenticate(&mut checks, quote, collateral, root, policy, now);
    if let Some(guest) = &guest {
        appraise(&mut checks, guest, policy);
    }
    checks.finish(guest)
}

/// Everything that the platform's signatures and Intel's say, after what refuses a TD regardless of them. Stops at the first failure.
fn authenticate(
    checks: &mut Checklist,
    bytes: &[u8],
    collateral: &Collateral,
    root: &Root<'_>,
    policy: &Policy,
    now: u64,
) -> Option<Guest> {
    let quote = checks.check("quote", Quote::parse(bytes), |quote| {
        format!("version {}, {} bytes, {} zeros after it", quote.version, quote.bytes.len(), quote.padding)
            .into()
    })?;
    // The library refuses some of these attributes as well, but together with the signatures.
    checks.check("debug", Policy::check_debug(&quote.report), |()| "disabled".into())?;
    checks.check("attributes", policy.check_attributes(&quote.report), |()| {
        let Attributes(bits) = quote.report.attributes;
        format!("{bits:#x}: {}", Attributes::names(bits)).into()
    })?;
    let decoded = checks.check("collateral", Decoded::read(collateral, &quote), |decoded| {
        format!("TCB info of platform {}, until {}", decoded.tcb_info.fmspc, date(decoded.valid_until()))
            .into()
    })?;
    checks.check("names", decoded.check_names(), |()| "all signers have Intel's names".into())?;
    let anchor = checks.check("root", check_root(&decoded, root), |_| hex::text(&root.key_sha256).into())?;
    checks.check("dates", decoded.check_dates(&anchor, now), |()| "all parts are valid".into())?;
    let claims = checks.check("signatures", claims(&quote, &decoded, collateral, root, now), |_| {
        "quote, quoting enclave, certificates, revocation lists, TCB info and QE identity".into()
    })?;
    let tail =
        if is_zero(quote.qe_report_tail) { Ok(()) } else { Err("the end of its report data is not zero") };
    checks.check("qe-report", tail, |()| "contains the attestation key's digest, and nothing else".into())?;
    let pce = check_pce(&decoded, &claims);
    checks.check("pce", pce, |()| format!("PCE {}", decoded.tcb_info.pce_id).into())?;
    // A revoked platform fails the signatures: the library never returns it.
    let status = TcbStatus::of_library(claims.tcb.status)?;
    let current_status = match &claims.platform.current_tcb_level {
        Some(level) => Some(TcbStatus::of_library(level.tcb_status)?),
        None => None,
    };
    Some(Guest {
        report: quote.report,
        status,
        current_status,
        enclave_status: TcbStatus::of_library(claims.qe.tcb_level.tcb_status)?,
        advisories: advisories(&claims),
        fmspc: claims.platform.pck.fmspc,
        evaluation: claims.tcb.eval_data_number,
        collateral_until: decoded.valid_until(),
    })
}

/// The policy's other requirements. All of them are checked, so that a verdict lists every difference.
fn appraise(checks: &mut Checklist, guest: &Guest, policy: &Policy) {
    let report = &guest.report;
    let status = policy.check_status(guest.status, guest.current_status, guest.enclave_status);
    checks.check("tcb-status", status, |()| guest.status.name().into());
    checks.check("advisories", policy.check_advisories(&guest.advisories), Clone::clone);
    checks.optional(
        "evaluation",
        policy.check_evaluation(guest.evaluation),
        format!("{}", guest.evaluation).into(),
    );
    checks.check("mrtd", policy.check_mr_td(report), |()| hex::text(&report.mr_td).into());
    checks.check("rtmr", policy.check_rtmr(report), Clone::clone);
    checks.check("report-data", policy.check_report_data(report), |()| hex::text(&report.report_data).into());
    checks.optional("config-id", policy.check_config_id(report), hex::text(&report.mr_config_id).into());
    checks.optional("owner", policy.check_owner(report), hex::text(&report.mr_owner).into());
    checks.optional(
        "owner-config",
        policy.check_owner_config(report),
        hex::text(&report.mr_owner_config).into(),
    );
}

/// Returns the root's certificate.
fn check_root(decoded: &Decoded, root: &Root<'_>) -> Result<Certificate, Text> {
    let certificate = Certificate::from_der(root.certificate)
        .map_err(|error| format!("malformed certificate of the root: {error}"))?;
    decoded.check_root(&certificate, &root.key_sha256)?;
    Ok(certificate)
}

/// What the library verified. Its policy is empty: ours is compared afterwards, check by check.
fn claims(
    quote: &Quote<'_>,
    decoded: &Decoded,
    collateral: &Collateral,
    root: &Root<'_>,
    now: u64,
) -> Result<QuoteClaims, Text> {
    let verifier = QuoteVerifier::<Intel>::new_with_config(root.certificate.to_vec());
    let policy = QuotePolicy::claims_only(now);
    let claims = verifier.verify_with_policy(quote.bytes, decoded.for_library(collateral)?, now, &policy);
    let claims = claims.map_err(|error| format!("{error:#}"))?;
    if same_report(&quote.report, &claims) {
        Ok(claims)
    } else {
        Err("internal error: two readings differ".into())
    }
}

/// The library read the same values at the same places.
fn same_report(ours: &TdReport, claims: &QuoteClaims) -> bool {
    let Some(theirs) = claims.report.as_td10() else { return false };
    let rtmr = [theirs.rt_mr0, theirs.rt_mr1, theirs.rt_mr2, theirs.rt_mr3];
    let same = ours.mr_td == theirs.mr_td && ours.rtmr == rtmr && ours.report_data == theirs.report_data;
    let names = ours.mr_config_id == theirs.mr_config_id
        && ours.mr_owner == theirs.mr_owner
        && ours.mr_owner_config == theirs.mr_owner_config;
    let attributes = ours.attributes.0.to_le_bytes() == theirs.td_attributes;
    same && names && attributes && ours.td15.is_some() == claims.report.as_td15().is_some()
}

/// TCB info is for the platform's PCE. The library compares the rest of the platform's identity.
fn check_pce(decoded: &Decoded, claims: &QuoteClaims) -> Result<(), Text> {
    let platform = hex::text(&claims.platform.pck.pce_id);
    if decoded.tcb_info.pce_id.eq_ignore_ascii_case(&platform) {
        return Ok(());
    }
    Err(format!("TCB info is for PCE {}, the platform has {platform}", decoded.tcb_info.pce_id).into())
}

/// The advisories of the platform and the quoting enclave, at launch and at the time of the quote.
fn advisories(claims: &QuoteClaims) -> Vec<String> {
    let current = claims.platform.current_tcb_level.iter().flat_map(|level| &level.advisory_ids);
    let mut all: Vec<String> = claims.tcb.advisory_ids.iter().chain(current).cloned().collect();
    all.sort();
    all.dedup();
    all
}
