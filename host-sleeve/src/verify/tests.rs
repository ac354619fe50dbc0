//! Recorded evidence of each platform, through the command line's arguments.

mod snp;
mod tdx;

use std::path::PathBuf;

use clap::Parser as _;
use cloister_evidence::Outcome;

use super::*;
use crate::cli::{Cli, Verb};

/// Recorded evidence; `crates/evidence/testdata` has its sources.
fn testdata(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/evidence/testdata").join(name);
    path.to_str().unwrap().to_owned()
}

fn run(arguments: &[&str]) -> Result<Verdict> {
    run_under(&PINNED, arguments)
}

fn run_under(vendors: &Vendors<'_>, arguments: &[&str]) -> Result<Verdict> {
    let line = ["host-sleeve", "verify"].iter().chain(arguments);
    let Verb::Verify(args) = Cli::try_parse_from(line).unwrap().verb else { panic!("another command") };
    verify_under(vendors, &args, &Source::of(&args)?, args.at.unwrap())
}

/// Names of the checks that failed.
fn failures(verdict: &Verdict) -> Vec<&'static str> {
    let failed = verdict.checks.iter().filter(|check| matches!(check.outcome, Outcome::Fail(_)));
    failed.map(|check| check.name).collect()
}

/// A file with this content.
fn file(dir: &tempfile::TempDir, name: &str, content: &[u8]) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn digits(bytes: &[u8]) -> String {
    cloister_evidence::hex::text(bytes)
}

/// The names of all fields of a policy's part, which the error about an unknown one lists.
fn fields(part: &str) -> std::collections::BTreeSet<String> {
    let text = format!(r#"{{"version": 1, "{part}": {{"unknown": 0}}}}"#);
    let error = Policy::from_json(text.as_bytes()).unwrap_err().to_string();
    let names = error.split_once("expected one of ").unwrap().1.split('`');
    names.skip(1).step_by(2).map(str::to_owned).collect()
}

const SKIPPED: [&str; 6] = ["--skip", "nonce", "--skip", "measurements", "--skip", "events"];

#[test]
fn a_recorded_document_of_nitro_is_verified_as_of_its_own_time_only() {
    let document = testdata("nitro/n1-production.cose");
    let at = |time: &str| {
        let verdict = run(&[&[document.as_str(), "--at", time, "--max-age", "4h"], &SKIPPED[..]].concat());
        failures(&verdict.unwrap())
    };
    assert!(at("1736179700").is_empty());
    assert_eq!(at("1800000000"), ["validity"]);
}

#[test]
fn what_is_neither_required_nor_skipped_is_reported_at_once() {
    let document = testdata("nitro/n1-production.cose");
    let error = run(&[&document, "--at", "1736179700"]).unwrap_err();
    assert_eq!(error.to_string(), "the evidence would be verified only in part");
    let hint = error.details().hint.as_deref().unwrap();
    assert_eq!(hint, "add --nonce HEX (or --skip nonce), --measurements FILE (or --skip measurements)");
}

#[test]
fn a_requirement_that_does_not_apply_is_refused_instead_of_ignored() {
    let document = testdata("nitro/n1-production.cose");
    let collateral = testdata("tdx/recorded/td10.collateral.json");
    let error = run(&[&document, "--at", "1", "--collateral", &collateral]).unwrap_err().to_string();
    assert_eq!(error, "--collateral does not apply to documents of AWS Nitro and of the platform virtual");
    let report = testdata("snp/recorded/milan-report.bin");
    let error = run(&[&report, "--at", "1", "--skip", "measurements"]).unwrap_err().to_string();
    assert_eq!(error, "--skip does not apply to reports of SEV-SNP");
}

#[test]
fn a_requirement_whose_check_is_skipped_is_refused_instead_of_ignored() {
    let document = testdata("nitro/n1-production.cose");
    let nonce = "00".repeat(16);
    let file = testdata("nitro/PROVENANCE.md");
    for (skipped, given) in [
        ("nonce", &["--nonce", nonce.as_str()][..]),
        ("binding", &["--nonce", &nonce, "--public-key", &file]),
        ("binding", &["--nonce", &nonce, "--user-data", &file]),
        ("measurements", &["--measurements", &file]),
        ("events", &["--event-log", &file]),
    ] {
        let error = run(&[&[&document, "--at", "1", "--skip", skipped], given].concat()).unwrap_err();
        let option = given[given.len() - 2];
        assert_eq!(error.to_string(), format!("{option} cannot be required with --skip {skipped}"));
    }
    // Report data is compared as a whole, so a log cannot be required with it.
    let (report, data) = (testdata("snp/recorded/milan-report.bin"), "00".repeat(64));
    let line = ["host-sleeve", "verify", &report, "--report-data", &data, "--event-log", &file];
    assert!(Cli::try_parse_from(line).is_err());
}

#[test]
fn another_image_another_nonce_and_a_missing_binding_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let pcrs = r#"{"pcr0": "0", "pcr1": "0", "pcr2": "0"}"#.replace('0', &"0a".repeat(48));
    let pcrs = pcrs.replace(&format!("pcr{}", "0a".repeat(48)), "pcr0");
    let text = format!(r#"{{"version": 1, "nitro": {{"command_line": "", "pcrs": {pcrs}}}}}"#);
    let measurements = file(&dir, "measurements.json", text.as_bytes());
    let document = testdata("nitro/n1-production.cose");
    let nonce = "00".repeat(16);
    let arguments = [document.as_str(), "--at", "1736179700", "--max-age", "4h", "--nonce", &nonce];
    let verdict = run(&[&arguments[..], &["--measurements", &measurements]].concat()).unwrap();
    assert_eq!(failures(&verdict), ["nonce", "binding", "measurements", "events"]);
    assert_eq!(verdict.platform, "nitro");
}

#[test]
fn damaged_measurements_of_the_platform_virtual_are_reported_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        r#"{"version": 1, "virtual": {"command_line": "", "pcrs": {"pcr0": "0a", "pcr1": "", "pcr2": ""}}}"#;
    let measurements = file(&dir, "measurements.json", text.as_bytes());
    let document = testdata("nitro/n1-production.cose");
    let error = run(&[&document, "--at", "1", "--measurements", &measurements]).unwrap_err();
    assert!(error.reasons().concat().contains("PCR0 is not a register"), "{error:?}");
}

#[test]
fn the_platform_virtual_needs_a_root_and_a_word() {
    let document = testdata("nitro/n1-production.cose");
    let line = ["host-sleeve", "verify", &document, "--allow-virtual"];
    let refused = Cli::try_parse_from(line).unwrap_err().to_string();
    assert!(refused.contains("--trust-root"), "{refused}");
}

#[test]
fn other_files_and_files_that_are_too_long_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = file(&dir, "text", b"hello");
    let error = run(&[&text, "--at", "1"]).unwrap_err();
    assert_eq!(error.to_string(), format!("{text} contains no evidence"));
    let long = file(&dir, "long", &vec![0x84; (1 << 20) + 1]);
    let error = run(&[&long, "--at", "1"]).unwrap_err();
    assert!(error.to_string().ends_with("has more than 1048576 bytes"));
}
