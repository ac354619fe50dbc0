//! What a relying party requires of a guest, and the checks of a report against it.
//!
//! Invariant: what the policy does not list is refused. An empty list of measurements or products accepts no report; debugging and
//! policy bits without a known meaning are always refused.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::bits::{GuestPolicy, PlatformInfo};
use super::product::{Product, Tcb};
use super::report::Report;
use crate::bytes::{Text, is_zero};
use crate::hex::{self, expect};

/// Requirements on a report whose signature holds.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The report data that is expected: it binds the report to a request.
    pub report_data: [u8; 64],
    /// Accepted launch digests.
    pub measurements: Vec<[u8; 48]>,
    /// Accepted products, each once, with the lowest accepted version of each component.
    pub minimum_tcb: Vec<(Product, Tcb)>,
    /// The privilege level that the report must be of; 0 for a guest without a paravisor.
    pub vmpl: u32,
    /// The host data that is expected.
    pub host_data: Option<[u8; 32]>,
    /// Accepted digests of the key that signed the identity block.
    pub id_keys: Option<Vec<[u8; 48]>>,
    /// Accepted digests of the key that signed the identity key.
    pub author_keys: Option<Vec<[u8; 48]>>,
    /// The lowest accepted security version of the guest. The identity block contains the version, so it is refused without `id_keys`
    /// or `author_keys`: a host can write a block of its own.
    pub minimum_guest_svn: Option<u32>,
    /// Bits of [`GuestPolicy`] that must be set.
    pub guest_policy_set: u64,
    /// Bits of [`GuestPolicy`] that must be clear.
    pub guest_policy_clear: u64,
    /// Bits of [`PlatformInfo`] that must be set.
    pub platform_set: u64,
    /// Bits of [`PlatformInfo`] that must be clear.
    pub platform_clear: u64,
    /// Refuse reports with reserved bytes that are not zero. Default: they are listed in the verdict.
    pub refuse_reserved: bool,
    /// Refuse evidence without a revocation list. Default: a list is checked if it is given.
    pub require_crl: bool,
}

impl Policy {
    /// A policy with the usual requirements: privilege level 0 and no migration agent.
    #[must_use]
    pub fn new(report_data: [u8; 64], measurements: Vec<[u8; 48]>, minimum_tcb: Vec<(Product, Tcb)>) -> Self {
        Self {
            report_data,
            measurements,
            minimum_tcb,
            vmpl: 0,
            host_data: None,
            id_keys: None,
            author_keys: None,
            minimum_guest_svn: None,
            guest_policy_set: 0,
            guest_policy_clear: GuestPolicy::MIGRATE_MA,
            platform_set: 0,
            platform_clear: 0,
            refuse_reserved: false,
            require_crl: false,
        }
    }

    pub(crate) fn check_debug(report: &Report) -> Result<(), Text> {
        if report.policy.has(GuestPolicy::DEBUG) {
            return Err("debugging is enabled: the host can read and change the guest".into());
        }
        Ok(())
    }

    pub(crate) fn check_guest_policy(&self, report: &Report) -> Result<(), Text> {
        let GuestPolicy(bits) = report.policy;
        if !report.policy.has(GuestPolicy::RESERVED_ONE) {
            return Err(format!("policy {bits:#x}: bit 17 must be set").into());
        }
        // The host chooses the policy: a bit without a known meaning may weaken the guest.
        let unknown = bits & !GuestPolicy::KNOWN;
        if unknown != 0 {
            return Err(format!("policy {bits:#x}: bits {unknown:#x} have no known meaning").into());
        }
        let missing = self.guest_policy_set & !bits;
        if missing != 0 {
            return Err(format!("policy {bits:#x}: {} must be set", GuestPolicy::names(missing)).into());
        }
        let excess = self.guest_policy_clear & bits;
        if excess != 0 {
            return Err(format!("policy {bits:#x}: {} must be clear", GuestPolicy::names(excess)).into());
        }
        Ok(())
    }

    pub(crate) fn check_platform(&self, report: &Report) -> Result<(), Text> {
        let PlatformInfo(bits) = report.platform;
        let missing = self.platform_set & !bits;
        if missing != 0 {
            return Err(format!("platform {bits:#x}: {} must be set", PlatformInfo::names(missing)).into());
        }
        let excess = self.platform_clear & bits;
        if excess != 0 {
            return Err(format!("platform {bits:#x}: {} must be clear", PlatformInfo::names(excess)).into());
        }
        Ok(())
    }

