//! `run --verify` and `connect --verify`: an enclave is ready only after its sleeve has verified it, another image is ended, and a tunnel
//! comes up on verified evidence only.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};

use serde_json::Value;

use super::over_tls::manifest;
use super::without_hardware::measurements;
use super::{MANIFEST, guest};
use crate::facts::hex;
use crate::lab::{BOOT_LIMIT, Finished, Running, path_str};
use crate::scenario::{Failure, expect, expect_at, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(in crate::scenarios) const SCENARIO: Scenario =
    Scenario { name: "launches_are_verified_before_they_are_ready", host: verified, guest };

/// The exit code of an enclave that is not the expected one (docs/cli.md).
const NOT_VERIFIED: i32 = 123;

fn verified(lab: &mut Lab) -> Outcome {
    let (image, changed) = images(lab)?;
    let right = measurements(lab, &image, "right.json")?;
    let other = measurements(lab, &changed, "other.json")?;
    accepted(lab, &image, &right, &other)?;
    another_image(lab, &changed, &right)?;
    impossible(lab, &image)
}

/// An image, and the same with one other byte in its program.
fn images(lab: &mut Lab) -> Result<(PathBuf, PathBuf), Failure> {
    let (root, given) = (lab.probe_root()?, lab.manifest(&manifest("'8081'"))?);
    let image = lab.build(&root, &given)?;
    let (root, given) = (lab.probe_root()?, lab.manifest(&manifest("'8081'"))?);
    let program = root.join("probe");
    let mut bytes = fs::read(&program)?;
    // The end of a program is in its section headers, which the kernel does not read.
    let last = bytes.last_mut().ok_or_else(|| Failure::failed("the program is empty"))?;
    *last ^= 1;
    fs::write(&program, bytes)?;
    Ok((image, lab.build(&root, &given)?))
}

/// Its own prediction: it is reported as verified, apart from its state.
fn accepted(lab: &Lab, image: &Path, right: &str, other: &str) -> Outcome {
    let mut running = lab.run(image, &["--backend", "qemu", "--verify"])?;
    running.wait_stderr("is verified and ready after")?;
    let now = running.inspect()?;
    expect_at(&now, "/summary", "ready")?;
    expect_at(&now, "/verified", "yes")?;
    let listed: Value = running.command(&["ps", "--json"])?.json()?;
    expect_at(&listed, "/0/verified", "yes")?;
    tunnels(lab, &running, right, other)?;
    running.stop()?.expect_code(0)
}

/// A tunnel through the sleeve to a port that is not published comes up on verified evidence only.
fn tunnels(lab: &Lab, running: &Running, right: &str, other: &str) -> Outcome {
    let root = path_str(&lab.folder().join("root.der"))?.to_owned();
    running.command(&["virtual-root", "--output", &root])?.expect_code(0)?;
    let trusted = ["--allow-virtual", "--trust-root", &root, "--measurements"];
    let verified = running.command(&[&["verify", "web"], &trusted[..], &[right]].concat())?;
    verified.expect_code(0)?;
    expect_in(&verified.stdout, "VERIFIED: VIRTUAL", "the verdict")?;
    let tunnel = [&["connect", "web", "81", "--verify"], &trusted[..]].concat();
    let refused = running.command(&[&tunnel[..], &[other]].concat())?;
    refused.expect_code(NOT_VERIFIED)?;
    expect_in(&refused.stderr, "web is not the enclave that was expected", "the error")?;
    expect_in(&refused.stderr, "PCR2 is ", "the error")?;
    let mut connecting = lab.sleeve(&[&tunnel[..], &[right]].concat()).into_command();
    let mut child = connecting.stdout(Stdio::piped()).spawn()?;
    let carried = child.stdout.take().map_or(Ok(()), |stdout| request_through(running, stdout));
    child.kill()?;
    child.wait()?;
    carried
}

/// A request of a program that knows nothing of evidence.
fn request_through(running: &Running, stdout: ChildStdout) -> Outcome {
    let mut address = String::new();
    BufReader::new(stdout).read_line(&mut address)?;
    let port = address.trim().rsplit(':').next().and_then(|port| port.parse().ok());
    let port = port.ok_or_else(|| Failure::failed(format_args!("the address {address:?}")))?;
    let path = format!("/{}/", hex(b"GET /v1/random"));
    for _ in 0..3 {
        // The service answers, and may not use the security module itself.
        let answer = running.get(port, &path)?.body;
        expect(answer.starts_with("403 "), &answer)?;
    }
    Ok(())
}

/// One changed byte of the application: the register, both values and what it covers are named, and nothing was ready.
fn another_image(lab: &Lab, changed: &Path, right: &str) -> Outcome {
    let done =
        run(lab, changed, &["--backend", "qemu", "--verify", "--measurements", right, "--name", "refused"])?;
    done.expect_code(NOT_VERIFIED)?;
    for part in ["refused was ended: it was not verified", "measurements: not `", "PCR2 is ", ", expected "] {
        expect_in(&done.stderr, part, "the error")?;
    }
    expect_in(
        &done.stderr,
        "covers ramdisk 2, and changes with the application or its manifest",
        "the error",
    )?;
    // The operating system is the same.
    expect(!done.stderr.contains("PCR1 is "), &done.stderr)?;
    expect(!done.stderr.contains("refused is "), &done.stderr)?;
    let record = lab.sleeve(&["inspect", "refused", "--json"]).finish()?.json()?;
    expect_at(&record, "/verified", "no")?;
    expect_at(&record, "/end/outcome", "not-verified")?;
    expect_at(&record, "/end/code", NOT_VERIFIED)
}

/// What cannot be verified is refused before it is launched, and is shown as such if it is launched without.
fn impossible(lab: &mut Lab, image: &Path) -> Outcome {
    let without = lab.image(MANIFEST)?;
    for (image, backend, why) in [
        (without.as_path(), "qemu", "its manifest has no attestation port"),
        (image, "qemu-nitro", "does not sign its documents"),
    ] {
        let done = run(lab, image, &["--backend", backend, "--verify"])?;
        done.expect_code(125)?;
        expect_in(&done.stderr, why, "the refusal")?;
    }
    let mut running = lab.run(&without, &["--backend", "qemu", "--replace"])?;
    let ready = running.wait_ready()?;
    expect_at(&ready, "/verified", "impossible")?;
    running.stop()?.expect_code(0)
}

fn run(lab: &Lab, image: &Path, options: &[&str]) -> Result<Finished, Failure> {
    let image = path_str(image)?;
    lab.sleeve(&[&["run", image], options].concat()).limit(BOOT_LIMIT).finish()
}
