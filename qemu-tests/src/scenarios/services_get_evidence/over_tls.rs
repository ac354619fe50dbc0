//! Evidence of a running enclave over TLS: anyone may request it, and `host-sleeve verify` does.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_wire::terminator;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::without_hardware::{connected, measurements};
use super::{
    LONGEST, MANIFEST, Machine, answer, find_servant, send_from_outside, servant_descriptors, servant_status,
    serve,
};
use crate::lab::{Release, path_str};
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(in crate::scenarios) const SCENARIO: Scenario =
    Scenario { name: "a_running_enclave_is_verified_over_tls", host: verified, guest };

/// The descriptors that the terminator has open: sockets, and those of its reactor. It has no file and no device.
const DESCRIPTORS: &str = "/dev/null, anon_inode:[eventfd], anon_inode:[eventpoll], pipe:[], socket:[]";

/// Maximum memory of the terminator in kB, after some dozen connections.
const MOST_MEMORY: u64 = 4096;

/// Clients that connect and say nothing: half of what the terminator admits.
const IDLE: usize = terminator::MAX_CONNECTIONS / 2;

/// The type of a record with an alert (RFC 8446, section 5.1).
const ALERT: u8 = 21;

/// The manifest, with a port for anyone.
pub(super) fn manifest(command_port: &str) -> String {
    MANIFEST
        .replace("[evidence, random]}}", "[evidence, extend]}, port: 443}")
        .replace("'8081'", command_port)
}

/// Who verifies, and what it expects.
struct Verifier<'a> {
    lab: &'a Lab,
    url: String,
    root: String,
    measurements: String,
}

impl Verifier<'_> {
    fn verify(&self, measurements: &str, more: &[&str]) -> Result<(Option<i32>, String), Failure> {
        let options = ["verify", &self.url, "--measurements", measurements];
        let done = self.lab.sleeve(&[&options, more].concat()).finish()?;
        Ok((done.code, done.stdout + &done.stderr))
    }

    /// Verifies until the enclave is accepted, for a limited time, and returns the verdict.
    fn accepted(&self, within: Duration) -> Result<String, Failure> {
        let started = Instant::now();
        loop {
            let (code, text) =
                self.verify(&self.measurements, &["--allow-virtual", "--trust-root", &self.root])?;
            if code == Some(0) {
                return Ok(text);
            }
            expect(started.elapsed() < within, &text)?;
        }
    }
}

fn verified(lab: &mut Lab) -> Outcome {
    let release = Release::default().with_trial("signals");
    let other = lab.image_on(&release, &manifest("'8082'"))?;
    let other = measurements(lab, &other, "other.json")?;
    let image = lab.image_on(&release, &manifest("'8081'"))?;
    let right = measurements(lab, &image, "right.json")?;
    let port = lab.free_port()?;
    let machine = Machine::publish(lab, &image, "qemu", &[(port, 443)])?;
    let root = path_str(&lab.folder().join("root.der"))?.to_owned();
    lab.sleeve(&["virtual-root", "--output", &root]).finish()?.expect_code(0)?;
    let verifier = Verifier { lab, url: format!("https://127.0.0.1:{port}"), root, measurements: right };
    let text = verifier.accepted(Duration::from_mins(1))?;
    expect_in(&text, "VERIFIED: VIRTUAL", "the verdict")?;
    let trusted = ["--allow-virtual", "--trust-root", &verifier.root];
    for (measurements, options, why) in [
        (&verifier.measurements, &[][..], "NOT VERIFIED (platform)"),
        (&other, &trusted, "NOT VERIFIED (measurements)"),
    ] {
        let (code, text) = verifier.verify(measurements, options)?;
        expect_eq(&code, &Some(1), &text)?;
        expect_in(&text, why, "the verdict")?;
    }
    // What the service records is part of the evidence.
    let event = json!({ "label": "config", "data": STANDARD.encode("data") });
    drop(connected(&machine, "POST /v1/extend", &event)?);
    verifier.accepted(LONGEST)?;
    with_another_client(port)?;
    let key = key_of(port)?;
    servants(&machine, &verifier)?;
    expect_eq(&key_of(port)?, &key, "the key after the attestor was killed")?;
    strangers(port, &verifier)?;
    machine.stop()
}