    pub(crate) fn check_vmpl(&self, report: &Report) -> Result<(), Text> {
        if report.vmpl != self.vmpl {
            return Err(format!("privilege level {}, expected {}", report.vmpl, self.vmpl).into());
        }
        Ok(())
    }

    /// Each of the four TCB versions is at least the minimum: the one that the key is derived from, the one that runs, the one that
    /// the guest was launched under, and the one that the firmware can be rolled back to.
    pub(crate) fn check_minimum_tcb(&self, report: &Report, product: Product) -> Result<Tcb, Text> {
        let mut minimums = self.minimum_tcb.iter().filter(|(accepted, _)| *accepted == product);
        let (_, minimum) =
            minimums.next().ok_or_else(|| format!("the policy accepts no processor of {product}"))?;
        if minimums.next().is_some() {
            return Err(format!("the policy has more than one minimum for {product}").into());
        }
        // It would be compared with nothing.
        if minimum.fmc != 0 && !product.has_fmc() {
            return Err(format!("the policy requires an FMC version, which {product} does not have").into());
        }
        let versions = [
            ("reported", report.reported_tcb),
            ("current", report.current_tcb),
            ("launch", report.launch_tcb),
            ("committed", report.committed_tcb),
        ];
        for (name, version) in versions {
            if let Some((component, value, least)) = version.below(minimum.write(product), product) {
                return Err(
                    format!("{name} TCB: {component} version {value}, at least {least} is required").into()
                );
            }
        }
        Ok(*minimum)
    }

    pub(crate) fn check_measurement(&self, report: &Report) -> Result<(), Text> {
        if self.measurements.contains(&report.measurement) {
            return Ok(());
        }
        let found = hex::text(&report.measurement);
        Err(format!("{found} is not one of the {} accepted measurements", self.measurements.len()).into())
    }

    pub(crate) fn check_report_data(&self, report: &Report) -> Result<(), Text> {
        expect(&report.report_data, &self.report_data)
    }

    /// `None`: the policy does not say.
    pub(crate) fn check_host_data(&self, report: &Report) -> Option<Result<(), Text>> {
        self.host_data.as_ref().map(|expected| expect(&report.host_data, expected))
    }

    pub(crate) fn check_id_key(&self, report: &Report) -> Option<Result<(), Text>> {
        self.id_keys.as_ref().map(|keys| among(keys, &report.id_key_digest))
    }

    pub(crate) fn check_author_key(&self, report: &Report) -> Option<Result<(), Text>> {
        let keys = self.author_keys.as_ref()?;
        if report.key.author_key() {
            Some(among(keys, &report.author_key_digest))
        } else {
            Some(Err("the guest was launched without an author key".into()))
        }
    }

    pub(crate) fn check_guest_svn(&self, report: &Report) -> Option<Result<(), Text>> {
        let minimum = self.minimum_guest_svn?;
        let found = report.guest_svn;
        Some(if self.id_keys.is_none() && self.author_keys.is_none() {
            Err("the policy names no key of an identity block: the host may have chosen the version".into())
        } else if found >= minimum {
            Ok(())
        } else {
            Err(format!("{found}, at least {minimum} is required").into())
        })
    }

    /// Bytes and bits that this release has no name for: fields of a newer firmware. Returns their description.
    pub(crate) fn check_reserved(&self, report: &Report) -> Result<Text, Text> {
        let mut found: Vec<String> =
            report.reserved.iter().map(|offset| format!("byte {offset:#x}")).collect();
        let platform = report.platform.0 & !PlatformInfo::KNOWN;
        if platform != 0 {
            found.push(format!("platform bits {platform:#x}"));
        }
        let key = report.key.0 & !super::bits::KeyInfo::KNOWN;
        if key != 0 {
            found.push(format!("key information bits {key:#x}"));
        }
        if found.is_empty() {
            return Ok("all reserved bytes are zero".into());
        }
        let text = format!("not zero: {}", found.join(", "));
        if self.refuse_reserved { Err(text.into()) } else { Ok(format!("accepted, {text}").into()) }
    }
}

fn among(keys: &[[u8; 48]], digest: &[u8; 48]) -> Result<(), Text> {
    if is_zero(digest) {
        return Err("the guest was launched without an identity block".into());
    }
    if keys.contains(digest) {
        Ok(())
    } else {
        Err(format!("{} is not an accepted key", hex::text(digest)).into())
    }
}
