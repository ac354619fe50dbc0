//! Quotes that are authentic but not what a policy requires.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use cloister_samples::tdx::{Parts, qe_identity, tcb_info};

use super::super::{Measurements, TcbStatus};
use super::generated::Build as _;
use super::{Case, RECORDED};
use crate::verdict::Outcome;

#[test]
fn wrong_report_data_is_refused() {
    let mut case = Case::recorded("td10", RECORDED);
    case.policy.report_data[0] ^= 1;
    case.refuse("report-data", "expected ");
}

#[test]
fn measurements_are_accepted_as_a_whole() {
    let mut case = Case::recorded("td10", RECORDED);
    let accepted = case.policy.measurements[0].clone();
    for index in 0..4 {
        let mut other = accepted.clone();
        other.rtmr[index].as_mut().unwrap()[0] ^= 1;
        case.policy.measurements = vec![other.clone()];
        case.refuse("rtmr", &alloc::format!("RTMR{index}: expected "));
        other.rtmr[index] = None;
        case.policy.measurements = vec![other];
        case.accept();
    }
    case.policy.measurements = vec![Measurements { mr_td: [0; 48], ..accepted.clone() }, accepted.clone()];
    case.accept();
    // A register of one TD does not stand in for that of another.
    let other = Measurements { mr_td: [0; 48], rtmr: accepted.rtmr };
    case.policy.measurements = vec![other, Measurements { rtmr: [Some([0; 48]); 4], ..accepted }];
    case.refuse("rtmr", "RTMR0: expected 0000");
}

#[test]
fn an_unknown_mrtd_is_refused() {
    let mut case = Case::recorded("td10", RECORDED);
    case.policy.measurements.clear();
    let verdict = case.verify().unwrap_err();
    let failures = verdict.checks.iter().filter(|check| matches!(check.outcome, Outcome::Fail(_)));
    assert_eq!(failures.map(|check| check.name).collect::<Vec<_>>(), ["mrtd", "rtmr"]);
}

#[test]
fn a_verdict_names_the_registers_that_were_compared() {
    let mut case = Case::recorded("td10", RECORDED);
    case.policy.measurements[0].rtmr[3] = None;
    let verified = case.accept();
    let check = verified.verdict().checks.iter().find(|check| check.name == "rtmr").unwrap();
    assert_eq!(
        check.outcome,
        Outcome::Pass("compared: RTMR0, RTMR1, RTMR2; not in the policy: RTMR3".into())
    );
}

#[test]
fn identifiers_are_compared_if_the_policy_has_them() {
    let mut case = Parts::new(2).build();
    case.policy.mr_config_id = Some([2; 48]);
    case.policy.mr_owner = Some([3; 48]);
    case.policy.mr_owner_config = Some([4; 48]);
    case.accept();
    let mut other = case.clone();
    other.policy.mr_config_id = Some([0; 48]);
    other.refuse("config-id", "found 0202");
    let mut other = case.clone();
    other.policy.mr_owner = Some([0; 48]);
    other.refuse("owner", "found 0303");
    case.policy.mr_owner_config = Some([0; 48]);
    case.refuse("owner-config", "found 0404");
}

/// A platform of `status`, with one advisory.
fn platform(status: &str) -> Case {
    let mut parts = Parts::new(2);
    parts.tcb_info = tcb_info(status, "[\"INTEL-SA-00001\"]");
    parts.build()
}

#[test]
fn statuses_other_than_up_to_date_are_accepted_by_name_only() {
    for name in [
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ] {
        let mut case = platform(name);
        case.refuse("tcb-status", &alloc::format!("{name}, accepted: UpToDate"));
        case.policy.statuses.push(TcbStatus::of_name(name).unwrap());
        let verified = case.accept();
        assert_eq!(verified.value().status.name(), name);
        assert_eq!(verified.value().advisories, ["INTEL-SA-00001"]);
    }
    assert_eq!(TcbStatus::of_name("Revoked"), None);
}

#[test]
fn a_status_that_was_not_accepted_is_refused_even_if_it_is_better() {
    let mut case = platform("UpToDate");
    case.policy.statuses = vec![TcbStatus::SwHardeningNeeded];
    case.refuse("tcb-status", "UpToDate, accepted: SWHardeningNeeded");
}

#[test]
fn a_revoked_platform_is_refused_whatever_the_policy_says() {
    platform("Revoked").refuse("signatures", "TCB status is invalid: Revoked");
}

#[test]
fn an_outdated_quoting_enclave_makes_the_platform_outdated() {
    let mut parts = Parts::new(2);
    parts.qe_identity = qe_identity("OutOfDate");
    parts.build().refuse("tcb-status", "OutOfDate, accepted: UpToDate");
}

/// Intel's rules ignore every other status of a quoting enclave.
#[test]
fn a_quoting_enclave_that_needs_another_configuration_is_refused() {
    for status in ["ConfigurationNeeded", "OutOfDateConfigurationNeeded"] {
        let mut parts = Parts::new(2);
        parts.qe_identity = qe_identity(status);
        let mut case = parts.build();
        case.refuse("tcb-status", &alloc::format!("the quoting enclave is {status}, accepted: UpToDate"));
        case.policy.statuses.push(TcbStatus::of_name(status).unwrap());
        assert_eq!(case.accept().value().status, TcbStatus::UpToDate);
    }
}

#[test]
fn a_td_that_was_launched_before_an_update_has_a_status_of_its_own() {
    let mut parts = Parts::new(3);
    // Launched with an older module than the one that runs: of no level, so both levels start lower.
    parts.tcb_info =
        parts.tcb_info.replace("{\"svn\":3},{\"svn\":0},{\"svn\":5}", "{\"svn\":4},{\"svn\":0},{\"svn\":5}");
    let (first, second) = parts.tcb_info.rsplit_once("{\"svn\":4}").unwrap();
    parts.tcb_info = [first, second].join("{\"svn\":3}");
    parts.body[584] = 4;
    let mut case = parts.build();
    case.refuse("tcb-status", "TDRelaunchAdvised, accepted: UpToDate");
    case.policy.statuses.push(TcbStatus::TdRelaunchAdvised);
    assert_eq!(case.accept().value().advisories, ["INTEL-SA-00615"]);
}

#[test]
fn advisories_are_listed_and_can_be_refused() {
    let mut case = platform("UpToDate");
    let verified = case.accept();
    let check = verified.verdict().checks.iter().find(|check| check.name == "advisories").unwrap();
    assert_eq!(check.outcome, Outcome::Pass("INTEL-SA-00001".into()));
    case.policy.refused_advisories = vec![String::from("intel-sa-00001")];
    case.refuse("advisories", "INTEL-SA-00001 is refused by the policy");
}

#[test]
fn old_evaluations_are_refused_if_the_policy_says_so() {
    let mut case = Parts::new(2).build();
    case.policy.minimum_evaluation = Some(20);
    case.accept();
    // The lower number of TCB info, 20, and QE identity, 21, counts.
    case.policy.minimum_evaluation = Some(21);
    case.refuse("evaluation", "20, at least 21 is required");
}
