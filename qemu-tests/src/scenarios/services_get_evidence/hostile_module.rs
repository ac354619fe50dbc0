//! A host that lies on port 17004: it stands between the enclave and its sleeve, and changes what the development security module
//! answers. Nothing forged is verified, nothing crashes, and evidence is there again once the host is honest.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_wire::frame::Decoder;
use cloister_wire::module::{RESPONSE_LIMIT, response};
use cloister_wire::ports;
use serde_json::{Value, json};

use super::over_tls::{manifest, output};
use super::without_hardware::{Verifier, connected, evidence, measurements, part};
use super::{Machine, NONCE, guest};
use crate::lab::{Release, path_str};
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(in crate::scenarios) const SCENARIO: Scenario =
    Scenario { name: "evidence_of_a_lying_security_module_is_refused_or_not_verified", host: lied_to, guest };

/// Where the sleeve reaches the enclave, in the enclave's directory.
const SOCKET: &str = "run/web/vsock.sock";

/// How a response with a document begins: a map with one key, in CBOR (RFC 8949).
const DOCUMENT: &[u8] = b"\xa1\x6bAttestation";

/// Connections that a stranger makes to the port, and what it says there in place of a hello.
const STRANGERS: usize = 16;
const GARBAGE: &[u8] = b"\0\0\0\x04\xff\xff\xff\xff";

/// How long a service may wait for a response if the module does not answer: docs/attestation.md states 10 s.
const LONGEST_ANSWER: Duration = Duration::from_secs(15);

/// What the host does with the module's next responses.
#[derive(Clone, Copy, Debug)]
enum Lie {
    None,
    /// The connection is closed.
    Closed,
    /// Bytes that are not CBOR.
    Malformed,
    /// A frame that is said to have four gigabytes.
    TooLong,
    /// Each response twice.
    Twice,
    /// The response to another kind of request.
    Other,
    /// The signature of a document has one other bit.
    Flipped,
    /// An earlier document in place of each.
    Earlier,
    /// No response.
    Silence,
}

/// The host between both.
struct Between {
    lie: Lie,
    /// The last document that passed.
    document: Vec<u8>,
}

type Shared = Arc<Mutex<Between>>;

fn lied_to(lab: &mut Lab) -> Outcome {
    let image = lab.image_on(&Release::default().with_trial("signals"), &manifest("'8081'"))?;
    let right = measurements(lab, &image, "right.json")?;
    let port = lab.free_port()?;
    let machine = Machine::publish(lab, &image, "qemu", &[(port, 443)])?;
    let host = stand_between(&lab.folder().join(SOCKET))?;
    // The sleeve connects again, through the host between them.
    machine.expect_answer(machine.web, "/kill-attestor", "disconnected without an answer")?;
    let answered = |status: u16, part: &str, lie| refused(&machine, &host, lie, status, part);
    answered(502, "cannot access the security module", Lie::Closed)?;
    answered(502, "malformed response of the security module", Lie::Malformed)?;
    answered(502, "cannot access the security module", Lie::TooLong)?;
    answered(502, "cannot access the security module", Lie::Twice)?;
    answered(502, "malformed response of the security module", Lie::Other)?;
    let verifier = Verifier::new(lab)?;
    for (lie, verdict) in [(Lie::Flipped, "NOT VERIFIED (signature)"), (Lie::Earlier, "NOT VERIFIED (nonce)")]
    {
        let (code, text) = served(lab, &machine, &host, &verifier, &right, lie)?;
        expect_eq(&code, &Some(1), &text)?;
        expect_in(&text, verdict, "the verdict")?;
    }
    strangers(&lab.folder().join(SOCKET))?;
    let (code, text) = served(lab, &machine, &host, &verifier, &right, Lie::None)?;
    expect_eq(&code, &Some(0), &text)?;
    silence(&machine, &host, port)?;
    // The attestor was restarted once, by the test.
    expect_at(&machine.running.inspect()?, "/status/servants/1/restarts", 1)?;
    machine.expect_memory()?;
    machine.stop()
}

/// The service's request is refused with this status and reason, and the next one is answered once the host is honest.
fn refused(machine: &Machine, host: &Shared, lie: Lie, status: u16, reason: &str) -> Outcome {
    honest_answer(machine, host)?;
    lock(host).lie = lie;
    let body = json!({ "nonce": STANDARD.encode(NONCE) });
    let why = machine.refused(machine.web, "POST /v1/evidence", &body, status)?;
    expect_in(&why, reason, &format!("the reason ({lie:?})"))
}

/// The verdict on the evidence that the service gets from such a host.
fn served(
    lab: &Lab,
    machine: &Machine,
    host: &Shared,
    verifier: &Verifier<'_>,
    measurements: &str,
    lie: Lie,
) -> Result<(Option<i32>, String), Failure> {
    honest_answer(machine, host)?;
    lock(host).lie = lie;
    let place = lab.folder().join("lie.cose");
    fs::write(&place, part(&evidence(machine)?, "document")?)?;
    verifier.verify(path_str(&place)?, measurements, &["--allow-virtual"])
}

/// Evidence with another nonce, from an honest host.
fn honest_answer(machine: &Machine, host: &Shared) -> Outcome {
    lock(host).lie = Lie::None;
    let body = json!({ "nonce": STANDARD.encode("a nonce of another request") });
    drop(connected(machine, "POST /v1/evidence", &body)?);
    Ok(())
}

