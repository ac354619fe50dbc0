//! Evidence of an enclave on the platform `virtual`, as a person on the host verifies it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{MANIFEST, Machine, NONCE, guest};
use crate::facts::hex;
use crate::lab::{Release, path_str};
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(in crate::scenarios) const SCENARIO: Scenario =
    Scenario { name: "evidence_of_a_virtual_enclave_is_verified_on_the_host", host: verified, guest };

/// How long the first evidence may take: the sleeve connects within two seconds, and hashes the image first.
const FIRST: Duration = Duration::from_mins(1);

/// The manifest of an image that differs in one byte.
fn other_manifest() -> String {
    MANIFEST.replace("'8081'", "'8082'")
}

/// The files that a verifier on the host has.
pub(super) struct Verifier<'a> {
    lab: &'a Lab,
    root: String,
    nonce: String,
}

fn verified(lab: &mut Lab) -> Outcome {
    let release = Release::default().with_trial("signals");
    let other = lab.image_on(&release, &other_manifest())?;
    let other = measurements(lab, &other, "other.json")?;
    let image = lab.image_on(&release, MANIFEST)?;
    let right = measurements(lab, &image, "right.json")?;
    let machine = Machine::boot_image(lab, &image, "qemu")?;
    let verifier = Verifier::new(lab)?;
    for place in ["first.cose", "after-a-restart.cose"] {
        let evidence = save(&machine, &lab.folder().join(place))?;
        let (code, text) = verifier.verify(&evidence, &right, &["--allow-virtual"])?;
        expect_eq(&code, &Some(0), &text)?;
        expect_in(&text, "VERIFIED: VIRTUAL", "the verdict")?;
        let (code, text) = verifier.verify(&evidence, &right, &[])?;
        expect_eq(&code, &Some(1), &text)?;
        expect_in(&text, "NOT VERIFIED (platform)", "the verdict without --allow-virtual")?;
        let (code, text) = verifier.verify(&evidence, &other, &["--allow-virtual"])?;
        expect_eq(&code, &Some(1), &text)?;
        expect_in(&text, "NOT VERIFIED (measurements)", "the verdict about another image")?;
        expect_in(&text, "PCR2", "the verdict about another image")?;
        machine.expect_answer(machine.web, "/kill-attestor", "disconnected without an answer")?;
    }
    machine.stop()
}

impl<'a> Verifier<'a> {
    /// With the development root of this host.
    pub(super) fn new(lab: &'a Lab) -> Result<Self, Failure> {
        let root = path_str(&lab.folder().join("root.der"))?.to_owned();
        lab.sleeve(&["virtual-root", "--output", &root]).finish()?.expect_code(0)?;
        Ok(Verifier { lab, root, nonce: hex(NONCE) })
    }

    /// The exit code of `verify`, and what it printed.
    pub(super) fn verify(
        &self,
        evidence: &str,
        measurements: &str,
        options: &[&str],
    ) -> Result<(Option<i32>, String), Failure> {
        let mut all = vec!["verify", evidence, "--nonce", &self.nonce, "--measurements", measurements];
        all.extend_from_slice(&["--trust-root", &self.root]);
        all.extend_from_slice(options);
        let done = self.lab.sleeve(&all).finish()?;
        Ok((done.code, done.stdout + &done.stderr))
    }
}

/// Writes the measurements of an image to a file, and returns its path.
pub(super) fn measurements(lab: &Lab, image: &Path, name: &str) -> Result<String, Failure> {
    let path = lab.folder().join(name);
    let measured = lab.sleeve(&["measure", path_str(image)?, "--virtual", "--json"]).finish()?;
    measured.expect_code(0)?;
    fs::write(&path, measured.stdout)?;
    Ok(path_str(&path)?.to_owned())
}

/// Has the service request evidence, and writes the document to a file, whose path it returns.
fn save(machine: &Machine, path: &Path) -> Result<String, Failure> {
    let evidence = evidence(machine)?;
    expect_at(&evidence, "/platform", "virtual")?;
    fs::write(path, part(&evidence, "document")?)?;
    Ok(path_str(path)?.to_owned())
}

/// Has the service request evidence.
pub(super) fn evidence(machine: &Machine) -> Result<Value, Failure> {
    let body = json!({ "nonce": STANDARD.encode(NONCE) });
    Ok(serde_json::from_slice(&connected(machine, "POST /v1/evidence", &body)?)?)
}

/// The body of a successful response. It waits until the sleeve has connected, the first time or after a restart of the
/// attestor.
pub(super) fn connected(machine: &Machine, line: &str, body: &Value) -> Result<Vec<u8>, Failure> {
    let started = Instant::now();
    loop {
        let (status, body) = machine.request(machine.web, line, body)?;
        if status == 200 {
            return Ok(body);
        }
        let why = String::from_utf8_lossy(&body).into_owned();
        expect(started.elapsed() < FIRST && [503, 504].contains(&status), format_args!("{status} {why}"))?;
    }
}

/// A part of evidence in base64.
pub(super) fn part(evidence: &Value, name: &str) -> Result<Vec<u8>, Failure> {
    let text = evidence.get(name).and_then(Value::as_str).unwrap_or_default();
    STANDARD.decode(text).map_err(|error| Failure::failed(error.to_string()))
}
