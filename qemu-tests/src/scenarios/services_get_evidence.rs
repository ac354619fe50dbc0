//! Services get evidence from the attestor, as far as the manifest allows, on a machine with a Nitro Security Module;
//! the attestor has no privileges, and no other process can use the module. On a machine without hardware they get it
//! from the sleeve's module.

pub(super) mod from_reports;
pub(super) mod hostile_module;
pub(super) mod over_tls;
pub(super) mod recorded_events;
pub(super) mod verified_launch;
pub(super) mod without_hardware;

use std::fs;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_binding::eventlog::Log;
use cloister_binding::{Bound, MAGIC};
use cloister_wire::attestor::{MAX_CLIENTS_OF_SERVICE, NAME};
use cloister_wire::ports::LOCAL_ATTESTATION;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::the_gateway_outlives_the_supervisor::expect_no_privileges;
use crate::facts::hex;
use crate::guest::{
    MACHINE, find_servant, send_from_outside, servant_descriptors, servant_status, serve_http,
};
use crate::lab::{Release, Running};
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// What services may request, and what they get.
pub(super) const ALLOWED: Scenario =
    Scenario { name: "services_get_evidence_as_the_manifest_allows", host: allowed, guest };

/// The attestor's confinement, and that of the module.
pub(super) const CONFINED: Scenario =
    Scenario { name: "only_the_attestor_can_use_the_security_module", host: confined, guest };

/// An attestor that is gone.
pub(super) const CRASHES: Scenario =
    Scenario { name: "a_killed_attestor_is_replaced_and_disturbs_nothing_else", host: crashes, guest };

/// Either service is root and may create devices; `web` may use the module.
const MANIFEST: &str = "
version: 1
services:
  web: {command: [PROBE, '8080'], ready: {tcp: 8080}, capabilities: [mknod]}
  plain: {command: [PROBE, '8081'], ready: {tcp: 8081}}
ingress: [{port: 80, service: web, target: 8080}, {port: 81, service: plain, target: 8081}]
attestation: {services: {web: [evidence, random]}}
";

/// A nonce, and what a document contains for it: the key `nonce` and its bytes, in CBOR (RFC 8949).
const NONCE: &[u8] = b"nonce-of-the-scenario";
const NONCE_IN_CBOR: &[u8] = b"\x65nonce\x55nonce-of-the-scenario";

/// The key `user_data` and the length of a binding, in CBOR.
const BINDING_IN_CBOR: &[u8] = b"\x69user_data\x58\x40";

/// The kinds of descriptors that the attestor has open: no file but the memory of the event log, no directory, and no
/// device except the module and `/dev/null`.
const DESCRIPTORS: &str = "/dev/nsm, /dev/null, /memfd:events (deleted), /memfd:tls-key (deleted), anon_inode:[eventfd], \
                           anon_inode:[eventpoll], pipe:[], socket:[]";

/// Maximum memory of the attestor in kB, after as many of the longest requests as one service can have, or with a full log.
const MOST_MEMORY: u64 = 4096;

/// Maximum time from the kill to the next answer, as for the gateway.
const LONGEST: Duration = Duration::from_secs(3);

/// A machine with a security module, and its services.
struct Machine {
    running: Running,
    web: u16,
    plain: u16,
}

impl Machine {
    fn boot(lab: &mut Lab, release: &Release) -> Result<Self, Failure> {
        let image = lab.image_on(release, MANIFEST)?;
        Self::boot_image(lab, &image, "qemu-nitro")
    }

    fn boot_image(lab: &Lab, image: &Path, backend: &str) -> Result<Self, Failure> {
        Self::publish(lab, image, backend, &[])
    }

    /// Boots an image, and publishes the ports of both services and more: pairs of a port of the host and one of the image.
    fn publish(lab: &Lab, image: &Path, backend: &str, more: &[(u16, u16)]) -> Result<Self, Failure> {
        let (web, plain) = (lab.free_port()?, lab.free_port()?);
        let ports = [(web, 80), (plain, 81)].into_iter().chain(more.iter().copied());
        let ports: Vec<_> = ports.map(|(host, inside)| format!("127.0.0.1:{host}:{inside}")).collect();
        let mut options = vec!["--backend", backend];
        options.extend(ports.iter().flat_map(|port| ["--publish", port]));
        let running = lab.run(image, &options)?;
        let ready = running.wait_ready()?;
        expect_at(&ready, "/status/servants/1/name", NAME)?;
        Ok(Self { running, web, plain })
    }

