//! What an enclave on SEV-SNP or TDX presents, under the test roots, and requirements that accept it.

use cloister_evidence::binding::Bound;
use cloister_evidence::binding::certificate::Carried;
use cloister_samples::snp::chain;
use cloister_samples::{key_sha256, snp as reports, tdx as quotes};

use super::signer::{SERIAL, extension, public};
use super::*;
use crate::{snp, tdx};

/// The platforms whose hardware signs report data and nothing else.
pub(super) const PLATFORMS: [&str; 2] = ["snp", "tdx"];

/// The product of the reports.
const PRODUCT: &str = "genoa";

/// A guest, as its report or quote states it.
#[derive(Clone)]
pub(super) struct Guest {
    /// The number of the key that it binds.
    pub(super) key: u8,
    pub(super) nonce: Vec<u8>,
    pub(super) log: Log,
    pub(super) debug: bool,
    /// Every byte of its launch measurement.
    pub(super) measurement: u8,
}

impl Default for Guest {
    /// For the certificate with the first key.
    fn default() -> Self {
        Self { key: 1, nonce: SERIAL.to_vec(), log: Log::booted(), debug: false, measurement: 0x22 }
    }
}

impl Guest {
    /// What the platform signs.
    pub(super) fn evidence(&self, platform: &str) -> Vec<u8> {
        let (nonce, public_key, events) = (&self.nonce, &public(self.key), &self.log.head());
        let report_data = Bound { nonce, public_key, events, user_data: &[] }.report_data().unwrap();
        if platform == "snp" { self.report(&report_data) } else { self.quote(&report_data) }
    }

    fn report(&self, report_data: &[u8]) -> Vec<u8> {
        let mut report = reports::unsigned(5, PRODUCT);
        // Bit 19 of the guest policy allows debugging.
        report[10] |= if self.debug { 8 } else { 0 };
        report[reports::MEASUREMENT..][..48].fill(self.measurement);
        reports::resign(&mut report, reports::REPORT_DATA, report_data);
        report
    }

    fn quote(&self, report_data: &[u8]) -> Vec<u8> {
        let mut parts = quotes::Parts::new(3);
        parts.body[quotes::ATTRIBUTES] |= u8::from(self.debug);
        parts.body[quotes::MR_TD..][..48].fill(self.measurement);
        parts.body[quotes::REPORT_DATA..][..64].copy_from_slice(report_data);
        parts.quote()
    }

    /// The certificate with the first key that carries the evidence.
    pub(super) fn carrier(&self, platform: &str) -> Carrier {
        let carried = Carried { platform: platform.into(), evidence: self.evidence(platform) };
        Carrier { key: 1, serial: SERIAL.to_vec(), extensions: vec![extension(&carried.encode().unwrap())] }
    }

    /// A server with it.
    pub(super) fn on(&self, platform: &str) -> Presented {
        Presented::new(self.carrier(platform))
    }
}

/// Requires the default guest on SEV-SNP, with the TCB version of the certificates.
pub(super) fn of_snp() -> SnpRequirements {
    let root = snp::Root { product: snp::Product::Genoa, key_sha256: key_sha256(&chain(PRODUCT)[2]) };
    let tcb = snp::Tcb { fmc: 0, boot_loader: 7, tee: 0, snp: 14, microcode: 72 };
    SnpRequirements {
        roots: vec![root],
        chains: vec![chain(PRODUCT).into()],
        ..SnpRequirements::of(vec![[0x22; 48]], vec![(snp::Product::Genoa, tcb)])
    }
}

/// Requires the default guest on TDX, with the collateral of these parts.
pub(super) fn of_tdx(parts: &quotes::Parts) -> TdxRequirements {
    let root: &'static [u8] = quotes::root().leak();
    let measurements =
        tdx::Measurements { mr_td: [0x22; 48], rtmr: [5, 6, 7, 8].map(|byte| Some([byte; 48])) };
    let collateral = tdx::Collateral::from_json(&parts.collateral()).unwrap();
    TdxRequirements {
        root: tdx::Root { certificate: root, key_sha256: key_sha256(root) },
        ..TdxRequirements::of(vec![measurements], vec![collateral])
    }
}

/// Requires the default guest on either.
pub(super) fn of_hardware() -> Requirements {
    let tdx = of_tdx(&quotes::Parts::new(3));
    Requirements { snp: Some(of_snp()), tdx: Some(tdx), ..Requirements::of(Vec::new()) }
}
