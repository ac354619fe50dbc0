//! Quotes of TDX, recorded: no test key signs for Intel's root.

use serde_json::{Value, json};

use super::*;
use crate::verify::tdx::wanted;

/// A recorded quote, with the arguments that it is verified with.
struct Case {
    dir: tempfile::TempDir,
    quote: Vec<u8>,
}

impl Case {
    fn new() -> Self {
        let quote = std::fs::read(testdata("tdx/recorded/td10.quote")).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), quote }
    }

    /// Bytes of the TD's report. A quote of version 4: 48 bytes of header, then the report (Intel TDX DCAP Quoting Library API,
    /// A.3.2).
    fn at(&self, offset: usize, length: usize) -> String {
        digits(&self.quote[48 + offset..48 + offset + length])
    }

    /// The policy with a value for every field, which the quote reaches exactly. It has no advisories.
    fn policy(&self) -> Value {
        json!({"version": 1, "tdx": {
            "measurements": [{
                "mrtd": self.at(136, 48),
                "rtmr0": self.at(328, 48),
                "rtmr1": self.at(376, 48),
                "rtmr2": self.at(424, 48),
                "rtmr3": self.at(472, 48),
            }],
            "statuses": ["UpToDate"],
            "refused_advisories": ["INTEL-SA-00615"],
            "minimum_evaluation": 17,
            "attributes_clear": ["PKS", "PERFMON"],
            "mrconfigid": self.at(184, 48),
            "mrowner": self.at(232, 48),
            "mrownerconfig": self.at(280, 48),
        }})
    }

    fn failures(&self, policy: &Value, binding: [&str; 2]) -> Vec<&'static str> {
        let policy = file(&self.dir, "policy.json", policy.to_string().as_bytes());
        let collateral = testdata("tdx/recorded/td10.collateral.json");
        let path = testdata("tdx/recorded/td10.quote");
        let arguments =
            [path.as_str(), "--policy", &policy, "--collateral", &collateral, "--at", "1750750000"];
        failures(&run(&[&arguments[..], &binding].concat()).unwrap())
    }
}

#[test]
fn each_requirement_of_a_policy_alone_refuses_a_quote() {
    let case = Case::new();
    let report_data = case.at(520, 64);
    let failures = |policy: &Value| case.failures(policy, ["--report-data", &report_data]);
    assert_eq!(failures(&case.policy()), [""; 0]);
    let other = "0a".repeat(48);
    let measured = |register: &str| {
        let mut measurements = case.policy()["tdx"]["measurements"].clone();
        measurements[0][register] = json!(other);
        ("measurements", measurements)
    };
    let rows = [
        (measured("mrtd"), &["mrtd", "rtmr"][..]),
        (measured("rtmr0"), &["rtmr"]),
        (measured("rtmr1"), &["rtmr"]),
        (measured("rtmr2"), &["rtmr"]),
        (measured("rtmr3"), &["rtmr"]),
        (("statuses", json!(["SWHardeningNeeded"])), &["tcb-status"]),
        (("minimum_evaluation", json!(18)), &["evaluation"]),
        (("attributes_clear", json!(["SEPT_VE_DISABLE"])), &["attributes"]),
        (("mrconfigid", json!(other)), &["config-id"]),
        (("mrowner", json!(other)), &["owner"]),
        (("mrownerconfig", json!(other)), &["owner-config"]),
    ];
    for ((field, value), checks) in &rows {
        let mut policy = case.policy();
        policy["tdx"][field] = value.clone();
        assert_eq!(failures(&policy), *checks, "{field}: {value}");
    }
    // No recorded quote that verifies has an advisory.
    let tested = rows.iter().map(|((field, _), _)| *field).chain(["refused_advisories"]);
    assert_eq!(fields("tdx"), tested.map(str::to_owned).collect(), "fields of the policy without a row");
}

#[test]
fn what_a_policy_leaves_out_is_not_required() {
    let case = Case::new();
    let mut policy = case.policy();
    policy["tdx"]["measurements"][0].as_object_mut().unwrap().remove("rtmr3").unwrap();
    let optional = policy["tdx"].as_object_mut().unwrap();
    optional.retain(|field, _| field == "measurements");
    assert_eq!(case.failures(&policy, ["--report-data", &case.at(520, 64)]), [""; 0]);
}

#[test]
fn a_policy_passes_on_the_advisories_that_it_refuses() {
    let policy = Policy::from_json(Case::new().policy().to_string().as_bytes()).unwrap();
    assert_eq!(wanted(&policy.tdx.unwrap(), [0; 64]).refused_advisories, ["INTEL-SA-00615"]);
}

#[test]
fn a_quote_that_is_bound_to_another_nonce_is_refused() {
    let case = Case::new();
    assert_eq!(case.failures(&case.policy(), ["--nonce", &"00".repeat(16)]), ["report-data"]);
}