    /// Has the service at `port` request something, and returns the status and the body.
    fn request(&self, port: u16, line: &str, body: &Value) -> Result<(u16, Vec<u8>), Failure> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let path = format!("/{}/{}", hex(line.as_bytes()), hex(body.as_bytes()));
        let answer = self.running.get(port, &path)?.body;
        let (status, body) =
            answer.split_once(' ').ok_or_else(|| Failure::failed(format_args!("the answer {answer:?}")))?;
        let status = status.parse().map_err(|_| Failure::failed(format_args!("the answer {answer:?}")))?;
        Ok((status, unhex(body)))
    }

    /// The text of a refusal, which has this status.
    fn refused(&self, port: u16, line: &str, body: &Value, expected: u16) -> Result<String, Failure> {
        let (status, body) = self.request(port, line, body)?;
        expect_eq(&status, &expected, line)?;
        let error: Value = serde_json::from_slice(&body)?;
        Ok(error.get("error").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// The response of a guest half to a path that is no request.
    fn expect_answer(&self, port: u16, path: &str, expected: &str) -> Outcome {
        expect_eq(&self.running.get(port, path)?.body.as_str(), &expected, path)
    }

    /// The attestor has never had more memory than it may.
    fn expect_memory(&self) -> Outcome {
        let peak = self.running.get(self.web, "/memory")?.body;
        let kilobytes = peak.split_whitespace().nth(1).and_then(|text| text.parse().ok());
        let peak_is_allowed = kilobytes.is_some_and(|kilobytes: u64| kilobytes <= MOST_MEMORY);
        expect(peak_is_allowed, format_args!("its memory at most: {peak}"))
    }

    /// No service is critical, so that a stop is a success.
    fn stop(mut self) -> Outcome {
        self.running.stop()?.expect_code(0)
    }
}

fn allowed(lab: &mut Lab) -> Outcome {
    let machine = Machine::boot(lab, &Release::default())?;
    documents(&machine)?;
    evidence(&machine)?;
    let random = || machine.request(machine.web, "GET /v1/random", &Value::Null);
    let (first, second) = (random()?, random()?);
    expect_eq(&(first.0, first.1.len()), &(200, 256), "the status of random bytes, and their number")?;
    expect(first.1 != second.1, "random bytes are not repeated")?;
    for line in ["GET /v1/random", "POST /v1/evidence"] {
        let why = machine.refused(machine.plain, line, &Value::Null, 403)?;
        expect_in(&why, "list what it needs (evidence, random, extend, lock)", "the refusal")?;
        expect_in(&why, "attestation.services.plain", "the refusal")?;
    }
    let why = machine.refused(machine.web, "POST /v1/lock", &Value::Null, 403)?;
    expect_in(&why, "add `lock` to attestation.services.web", "the refusal")?;
    expect_at(&machine.running.inspect()?, "/status/servants/1/restarts", 0)?;
    machine.stop()
}

/// Documents with fields that the service chooses.
fn documents(machine: &Machine) -> Outcome {
    let line = "POST /v1/attestation";
    let document = machine.request(machine.web, line, &json!({ "nonce": STANDARD.encode(NONCE) }))?;
    expect_eq(&document.0, &200, "the status of a document")?;
    expect(contains(&document.1, NONCE_IN_CBOR), "the document contains the nonce")?;
    let none = machine.request(machine.web, line, &Value::Null)?;
    expect_eq(&none.0, &200, "the status of a document without fields")?;
    expect(!contains(&none.1, NONCE_IN_CBOR), "another document has another nonce")?;
    let long = json!({ "nonce": "AAAA".repeat(171) });
    let why = machine.refused(machine.web, line, &long, 400)?;
    expect_eq(&why.as_str(), &"nonce has 513 bytes, the limit is 512", "the refusal of a long nonce")?;
    let claimed = json!({ "user_data": STANDARD.encode([MAGIC; 4].concat()) });
    let why = machine.refused(machine.web, line, &claimed, 400)?;
    expect_in(&why, "user_data begins with the bytes that are reserved", "the refusal of a binding")
}

/// Evidence: the binding that a verifier computes from the same values is in the document.
fn evidence(machine: &Machine) -> Outcome {
    let line = "POST /v1/evidence";
    let key = [7; 91];
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", STANDARD.encode(key));
    let body =
        json!({ "nonce": STANDARD.encode(NONCE), "public_key": pem, "user_data": STANDARD.encode("data") });
    let (status, evidence) = machine.request(machine.web, line, &body)?;
    expect_eq(&status, &200, "the status of evidence")?;
    let evidence: Value = serde_json::from_slice(&evidence)?;
    expect_at(&evidence, "/platform", "nitro")?;
    let bytes = |field: &str| {
        let text = evidence.get(field).and_then(Value::as_str).unwrap_or_default();
        STANDARD.decode(text).map_err(|error| Failure::failed(format_args!("{field} of evidence: {error}")))
    };
    let log = Log::parse(&bytes("events")?).map_err(|error| Failure::failed(error.to_string()))?;
    expect(log.begins_with_the_boot(), "the event log begins with the boot")?;
    let bound = Bound { nonce: NONCE, public_key: &key, events: &log.head(), user_data: b"data" };
    let report_data = bound.report_data().map_err(|error| Failure::failed(error.to_string()))?;
    let document = bytes("document")?;
    let expected = [BINDING_IN_CBOR, &report_data].concat();
    expect(contains(&document, &expected), "the document contains the binding")?;
    expect(contains(&document, NONCE_IN_CBOR) && contains(&document, &key), "and the nonce and the key")?;
    let why = machine.refused(machine.web, line, &json!({}), 400)?;
    expect_in(&why, "nonce is missing", "the refusal of evidence without a nonce")
}

fn confined(lab: &mut Lab) -> Outcome {
    let machine = Machine::boot(lab, &Release::default().with_trial("signals"))?;
    let web = &machine.running;
    let found = web.command(&["inspect", "web", "--service", NAME, "--json"])?.json()?;
    expect_no_privileges(&found, 61185, "250")?;
    let limits = found.get("cgroup").map(Value::to_string).unwrap_or_default();
    expect(limits.contains(r#"["pids.max","2"]"#), format_args!("its cgroup: {limits}"))?;
    expect(limits.contains(r#"["memory.max","8388608"]"#), format_args!("its cgroup: {limits}"))?;
    let none = "Threads 2, CapPrm 0000000000000000, CapAmb 0000000000000000";
    machine.expect_answer(machine.web, "/status", none)?;
    machine.expect_answer(machine.web, "/descriptors", DESCRIPTORS)?;
    // The module's node is in no other view, and a new one cannot be opened where a service can create it.
    let refused = "/dev/nsm: No such file or directory; /tmp/nsm: Permission denied; /nsm: Permission denied; \
                   /dev/shm/nsm: Permission denied";
    machine.expect_answer(machine.web, "/device", refused)?;
    let uncreated = "/dev/nsm: No such file or directory; /tmp/nsm: not created; /nsm: not created; \
                     /dev/shm/nsm: not created";
    machine.expect_answer(machine.plain, "/device", uncreated)?;
    machine.expect_answer(machine.web, "/longest-requests", "200")?;
    machine.expect_memory()?;
    machine.stop()
}

fn crashes(lab: &mut Lab) -> Outcome {
    let machine = Machine::boot(lab, &Release::default().with_trial("signals"))?;
    let before = machine.running.inspect()?;
    machine.expect_answer(machine.web, "/kill-attestor", "disconnected without an answer")?;
    let killed = Instant::now();
    while machine.request(machine.web, "GET /v1/random", &Value::Null)?.0 != 200 {
        expect(killed.elapsed() < LONGEST, format_args!("no answer for {:?}", killed.elapsed()))?;
    }
    let took = killed.elapsed();
    expect(took < LONGEST, format_args!("the next answer came after {took:?}"))?;
    let after = machine.running.until("a record of the restart", || {
        let now = machine.running.inspect()?;
        let servant = now.pointer("/status/servants/1");
        let restarted = servant.is_some_and(|servant| {
            servant.get("restarts") == Some(&json!(1)) && servant.get("phase") == Some(&json!("ready"))
        });
        Ok(restarted.then_some(now))
    })?;
    for same in [
        "/status/supervisor_restarts",
        "/status/servants/0/pid",
        "/status/services/0/pid",
        "/status/services/1/pid",
    ] {
        let found = after.pointer(same);
        expect(found.is_some(), format_args!("{same} in the status"))?;
        expect_eq(&found, &before.pointer(same), same)?;
    }
    machine.stop()
}

fn guest(args: &[String]) -> ExitCode {
    serve(args, answer)
}

/// Serves the answers to paths, as the service at the port of the first argument.
fn serve(args: &[String], answer: impl Fn(&str) -> io::Result<String>) -> ExitCode {
    let port = args.first().and_then(|port| port.parse().ok()).unwrap_or_default();
    let served = serve_http(port, |path| answer(path).unwrap_or_else(|error| error.to_string()));
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the service does for a path.
fn answer(path: &str) -> io::Result<String> {
    match path {
        "/status" => servant_status(NAME, &["Threads", "CapPrm", "CapAmb"]),
        "/memory" => servant_status(NAME, &["VmHWM"]),
        "/descriptors" => servant_descriptors(NAME),
        "/device" => open_the_module(),
        "/longest-requests" => longest_requests(),
        "/kill-attestor" => kill_the_attestor(),
        path => ask(path),
    }
}

/// Sends the request that is in the path, in hexadecimal digits, to the attestor.
fn ask(path: &str) -> io::Result<String> {
    let mut parts = path.split('/').skip(1).map(|part| String::from_utf8_lossy(&unhex(part)).into_owned());
    let (line, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (status, body) = exchange(&line, &body)?;
    Ok(format!("{status} {}", hex(&body)))
}

fn connect() -> io::Result<UnixStream> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(LOCAL_ATTESTATION)?)
}

/// Sends a request to the attestor, and returns the status and the body of the response.
fn exchange(line: &str, body: &str) -> io::Result<(String, Vec<u8>)> {
    let mut attestor = connect()?;
    write!(attestor, "{line} HTTP/1.1\r\nHost: attestor\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = Vec::new();
    attestor.read_to_end(&mut answer)?;
    let head =
        answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = answer.get(9..12).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
    Ok((status, answer.get(head + 4..).unwrap_or_default().to_vec()))
}

/// As many of the longest requests at the same time as one service can have, a few times; returns their common status.
fn longest_requests() -> io::Result<String> {
    let body =
        json!({ "nonce": STANDARD.encode([1; 64]), "user_data": STANDARD.encode([2; 4096]) }).to_string();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let requests: Vec<_> = (0..MAX_CLIENTS_OF_SERVICE)
            .map(|_| {
                let body = body.clone();
                thread::spawn(move || exchange("POST /v1/evidence", &body))
            })
            .collect();
        for request in requests {
            statuses.push(request.join().map_err(|_| io::Error::other("a thread panicked"))??.0);
        }
    }
    statuses.sort();
    statuses.dedup();
    Ok(statuses.join(" "))
}

/// Kills the attestor while it waits for the rest of a request.
fn kill_the_attestor() -> io::Result<String> {
    let mut attestor = connect()?;
    attestor.write_all(b"GET /v1/random HTTP/1.1\r\n")?;
    // The answer shows that the attestor has taken both connections.
    exchange("GET /v1/random", "")?;
    send_from_outside(find_servant(NAME)?, Signal::KILL.as_raw())?;
    let mut answer = Vec::new();
    match attestor.read_to_end(&mut answer) {
        Ok(0) => Ok("disconnected without an answer".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            Ok("disconnected without an answer".to_owned())
        }
        other => Ok(format!("{other:?}: {}", hex(&answer))),
    }
}

/// Tries to open the security module's node, and new ones with its number wherever a service can create files.
fn open_the_module() -> io::Result<String> {
    let misc = fs::read_to_string(format!("{MACHINE}/misc"))?;
    let line = misc.lines().find(|line| line.ends_with(" nsm")).ok_or(io::ErrorKind::NotFound)?;
    let minor = line.split_whitespace().next().and_then(|text| text.parse().ok());
    // The major number of `misc` (`Documentation/admin-guide/devices.txt`).
    let device = makedev(10, minor.ok_or(io::ErrorKind::InvalidData)?);
    let open = |path: &str| match fs::File::options().read(true).write(true).open(path) {
        Ok(_) => "opened".to_owned(),
        Err(error) => error.to_string().split(" (").next().unwrap_or_default().to_owned(),
    };
    let mut seen = vec![format!("/dev/nsm: {}", open("/dev/nsm"))];
    for path in ["/tmp/nsm", "/nsm", "/dev/shm/nsm"] {
        let created = mknodat(CWD, path, FileType::CharacterDevice, Mode::from(0o666), device);
        let result = created.map_or_else(|_| "not created".to_owned(), |()| open(path));
        seen.push(format!("{path}: {result}"));
    }
    Ok(seen.join("; "))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).filter_map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()).collect()
}
