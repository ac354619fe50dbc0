//! AMD SEV-SNP: attestation reports of versions 2 to 5, signed by a VCEK or a VLEK of Milan, Genoa or Turin.
//!
//! Invariant: a report counts only if its signature, the three certificates above it and a pinned root key hold; the policy is
//! compared afterwards. The names of all checks are in one table, in the order in which they are made.
//!
//! Raw evidence does not identify anything: an ECDSA signature has a second form that verifies as well.
//!
//! Sources: AMD 56860 (firmware ABI) and 57230 (certificates).

mod bits;
mod certificate;
mod chain;
mod crl;
pub mod kds;
mod policy;
mod product;
mod report;
pub mod table;
#[cfg(test)]
mod tests;

use alloc::format;

use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};

use crate::bytes::{Text, is_zero};
use crate::hex;
use crate::verdict::{Checklist, Outcome, Verdict, Verified};
use chain::Chain;
use report::Parsed;

pub use bits::{GuestPolicy, KeyInfo, PlatformInfo, SigningKey};
pub use chain::Root;
pub use policy::Policy;
pub use product::{Product, RawTcb, Tcb};
pub use report::{FirmwareVersion, Mitigations, Processor, REPORT_LEN, Report, ReportError};

/// The names of all checks, in the order in which they are made.
pub const CHECKS: [&str; 24] = [
    "report",
    "chain",
    "root",
    "chain-signatures",
    "issuers",
    "dates",
    "revocation",
    "product",
    "signing-key",
    "certificate-tcb",
    "chip-id",
    "signature",
    "debug",
    "reserved",
    "guest-policy",
    "platform",
    "vmpl",
    "minimum-tcb",
    "measurement",
    "report-data",
    "host-data",
    "id-key",
    "author-key",
    "guest-svn",
];

/// A report with its certificates.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The report, [`REPORT_LEN`] bytes.
    pub report: &'a [u8],
    /// Three certificates in DER: VCEK or VLEK, then ASK or ASVK, then ARK.
    pub chain: &'a [&'a [u8]],
    /// AMD's list of revoked certificates for the kind of key that signed the report ([`kds::Kind`]), in DER.
    pub crl: Option<&'a [u8]>,
}

/// What a verified report states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The report.
    pub report: Report,
    /// The product that the certificates are of.
    pub product: Product,
    /// The kind of key that signed the report.
    pub key: SigningKey,
}

/// Verifies a report at the time `now`, in seconds since 1970.
///
/// The error is the verdict with at least one failed check.
pub fn verify(
    evidence: &Evidence<'_>,
    roots: &[Root],
    policy: &Policy,
    now: u64,
) -> Result<Verified<Guest>, Verdict> {
    let mut checks = Checklist::new("snp", &CHECKS);
    let guest = authenticate(&mut checks, evidence, roots, policy, now);
    if let Some(guest) = &guest {
        appraise(&mut checks, guest, policy);
    }
    checks.finish(guest)
}

/// Everything up to the report's signature. Stops at the first failure.
fn authenticate(
    checks: &mut Checklist,
    evidence: &Evidence<'_>,
    roots: &[Root],
    policy: &Policy,
    now: u64,
) -> Option<Guest> {
    let parsed = checks.check("report", Parsed::read(evidence.report), |found| {
        format!("version {}, {} bytes", found.report.version, evidence.report.len()).into()
    })?;
    let report = &parsed.report;
    let chain = checks.check("chain", Chain::parse(evidence.chain), |_| "three certificates".into())?;
    let product = checks
        .check("root", chain.product(roots), |product| format!("the key of the ARK of {product}").into())?;
    checks.check("chain-signatures", chain.check_signatures(), |()| {
        "RSASSA-PSS with SHA-384, three times".into()
    })?;
    checks
        .check("issuers", chain.check_issuers(), |()| "each certificate was issued by the next one".into())?;
    checks.check("dates", chain.check_dates(now), |()| "all three certificates are valid".into())?;
    revocation(checks, evidence.crl, &chain, policy, now)?;
    checks.check("product", chain.check_product(product, report), |()| describe_product(product, report))?;
    let key = checks.check("signing-key", chain.check_key(product, report), |key| key.name().into())?;
    checks.check("certificate-tcb", check_tcb(&chain, product, report), |tcb| {
        format!("the certificate is for the reported TCB: {tcb}").into()
    })?;
    chip_id(checks, &chain, product, key, report)?;
    checks.check("signature", check_signature(&chain, &parsed), |()| "ECDSA P-384 with SHA-384".into())?;
    Some(Guest { report: parsed.report, product, key })
}

