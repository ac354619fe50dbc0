//! Reports that are authentic but not what a policy requires.

use alloc::vec;
use alloc::vec::Vec;

use super::super::{GuestPolicy, PlatformInfo, Product, Tcb};
use super::{Case, tcb_of};
use crate::verdict::Outcome;

fn genoa() -> Case {
    Case::generated(Product::Genoa, 5)
}

#[test]
fn wrong_report_data_is_refused() {
    let mut case = Case::recorded();
    case.policy.report_data[63] ^= 1;
    case.refuse("report-data", "expected d447b55d");
}

#[test]
fn a_measurement_must_be_in_the_list() {
    let mut case = Case::recorded();
    case.policy.measurements.insert(0, [0; 48]);
    case.accept();
    case.policy.measurements.pop();
    case.refuse("measurement", "7a1e5c266c0108db");
    case.policy.measurements.clear();
    case.refuse("measurement", "is not one of the 0 accepted measurements");
}

#[test]
fn each_component_of_the_tcb_version_must_reach_the_minimum() {
    let least = tcb_of(Product::Genoa);
    let higher = [
        ("boot loader", Tcb { boot_loader: least.boot_loader + 1, ..least }),
        ("TEE", Tcb { tee: least.tee + 1, ..least }),
        ("SNP", Tcb { snp: least.snp + 1, ..least }),
        ("microcode", Tcb { microcode: least.microcode + 1, ..least }),
    ];
    for (name, minimum) in higher {
        let mut case = genoa();
        case.policy.minimum_tcb = vec![(Product::Genoa, minimum)];
        case.refuse("minimum-tcb", &alloc::format!("reported TCB: {name} version"));
    }
    let mut case = Case::generated(Product::Turin, 5);
    case.policy.minimum_tcb = vec![(Product::Turin, Tcb { fmc: 2, ..tcb_of(Product::Turin) })];
    case.refuse("minimum-tcb", "reported TCB: FMC version 1, at least 2 is required");
}

#[test]
fn a_minimum_for_a_component_that_the_product_does_not_have_is_refused() {
    let mut case = genoa();
    case.policy.minimum_tcb = vec![(Product::Genoa, Tcb { fmc: 1, ..tcb_of(Product::Genoa) })];
    case.refuse("minimum-tcb", "the policy requires an FMC version, which Genoa does not have");
}

#[test]
fn each_of_the_four_tcb_versions_must_reach_the_minimum() {
    for (offset, name) in [(0x38, "current"), (0x1e0, "committed"), (0x1f0, "launch")] {
        let mut case = genoa();
        case.resign(offset + 7, &[71]);
        case.refuse(
            "minimum-tcb",
            &alloc::format!("{name} TCB: microcode version 71, at least 72 is required"),
        );
    }
}

#[test]
fn a_product_that_the_policy_does_not_name_is_refused() {
    let mut case = genoa();
    case.policy.minimum_tcb = vec![(Product::Milan, Tcb::default())];
    case.refuse("minimum-tcb", "the policy accepts no processor of Genoa");
}

/// Which of two minimums was meant is not known, and must not depend on their order.
#[test]
fn a_product_that_the_policy_names_twice_is_refused() {
    for microcode in [0, 255] {
        let mut case = genoa();
        let other = Tcb { microcode, ..tcb_of(Product::Genoa) };
        case.policy.minimum_tcb.push((Product::Genoa, other));
        case.refuse("minimum-tcb", "the policy has more than one minimum for Genoa");
    }
}

#[test]
fn a_guest_under_debug_is_refused_whatever_the_policy_says() {
    let mut case = genoa();
    case.policy.guest_policy_set = GuestPolicy::DEBUG;
    case.resign(8, &0xb_0000_u64.to_le_bytes());
    case.refuse("debug", "debugging is enabled");
}

#[test]
fn another_privilege_level_is_refused() {
    let mut case = genoa();
    case.resign(0x30, &[2]);
    case.refuse("vmpl", "privilege level 2, expected 0");
    case.policy.vmpl = 2;
    case.accept();
}

