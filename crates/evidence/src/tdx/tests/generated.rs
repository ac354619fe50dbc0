//! Quotes and collateral signed under the test root, for the states that no recorded quote has.

use alloc::format;

use cloister_samples::key_sha256;
use cloister_samples::tdx::{ATTRIBUTES, Parts, SERVICE_TD, root};

use super::super::{Collateral, TcbStatus};
use super::{Case, accepting};

/// A time at which the generated certificates are valid.
pub(super) use cloister_samples::TIME as GENERATED;

/// A case of the parts.
pub(super) trait Build {
    /// Signs them, with a policy that accepts the quote.
    fn build(&self) -> Case;
}

impl Build for Parts {
    fn build(&self) -> Case {
        let (quote, root) = (self.quote(), root());
        Case {
            policy: accepting(&quote),
            quote,
            collateral: Collateral::from_json(&self.collateral()).unwrap(),
            key_sha256: key_sha256(&root),
            root,
            now: GENERATED,
        }
    }
}

#[test]
fn a_generated_quote_of_each_form_verifies() {
    for body_type in [2, 3] {
        let verified = Parts::new(body_type).build().accept();
        let guest = verified.value();
        assert_eq!((guest.status, guest.evaluation), (TcbStatus::UpToDate, 20));
        assert_eq!(guest.fmspc, [0xc0, 0xc0, 0x6f, 0, 0, 0]);
        assert_eq!(guest.collateral_until, 1_801_353_600);
        let report = &guest.report;
        assert_eq!(
            (report.mr_td, report.mr_config_id, report.mr_owner, report.mr_owner_config),
            ([1; 48], [2; 48], [3; 48], [4; 48])
        );
        assert_eq!(report.rtmr, [[5; 48], [6; 48], [7; 48], [8; 48]]);
        assert_eq!(report.td15.is_some(), body_type == 3);
    }
}

#[test]
fn a_td_under_debug_is_refused_although_its_signature_holds() {
    for bit in 0..8 {
        let mut parts = Parts::new(2);
        parts.body[ATTRIBUTES] |= 1 << bit;
        parts.build().refuse("debug", "the TD is under debug");
    }
}

#[test]
fn attributes_that_weaken_a_td_are_refused() {
    let with = |attributes: u64| {
        let mut parts = Parts::new(2);
        parts.body[ATTRIBUTES..ATTRIBUTES + 8].copy_from_slice(&attributes.to_le_bytes());
        parts.build()
    };
    with(0x3000_0000).refuse("attributes", "MIGRATABLE must be clear");
    with(0).refuse("attributes", "SEPT_VE_DISABLE must be set");
    with(0x1000_0000 | 1 << 40).refuse("signatures", "Reserved bits in TD attributes are set");
    with(0x1000_0000 | 1 << 17).refuse("signatures", "SERVTD_EXT is enabled");
    let mut case = with(0x1000_0000 | 1 << 63);
    case.accept();
    case.policy.attributes_clear = super::super::Attributes::PERFMON;
    case.refuse("attributes", "PERFMON must be clear");
}

#[test]
fn a_td_with_a_service_td_is_refused() {
    let mut parts = Parts::new(3);
    parts.body[SERVICE_TD] = 1;
    parts.build().refuse("signatures", "Invalid MR service TD");
}

#[test]
fn a_quoting_enclave_under_debug_or_of_another_signer_is_refused() {
    let mut parts = Parts::new(2);
    parts.qe_report[48] |= 2;
    parts.build().refuse("signatures", "Debug mode is enabled");
    let mut parts = Parts::new(2);
    parts.qe_report[128] ^= 1;
    parts.build().refuse("signatures", "QE MRSIGNER mismatch");
}

#[test]
fn the_quoting_enclaves_report_data_contains_nothing_but_the_digest() {
    let mut parts = Parts::new(2);
    parts.qe_report[320] ^= 1;
    parts.build().refuse("signatures", "QE report hash mismatch");
    let mut parts = Parts::new(2);
    parts.qe_report[383] = 1;
    parts.build().refuse("qe-report", "the end of its report data is not zero");
}

#[test]
fn every_signature_is_checked() {
    let case = Parts::new(2).build();
    // The quote, the quoting enclave's report, TCB info, QE identity.
    for (offset, text) in
        [(636, "ISV enclave report signature is invalid"), (1154, "Signature is invalid for qe_report")]
    {
        let mut case = case.clone();
        case.quote[offset] ^= 1;
        case.refuse("signatures", text);
    }
    let mut changed = case.clone();
    changed.collateral.parts.tcb_info_signature[5] ^= 1;
    changed.refuse("signatures", "Signature is invalid for tcb_info");
    let mut changed = case;
    changed.collateral.parts.qe_identity_signature[5] ^= 1;
    changed.refuse("signatures", "Signature is invalid for qe_identity");
}

/// The library's status compares with the versions at launch: an older TDX module that runs now does not change it.
#[test]
fn a_td_whose_current_versions_are_out_of_date_is_refused() {
    let mut parts = Parts::new(3);
    let (head, tail) = parts.tcb_info.rsplit_once("{\"svn\":5}").unwrap();
    parts.tcb_info = format!("{head}{{\"svn\":4}}{tail}");
    parts.build().accept();
    parts.body[586] = 4;
    let mut case = parts.build();
    case.refuse("tcb-status", "OutOfDate when the quote was made, accepted: UpToDate");
    case.policy.statuses.push(TcbStatus::OutOfDate);
    let guest = case.accept().into_value();
    assert_eq!((guest.status, guest.current_status), (TcbStatus::UpToDate, Some(TcbStatus::OutOfDate)));
}