/// The requirements of the policy. All of them are checked, so that a verdict lists every difference.
fn appraise(checks: &mut Checklist, guest: &Guest, policy: &Policy) {
    let report = &guest.report;
    checks.check("debug", Policy::check_debug(report), |()| "disabled".into());
    checks.check("reserved", policy.check_reserved(report), Clone::clone);
    checks.check("guest-policy", policy.check_guest_policy(report), |()| {
        format!("{:#x}: {}", report.policy.0, GuestPolicy::names(report.policy.0 & !0xffff)).into()
    });
    checks.check("platform", policy.check_platform(report), |()| {
        format!("{:#x}: {}", report.platform.0, PlatformInfo::names(report.platform.0)).into()
    });
    checks.check("vmpl", policy.check_vmpl(report), |()| format!("{}", report.vmpl).into());
    checks.check("minimum-tcb", policy.check_minimum_tcb(report, guest.product), |minimum| {
        format!("reported, current, launch and committed TCB are at least {minimum}").into()
    });
    checks.check("measurement", policy.check_measurement(report), |()| hex::text(&report.measurement).into());
    checks.check("report-data", policy.check_report_data(report), |()| hex::text(&report.report_data).into());
    checks.optional("host-data", policy.check_host_data(report), hex::text(&report.host_data).into());
    checks.optional("id-key", policy.check_id_key(report), hex::text(&report.id_key_digest).into());
    checks.optional(
        "author-key",
        policy.check_author_key(report),
        hex::text(&report.author_key_digest).into(),
    );
    checks.optional("guest-svn", policy.check_guest_svn(report), format!("{}", report.guest_svn).into());
}

fn revocation(
    checks: &mut Checklist,
    crl: Option<&[u8]>,
    chain: &Chain<'_>,
    policy: &Policy,
    now: u64,
) -> Option<()> {
    match crl {
        Some(list) => {
            checks.check("revocation", crl::check(list, chain, now), |text| text.clone().into()).map(|_| ())
        }
        None if policy.require_crl => {
            checks.record(
                "revocation",
                Outcome::Fail("the policy requires a revocation list, but none was given".into()),
            );
            None
        }
        None => {
            checks.record("revocation", Outcome::NotApplicable("no revocation list was given".into()));
            Some(())
        }
    }
}

fn describe_product(product: Product, report: &Report) -> Text {
    let Some(found) = report.processor else {
        return format!("{product}; version {} of reports names no processor", report.version).into();
    };
    let (family, model, stepping) = (found.family, found.model, found.stepping);
    let known =
        Product::of_processor(family, model).map_or(", a processor that this release does not know", |_| "");
    format!("{product}: family {family:#x}, model {model:#x}, stepping {stepping}{known}").into()
}

/// The certified key is derived from the TCB version that the report states.
fn check_tcb(chain: &Chain<'_>, product: Product, report: &Report) -> Result<Tcb, Text> {
    let certified = chain.leaf.tcb(product)?;
    if certified == report.reported_tcb {
        return Ok(certified.read(product));
    }
    let (certified, reported) = (hex::text(&certified.0), hex::text(&report.reported_tcb.0));
    Err(format!("the certificate is for TCB {certified}, but the report states {reported}").into())
}

/// The certificate is for the chip that made the report. A VLEK is not bound to a chip, and a host may mask the identifier in reports.
fn chip_id(
    checks: &mut Checklist,
    chain: &Chain<'_>,
    product: Product,
    key: SigningKey,
    report: &Report,
) -> Option<()> {
    let outcome = match (key, chain.leaf.chip_id()) {
        (SigningKey::Vcek, None) => Outcome::Fail("the certificate of the VCEK names no chip".into()),
        (SigningKey::Vcek, Some(certified)) if certified.len() != product.chip_id_len() => {
            let (found, expected) = (certified.len(), product.chip_id_len());
            Outcome::Fail(
                format!("the certificate names a chip by {found} bytes, {product} has {expected}").into(),
            )
        }
        (SigningKey::Vcek, Some(certified)) if is_zero(&report.chip_id) => {
            let chip = hex::text(certified);
            Outcome::NotApplicable(format!("masked by the host; the certificate is for chip {chip}").into())
        }
        (SigningKey::Vcek, Some(certified)) => match report.chip_id.split_at_checked(certified.len()) {
            Some((chip, rest)) if chip == certified && is_zero(rest) => {
                Outcome::Pass(hex::text(certified).into())
            }
            _ => {
                let (certified, chip) = (hex::text(certified), hex::text(&report.chip_id));
                Outcome::Fail(
                    format!("the certificate is for chip {certified}, the report from {chip}").into(),
                )
            }
        },
        (_, Some(_)) => Outcome::Fail("the certificate of the VLEK names a chip".into()),
        (_, None) => Outcome::NotApplicable("a VLEK is not bound to a chip".into()),
    };
    let failed = matches!(outcome, Outcome::Fail(_));
    checks.record("chip-id", outcome);
    (!failed).then_some(())
}

fn check_signature(chain: &Chain<'_>, parsed: &Parsed<'_>) -> Result<(), Text> {
    let key = chain.leaf.p384_key()?;
    let key =
        VerifyingKey::from_sec1_bytes(key).map_err(|_| "the certificate's key is not a point of P-384")?;
    let signature =
        Signature::from_scalars(parsed.r, parsed.s).map_err(|_| "the signature is out of range")?;
    key.verify(parsed.signed, &signature).map_err(|_| "the signature is invalid".into())
}
