//! Reports of SEV-SNP: a recorded one, and one under test roots that has a value for each requirement.

use cloister_evidence::binding::Bound;
use cloister_evidence::eventlog::{Event, Log};
use cloister_evidence::snp::{GuestPolicy, Product, Root};
use cloister_evidence::tdx;
use cloister_samples::{key_sha256, snp as samples};
use serde_json::{Value, json};

use super::*;
use crate::verify::snp::wanted;

/// A time at which the certificates under test roots are valid, 2027-01-15.
const NOW: &str = "1800000000";

/// Digests in the report and in the policy that accepts it.
const MEASUREMENT: [u8; 48] = [2; 48];
const ID_KEY: [u8; 48] = [4; 48];
const AUTHOR_KEY: [u8; 48] = [6; 48];

const HOST_DATA: [u8; 32] = [8; 32];

/// What the report is bound to.
const NONCE: [u8; 16] = [7; 16];
const PUBLIC_KEY: &[u8] = b"key";
const USER_DATA: &[u8] = b"data";

fn snp_arguments(report: &[u8]) -> Vec<String> {
    let report_data = report.get(0x50..0x90).map(digits).unwrap();
    let mut arguments = vec!["--at".into(), "1750000000".into(), "--report-data".into(), report_data];
    for name in ["milan-vcek.der", "milan-ask.der", "milan-ark.der"] {
        arguments.extend(["--certificate".into(), testdata(&format!("snp/recorded/{name}"))]);
    }
    arguments
}

fn snp_policy(measurement: &[u8], boot_loader: u8) -> String {
    format!(
        r#"{{"version": 1, "snp": {{"measurements": ["{}"], "minimum_tcb":
        [{{"product": "Milan", "boot_loader": {boot_loader}, "tee": 0, "snp": 8, "microcode": 115}}]}}}}"#,
        digits(measurement)
    )
}

#[test]
fn a_recorded_report_of_snp_is_verified_and_a_lower_version_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = testdata("snp/recorded/milan-report.bin");
    let report = std::fs::read(&path).unwrap();
    let verdict = |boot_loader| {
        let policy = snp_policy(&report[0x90..0xc0], boot_loader);
        let policy = file(&dir, "policy.json", policy.as_bytes());
        let mut arguments = vec![path.clone(), "--policy".into(), policy];
        arguments.extend(snp_arguments(&report));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&arguments).unwrap()
    };
    assert!(failures(&verdict(3)).is_empty(), "{}", verdict(3));
    assert_eq!(failures(&verdict(4)), ["minimum-tcb"]);
    let error = run(&[&path, "--at", "1"]).unwrap_err();
    let hint = error.details().hint.clone().unwrap();
    assert_eq!(hint, "add --nonce HEX or --report-data HEX, --certificate FILE, --policy FILE with `snp`");
}

fn log() -> Log {
    let mut log = Log::booted();
    log.push(Event::new(17, "test", b"event").unwrap()).unwrap();
    log
}

/// A report of Genoa that is signed by the certificates' test key.
fn signed_report() -> Vec<u8> {
    let events = log().head();
    let bound = Bound { nonce: &NONCE, public_key: PUBLIC_KEY, events: &events, user_data: USER_DATA };
    let mut report = std::fs::read(testdata("snp/recorded/milan-report.bin")).unwrap();
    let mut put = |offset: usize, bytes: &[u8]| report[offset..offset + bytes.len()].copy_from_slice(bytes);
    // Guest SVN, SMT and SINGLE_SOCKET in the policy, VMPL, SMT, ECC and a reserved bit of the platform, author key; the digests; the
    // TCB versions and the chip that the certificate is for (AMD 56860, table 23).
    put(0x04, &[7, 0, 0, 0]);
    put(0x08, &0x0013_0000_u64.to_le_bytes());
    put(0x30, &[2]);
    put(0x40, &0x45_u64.to_le_bytes());
    put(0x48, &[1]);
    put(0x50, &bound.report_data().unwrap());
    put(0x90, &MEASUREMENT);
    put(0xc0, &HOST_DATA);
    put(0xe0, &ID_KEY);
    put(0x110, &AUTHOR_KEY);
    for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
        put(offset, &[7, 0, 0, 0, 0, 0, 14, 72]);
    }
    put(0x1a0, &[0xc1; 64]);
    samples::sign(&mut report);
    report
}

/// The policy with a value for every field, all of which the report has.
fn whole_policy() -> Value {
    json!({"version": 1, "snp": {
        "measurements": [digits(&MEASUREMENT)],
        "minimum_tcb": [{"product": "Genoa", "boot_loader": 7, "tee": 0, "snp": 14, "microcode": 72}],
        "vmpl": 2,
        "minimum_guest_svn": 7,
        "id_keys": [digits(&ID_KEY)],
        "author_keys": [digits(&AUTHOR_KEY)],
        "host_data": digits(&HOST_DATA),
        "guest_policy_set": ["SMT", "SINGLE_SOCKET"],
        "guest_policy_clear": ["CXL_ALLOW"],
        "platform_set": ["ECC_EN"],
        "platform_clear": ["TSME_EN", "TIO_EN"],
        "refuse_reserved": false,
        "require_crl": true,
    }})
}