/// What curl gets, which shares no code with the verifier.
fn with_another_client(port: u16) -> Outcome {
    let get = |resource: &str| {
        let url = format!("https://127.0.0.1:{port}/.well-known/cloister/{resource}");
        output("curl", &["--silent", "--show-error", "--insecure", "--max-time", "20", &url], "")
    };
    expect_eq(&get("health")?.as_str(), &r#"{"status":"serving"}"#, "health")?;
    expect_eq(&get("ready")?.as_str(), &r#"{"status":"ready"}"#, "readiness")?;
    let measured: Value = serde_json::from_str(&get("measurements")?)?;
    expect_at(&measured, "/platform", "virtual")?;
    let events = measured.pointer("/registers/pcr17").and_then(Value::as_str).unwrap_or_default();
    expect(events.len() == 96 && events.contains(|digit| digit != '0'), format_args!("{measured}"))?;
    expect_in(&get("evidence")?, "the query has no nonce", "evidence without a nonce")
}

/// The public key of the certificate, as OpenSSL reads it.
fn key_of(port: u16) -> Result<String, Failure> {
    let shown = output("openssl", &["s_client", "-connect", &format!("127.0.0.1:{port}")], "")?;
    output("openssl", &["x509", "-noout", "-pubkey"], &shown)
}

/// What a program prints, given this input.
fn output(program: &str, arguments: &[&str], input: &str) -> Result<String, Failure> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let done = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&done.stderr);
    expect(done.status.success(), format_args!("{program} failed: {stderr}"))?;
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The terminator holds nothing, and a killed one is replaced; so is a killed attestor, whose key stays.
fn servants(machine: &Machine, verifier: &Verifier<'_>) -> Outcome {
    let status = machine.running.get(machine.web, "/terminator-status")?.body;
    expect_eq(
        &status.as_str(),
        &"Threads 1, CapPrm 0000000000000000, CapAmb 0000000000000000",
        "the terminator",
    )?;
    let descriptors = machine.running.get(machine.web, "/terminator-descriptors")?.body;
    expect_eq(&descriptors.as_str(), &DESCRIPTORS, "its descriptors")?;
    for _ in 0..20 {
        verifier.accepted(LONGEST)?;
    }
    let peak = machine.running.get(machine.web, "/terminator-memory")?.body;
    let kilobytes: Option<u64> = peak.split_whitespace().nth(1).and_then(|text| text.parse().ok());
    expect(kilobytes.is_some_and(|kilobytes| kilobytes <= MOST_MEMORY), format_args!("its memory: {peak}"))?;
    machine.expect_answer(machine.web, "/kill-terminator", "killed")?;
    verifier.accepted(LONGEST)?;
    machine.expect_answer(machine.web, "/kill-attestor", "disconnected without an answer")?;
    // The sleeve connects its module again within two seconds.
    verifier.accepted(LONGEST.saturating_mul(2))?;
    let now = machine.running.inspect()?;
    expect_at(&now, "/status/servants/2/name", terminator::NAME)?;
    expect_at(&now, "/status/servants/2/restarts", 1)
}

/// Clients that speak no TLS get an alert, and idle ones hinder no one.
fn strangers(port: u16, verifier: &Verifier<'_>) -> Outcome {
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(("127.0.0.1", port))?);
    }
    let mut plain = TcpStream::connect(("127.0.0.1", port))?;
    plain.set_read_timeout(Some(LONGEST))?;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let mut answer = Vec::new();
    // The end, or a reset because not everything was read.
    let _ended = plain.read_to_end(&mut answer);
    expect(answer.first() == Some(&ALERT), format_args!("an alert of TLS: {answer:?}"))?;
    verifier.accepted(LONGEST.saturating_mul(2))?;
    drop(idle);
    Ok(())
}

fn guest(args: &[String]) -> ExitCode {
    serve(args, |path| match path {
        "/terminator-status" => servant_status(terminator::NAME, &["Threads", "CapPrm", "CapAmb"]),
        "/terminator-memory" => servant_status(terminator::NAME, &["VmHWM"]),
        "/terminator-descriptors" => servant_descriptors(terminator::NAME),
        "/kill-terminator" => kill_the_terminator(),
        path => answer(path),
    })
}

fn kill_the_terminator() -> io::Result<String> {
    send_from_outside(find_servant(terminator::NAME)?, Signal::KILL.as_raw())?;
    Ok("killed".to_owned())
}