#[test]
fn bits_of_the_guest_policy_are_required_and_forbidden() {
    for (bits, text) in [
        (0x1_0000, "bit 17 must be set"),
        (0x7_0000, "MIGRATE_MA must be clear"),
        (0x0403_0000, "bits 0x4000000 have no known meaning"),
        (0x8000_0000_0003_0000, "bits 0x8000000000000000 have no known meaning"),
    ] {
        let mut case = genoa();
        case.resign(8, &u64::to_le_bytes(bits));
        case.refuse("guest-policy", text);
    }
    let mut case = genoa();
    case.policy.guest_policy_set = GuestPolicy::SINGLE_SOCKET | GuestPolicy::RAPL_DISABLED;
    case.refuse("guest-policy", "SINGLE_SOCKET, RAPL_DIS must be set");
    case.resign(8, &0x0093_0000_u64.to_le_bytes());
    case.accept();
    case.policy.guest_policy_clear |= GuestPolicy::SMT;
    case.refuse("guest-policy", "SMT must be clear");
}

#[test]
fn bits_of_the_platform_are_required_and_forbidden() {
    let mut case = genoa();
    case.policy.platform_set = PlatformInfo::ECC | PlatformInfo::CIPHERTEXT_HIDING;
    case.refuse("platform", "CIPHERTEXT_HIDING_EN must be set");
    case.policy.platform_set = PlatformInfo::ECC;
    case.accept();
    case.policy.platform_clear = PlatformInfo::SMT;
    case.refuse("platform", "SMT_EN must be clear");
}

#[test]
fn host_data_is_compared_if_the_policy_has_it() {
    let mut case = genoa();
    case.policy.host_data = Some([0x33; 32]);
    case.accept();
    case.policy.host_data = Some([0x34; 32]);
    case.refuse("host-data", "found 3333");
}

#[test]
fn keys_of_the_identity_block_are_compared_if_the_policy_has_them() {
    let mut case = genoa();
    case.policy.id_keys = Some(vec![[4; 48]]);
    case.refuse("id-key", "without an identity block");
    case.resign(0xe0, &[5; 48]);
    case.refuse("id-key", "is not an accepted key");
    case.resign(0xe0, &[4; 48]);
    case.accept();
    case.policy.author_keys = Some(vec![[6; 48]]);
    case.resign(0x110, &[6; 48]);
    case.refuse("author-key", "without an author key");
    case.resign(0x48, &[1]);
    case.accept();
    case.resign(0x110, &[7; 48]);
    case.refuse("author-key", "is not an accepted key");
}

#[test]
fn the_guests_security_version_is_compared_if_the_policy_has_it() {
    let mut case = genoa();
    case.resign(0xe0, &[4; 48]);
    case.policy.id_keys = Some(vec![[4; 48]]);
    case.policy.minimum_guest_svn = Some(7);
    case.accept();
    case.policy.minimum_guest_svn = Some(8);
    case.refuse("guest-svn", "7, at least 8 is required");
}

/// A host can launch a guest with an identity block that it has signed with a key of its own.
#[test]
fn a_security_version_counts_only_with_a_key_that_the_policy_names() {
    let mut case = genoa();
    case.policy.minimum_guest_svn = Some(7);
    case.refuse("guest-svn", "the policy names no key of an identity block");
    case.resign(0xe0, &[4; 48]);
    case.refuse("guest-svn", "the policy names no key of an identity block");
    case.policy.author_keys = Some(vec![[6; 48]]);
    case.resign(0x110, &[6; 48]);
    case.resign(0x48, &[1]);
    case.accept();
}

#[test]
fn a_verdict_lists_every_difference_from_the_policy() {
    let mut case = genoa();
    case.policy.report_data = [0; 64];
    case.policy.measurements.clear();
    case.policy.vmpl = 1;
    let verdict = case.verify().unwrap_err();
    let failures = verdict.checks.iter().filter(|check| matches!(check.outcome, Outcome::Fail(_)));
    assert_eq!(failures.map(|check| check.name).collect::<Vec<_>>(), ["vmpl", "measurement", "report-data"]);
}