/// Everything that the signed report is verified with: options and their values.
struct Case {
    dir: tempfile::TempDir,
    options: Vec<(&'static str, String)>,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = vec![("--at", NOW.to_owned()), ("--nonce", digits(&NONCE))];
        for (option, bytes) in [
            ("--public-key", PUBLIC_KEY),
            ("--user-data", USER_DATA),
            ("--event-log", &log().encode()),
            ("--policy", whole_policy().to_string().as_bytes()),
        ] {
            options.push((option, file(&dir, &option[2..], bytes)));
        }
        options.push(("--crl", testdata("snp/synthetic/genoa-empty.crl")));
        for name in ["genoa-vcek.der", "genoa-ask.der", "genoa-ark.der"] {
            options.push(("--certificate", testdata(&format!("snp/synthetic/{name}"))));
        }
        Self { dir, options }
    }

    /// Without the option, or with another value.
    fn with(mut self, option: &str, value: Option<String>) -> Self {
        let position = self.options.iter().position(|(name, _)| *name == option).unwrap();
        match value {
            Some(value) => self.options[position].1 = value,
            None => drop(self.options.remove(position)),
        }
        self
    }

    fn failures(&self) -> Vec<&'static str> {
        let root = Root { product: Product::Genoa, key_sha256: key_sha256(&samples::file("genoa-ark.der")) };
        let report = file(&self.dir, "report", &signed_report());
        let mut arguments = vec![report.as_str()];
        for (option, value) in &self.options {
            arguments.extend([*option, value]);
        }
        failures(&run_under(&Vendors { amd: &[root], intel: tdx::Root::INTEL }, &arguments).unwrap())
    }
}

#[test]
fn each_requirement_of_a_policy_alone_refuses_a_report() {
    assert_eq!(Case::new().failures(), [""; 0]);
    let other = digits(&[9; 48]);
    let minimum = |field: &str, value: Value| {
        let mut minimum = whole_policy()["snp"]["minimum_tcb"][0].clone();
        minimum[field] = value;
        ("minimum_tcb", json!([minimum]), "minimum-tcb")
    };
    let rows = [
        ("measurements", json!([other]), "measurement"),
        minimum("product", json!("Milan")),
        minimum("boot_loader", json!(8)),
        minimum("tee", json!(1)),
        minimum("snp", json!(15)),
        minimum("microcode", json!(73)),
        ("vmpl", json!(0), "vmpl"),
        ("minimum_guest_svn", json!(8), "guest-svn"),
        ("id_keys", json!([other]), "id-key"),
        ("author_keys", json!([other]), "author-key"),
        ("host_data", json!(digits(&[9; 32])), "host-data"),
        ("guest_policy_set", json!(["RAPL_DIS"]), "guest-policy"),
        ("guest_policy_clear", json!(["SMT"]), "guest-policy"),
        ("platform_set", json!(["TSME_EN"]), "platform"),
        ("platform_clear", json!(["ECC_EN"]), "platform"),
        ("refuse_reserved", json!(true), "reserved"),
    ];
    for (field, value, check) in &rows {
        let mut policy = whole_policy();
        policy["snp"][field] = value.clone();
        let case = Case::new();
        std::fs::write(case.dir.path().join("policy"), policy.to_string()).unwrap();
        assert_eq!(case.failures(), [*check], "{field}: {value}");
    }
    // A list is required by the policy, and is an option's.
    let tested = rows.iter().map(|(field, _, _)| *field).chain(["require_crl"]);
    assert_eq!(fields("snp"), tested.map(str::to_owned).collect(), "fields of the policy without a row");
}

#[test]
fn bits_of_a_policy_add_to_what_is_always_refused() {
    let policy = Policy::from_json(whole_policy().to_string().as_bytes()).unwrap();
    let clear = wanted(&policy.snp.unwrap(), [0; 64]).guest_policy_clear;
    assert_eq!(clear, GuestPolicy::MIGRATE_MA | GuestPolicy::CXL);
}

#[test]
fn a_list_of_revoked_certificates_is_checked_and_can_be_required() {
    assert_eq!(Case::new().with("--crl", None).failures(), ["revocation"]);
    let revoked = testdata("snp/synthetic/genoa-revoked-ask.crl");
    assert_eq!(Case::new().with("--crl", Some(revoked)).failures(), ["revocation"]);
}

#[test]
fn each_value_of_the_binding_alone_refuses_a_report() {
    let other = || Some(testdata("snp/synthetic/leaf-test-key.bin"));
    let booted = Case::new();
    let booted_log = file(&booted.dir, "booted", &Log::booted().encode());
    for case in [
        Case::new().with("--nonce", Some(digits(&[8; 16]))),
        Case::new().with("--public-key", None),
        Case::new().with("--public-key", other()),
        Case::new().with("--user-data", None),
        Case::new().with("--user-data", other()),
        Case::new().with("--event-log", None),
        booted.with("--event-log", Some(booted_log)),
    ] {
        assert_eq!(case.failures(), ["report-data"], "{:?}", case.options);
    }
}
