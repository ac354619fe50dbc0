//! Evidence of an enclave on the platform `virtual`, as a person on the host verifies it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{MANIFEST, Machine, NONCE, guest, hex};
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
struct Verifier<'a> {
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
    let root = path_str(&lab.folder().join("root.der"))?.to_owned();
    lab.sleeve(&["virtual-root", "--output", &root]).finish()?.expect_code(0)?;
    let verifier = Verifier { lab, root, nonce: hex(NONCE) };
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

impl Verifier<'_> {
    /// The exit code of `verify`, and what it printed.
    fn verify(
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
fn measurements(lab: &Lab, image: &Path, name: &str) -> Result<String, Failure> {
    let path = lab.folder().join(name);
    let measured = lab.sleeve(&["measure", path_str(image)?, "--virtual", "--json"]).finish()?;
    measured.expect_code(0)?;
    fs::write(&path, measured.stdout)?;
    Ok(path_str(&path)?.to_owned())
}

/// Has the service request evidence, and writes the document to a file, whose path it returns.
fn save(machine: &Machine, path: &Path) -> Result<String, Failure> {
    let started = Instant::now();
    let body = json!({ "nonce": STANDARD.encode(NONCE) });
    let evidence = loop {
        let (status, body) = machine.request(machine.web, "POST /v1/evidence", &body)?;
        if status == 200 {
            break body;
        }
        // Until the sleeve has connected, the first time or after a restart of the attestor.
        let why = String::from_utf8_lossy(&body).into_owned();
        expect(started.elapsed() < FIRST && [503, 504].contains(&status), format_args!("{status} {why}"))?;
    };
    let evidence: Value = serde_json::from_slice(&evidence)?;
    expect_at(&evidence, "/platform", "virtual")?;
    let document = evidence.get("document").and_then(Value::as_str).unwrap_or_default();
    let document = STANDARD.decode(document).map_err(|error| Failure::failed(error.to_string()))?;
    fs::write(path, document)?;
    Ok(path_str(path)?.to_owned())
}