/// A module that does not answer delays evidence only, for a limited time; the attestation server at `port` still answers.
fn silence(machine: &Machine, host: &Shared, port: u16) -> Outcome {
    lock(host).lie = Lie::Silence;
    let (body, began) = (json!({ "nonce": STANDARD.encode(NONCE) }), Instant::now());
    let why = machine.refused(machine.web, "POST /v1/evidence", &body, 504)?;
    expect_in(&why, "the security module", "the reason")?;
    let took = began.elapsed();
    expect(took < LONGEST_ANSWER, format_args!("the refusal came after {took:?}"))?;
    let why = machine.refused(machine.plain, "GET /v1/random", &Value::Null, 403)?;
    expect_in(&why, "attestation.services.plain", "the answer to another service meanwhile")?;
    let url = format!("https://127.0.0.1:{port}/.well-known/cloister/health");
    let health = output("curl", &["--silent", "--show-error", "--insecure", "--max-time", "20", &url], "")?;
    expect_eq(&health.as_str(), &r#"{"status":"serving"}"#, "health")?;
    honest_answer(machine, host)
}

/// Strangers on the port, who speak another protocol.
fn strangers(socket: &Path) -> Outcome {
    for _ in 0..STRANGERS {
        let mut stranger = UnixStream::connect(socket.with_extension("honest"))?;
        stranger.set_read_timeout(Some(LONGEST_ANSWER))?;
        stranger.write_all(connect_line().as_bytes())?;
        // The device drops bytes that arrive before its reply, and does not survive a requester that leaves before it.
        line(&mut stranger)?;
        stranger.write_all(GARBAGE)?;
        let closed = match stranger.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        };
        expect(closed, "the enclave closes a stranger's connection")?;
    }
    Ok(())
}

fn connect_line() -> String {
    format!("CONNECT {}\n", ports::MODULE)
}

// ---- the host between both ----

/// Takes the place of the device's socket.
fn stand_between(socket: &Path) -> Result<Shared, Failure> {
    let honest = socket.with_extension("honest");
    fs::rename(socket, &honest)?;
    let listener = UnixListener::bind(socket)?;
    let shared = Arc::new(Mutex::new(Between { lie: Lie::None, document: Vec::new() }));
    let host = Arc::downgrade(&shared);
    thread::spawn(move || {
        for sleeve in listener.incoming() {
            // It ends with the first connection after the scenario, or with the program.
            let (Ok(sleeve), Some(host)) = (sleeve, host.upgrade()) else { return };
            let honest = honest.clone();
            thread::spawn(move || carry(sleeve, &honest, &host));
        }
    });
    Ok(shared)
}

/// One connection of the sleeve.
fn carry(mut sleeve: UnixStream, honest: &PathBuf, host: &Shared) -> io::Result<()> {
    let mut enclave = UnixStream::connect(honest)?;
    let line = line(&mut sleeve)?;
    enclave.write_all(&line)?;
    let (mut from, mut to) = (enclave.try_clone()?, sleeve.try_clone()?);
    thread::spawn(move || {
        drop(io::copy(&mut from, &mut to));
        to.shutdown(Shutdown::Write)
    });
    if line == connect_line().as_bytes() {
        lie(&mut sleeve, &mut enclave, host)?;
        enclave.shutdown(Shutdown::Both)?;
        return sleeve.shutdown(Shutdown::Both);
    }
    drop(io::copy(&mut sleeve, &mut enclave));
    enclave.shutdown(Shutdown::Write)
}

/// What is sent up to a newline, with it.
fn line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend_from_slice(&byte);
    }
    Ok(line)
}

/// Carries the sleeve's hello, and what the host makes of each of its responses.
fn lie(sleeve: &mut UnixStream, enclave: &mut UnixStream, host: &Shared) -> io::Result<()> {
    let mut decoder = Decoder::new(RESPONSE_LIMIT);
    let (mut piece, mut greeted) = ([0; 4096], false);
    loop {
        let count = sleeve.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        decoder.push(piece.get(..count).unwrap_or_default());
        while let Some(body) = decoder.next_frame().map_err(io::Error::other)? {
            let made = if greeted { made(&mut lock(host), body)? } else { Some(frame(body)?) };
            greeted = true;
            let Some(made) = made else { return Ok(()) };
            enclave.write_all(&made)?;
        }
    }
}

/// What the enclave gets in place of a response; `None` closes the connection.
fn made(host: &mut Between, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let is_document = body.starts_with(DOCUMENT);
    Ok(Some(match host.lie {
        Lie::Closed => return Ok(None),
        Lie::Malformed => frame(b"\xff\xff")?,
        Lie::TooLong => vec![0xff; 64],
        Lie::Twice => frame(body)?.repeat(2),
        Lie::Other => frame(b"\x67LockPCR")?,
        Lie::Silence => Vec::new(),
        Lie::Flipped if is_document => {
            let (last, before) = body.split_last().ok_or(io::ErrorKind::UnexpectedEof)?;
            frame(&[before, &[last ^ 1]].concat())?
        }
        Lie::Earlier if is_document => frame(&host.document)?,
        Lie::None | Lie::Flipped | Lie::Earlier => {
            if is_document {
                host.document = body.to_vec();
            }
            frame(body)?
        }
    }))
}

fn frame(body: &[u8]) -> io::Result<Vec<u8>> {
    response(body).map_err(io::Error::other)
}

fn lock(host: &Shared) -> MutexGuard<'_, Between> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
}
