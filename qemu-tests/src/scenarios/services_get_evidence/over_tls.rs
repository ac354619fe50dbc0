//! Evidence of a running enclave over TLS: anyone may request it, and `host-sleeve verify` does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_wire::terminator;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
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

/// Connections of one client that says nothing: as many as the terminator admits.
const IDLE: usize = terminator::MAX_CONNECTIONS;

/// The client that does that. The others have another address.
const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), 0);

/// How many of its connections stay (docs/attestation.md).
const STAYING: usize = 32;

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
        self.verify_at(&self.url, measurements, more)
    }

    fn verify_at(
        &self,
        url: &str,
        measurements: &str,
        more: &[&str],
    ) -> Result<(Option<i32>, String), Failure> {
        let options = ["verify", url, "--measurements", measurements];
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
    stand_between(lab, port, &verifier)?;
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
pub(super) fn output(program: &str, arguments: &[&str], input: &str) -> Result<String, Failure> {
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

/// A client that speaks no TLS gets an alert, and one that occupies all places it can get hinders no one.
fn strangers(port: u16, verifier: &Verifier<'_>) -> Outcome {
    let mut idle = (0..IDLE).map(|_| connect_from(STRANGER, port)).collect::<io::Result<Vec<_>>>()?;
    // Before the time limit of a handshake, so that what is closed was refused.
    let began = Instant::now();
    while idle.len() > STAYING {
        expect(began.elapsed() < LONGEST, format_args!("{} of {IDLE} connections are open", idle.len()))?;
        idle.retain(|stranger| {
            stranger.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
    }
    expect_eq(&idle.len(), &STAYING, "connections of one client that are open")?;
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

/// Someone who ends TLS with a key of their own, and passes everything on to the enclave: its evidence is of this moment and has the
/// nonce, but binds the enclave's key.
fn stand_between(lab: &Lab, port: u16, verifier: &Verifier<'_>) -> Outcome {
    let own = lab.folder().join("own.pem");
    let (own, between) = (path_str(&own)?, lab.free_port()?);
    let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=enclave -days 1";
    let place = ["-keyout", own, "-out", own];
    output("openssl", &[&request.split(' ').collect::<Vec<_>>()[..], &place].concat(), "")?;
    let listen = format!("OPENSSL-LISTEN:{between},bind=127.0.0.1,fork,reuseaddr,verify=0,cert={own}");
    let onward = format!("OPENSSL:127.0.0.1:{port},verify=0");
    let mut relay = Command::new("socat").args(["-dd", &listen, &onward]).stderr(Stdio::piped()).spawn()?;
    let url = format!("https://127.0.0.1:{between}");
    let options = ["--allow-virtual", "--trust-root", &verifier.root];
    let listens = until_it_listens(&mut relay);
    let verdict = listens.and_then(|()| verifier.verify_at(&url, &verifier.measurements, &options));
    relay.kill()?;
    relay.wait()?;
    let (code, text) = verdict?;
    expect_eq(&code, &Some(1), &text)?;
    expect_in(&text, "NOT VERIFIED (binding)", "the verdict on another key")
}

/// Waits for socat's notice.
fn until_it_listens(relay: &mut Child) -> Outcome {
    let notices = relay.stderr.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
    let listens = notices.map_while(Result::ok).any(|line| line.contains("listening on"));
    expect(listens, "socat does not listen")
}

/// A connection from this address.
fn connect_from(from: SocketAddrV4, port: u16) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &from)?;
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(stream)
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
