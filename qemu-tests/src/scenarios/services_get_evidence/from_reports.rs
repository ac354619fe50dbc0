//! Evidence on machines whose hardware makes reports: the kernel is the one for tests, and a process that runs before the
//! supervisor emulates the hardware (docs/kernel.md). Services get it from the attestor, and anyone over TLS.

use std::fs;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_binding::Bound;
use cloister_binding::eventlog::Log;
use cloister_wire::attestor::NAME;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{LONGEST, MANIFEST, Machine, NONCE, answer, exchange, expect_no_privileges, serve};
use crate::facts::print_fact;
use crate::guest::POLL_INTERVAL;
use crate::lab::Release;
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::tsm::{Blobs, Device};
use crate::{Lab, Outcome, Scenario};

/// With AMD's driver.
pub(in crate::scenarios) const SNP: Scenario =
    Scenario { name: "services_get_reports_of_sev_snp", host: snp, guest };

/// With Intel's driver.
pub(in crate::scenarios) const TDX: Scenario =
    Scenario { name: "services_get_quotes_of_tdx", host: tdx, guest };

/// The argument with which the guest half emulates the hardware.
const HARDWARE: &str = "hardware";

/// The supervisor of the release, which the guest half executes.
const SUPERVISOR: &str = "/sbin/supervisor-shipped";

/// The address at which the hardware takes its next mode, and reports how many requests it has read.
const CONTROL: &str = "trial/hardware";

/// The hardware answers requests.
const ANSWERS: u8 = b'a';
/// It answers none until the next mode.
const SILENT: u8 = b's';
/// Only the number of requests is returned.
const COUNT: u8 = b'?';
/// The attestor is killed, or the supervisor.
const KILL_ATTESTOR: u8 = b'k';
const KILL_SUPERVISOR: u8 = b'u';

/// The attestor's time limit for the hardware, and what more an emulated machine may need.
const UNANSWERED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(16));

/// Bytes of a report of SEV-SNP, and the place of the report data in it (SEV-SNP firmware ABI 1.58, table 23).
const REPORT: (usize, usize) = (1184, 0x50);

/// The same of a quote: the header of 48 bytes, and the place in the body of TDX 1.0 (Intel TDX DCAP Quoting Library API, A.3). A
/// genuine one is longer.
const QUOTE: (usize, usize) = (700, 48 + 520);

/// What differs between the drivers.
struct Driver {
    argument: &'static str,
    platform: &'static str,
    /// Why `host-sleeve verify` does not verify what the test made up.
    why: &'static str,
}

// ---- the host half ----

fn snp(lab: &mut Lab) -> Outcome {
    let argument = "tsm_test.provider=sev_guest";
    served(lab, &Driver { argument, platform: "snp", why: "the certificate table has no last entry" })
}

fn tdx(lab: &mut Lab) -> Outcome {
    let argument = "tsm_test.provider=tdx_guest";
    served(lab, &Driver { argument, platform: "tdx", why: "--collateral FILE" })
}

fn served(lab: &mut Lab, driver: &Driver) -> Outcome {
    let release = Release::default()
        .with_guest_before_supervisor(SNP.name, SUPERVISOR)
        .with_cmdline(driver.argument)
        .with_test_kernel();
    let manifest = MANIFEST.replace("[evidence, random]}}", "[evidence, random, extend]}, port: 443}");
    let image = lab.image_on(&release, &manifest)?;
    let port = lab.free_port()?;
    let machine = Machine::publish(lab, &image, "qemu", &[(port, 443)])?;
    let web = &machine.running;
    let found = web.command(&["inspect", "web", "--service", NAME, "--json"])?.json()?;
    expect_no_privileges(&found, 61185, "250")?;
    machine.expect_answer(machine.web, "/elsewhere", "no device, configfs absent or empty")?;
    evidence(&machine, driver, 1)?;
    recorded(&machine, driver)?;
    evidence(&machine, driver, 2)?;
    machine.expect_answer(machine.web, "/silent", "eventlog 200 at once, evidence 504 in time")?;
    evidence(&machine, driver, 2)?;
    over_tls(lab, &machine, driver, port)?;
    let now = machine.running.inspect()?;
    expect_at(&now, "/status/servants/1/restarts", 0)?;
    expect_at(&now, "/status/platform", driver.platform)?;
    crashes(&machine, driver)?;
    machine.stop()
}

/// Successors of the attestor and of the supervisor use the same entry, also after a request that nobody ended.
fn crashes(machine: &Machine, driver: &Driver) -> Outcome {
    let killed = "the request was disconnected without an answer";
    machine.expect_answer(machine.web, "/kill-attestor", killed)?;
    until_restarted(machine, "/status/servants/1/restarts")?;
    evidence(machine, driver, 2)?;
    machine.expect_answer(machine.web, "/kill-supervisor", "killed")?;
    until_restarted(machine, "/status/supervisor_restarts")?;
    evidence(machine, driver, 2)?;
    // It gets the entry from the second supervisor, which found it.
    machine.expect_answer(machine.web, "/kill-attestor", killed)?;
    machine.running.until("a second restart of the attestor", || {
        let now = machine.running.inspect()?;
        Ok((now.pointer("/status/servants/1/restarts") == Some(&json!(2))).then_some(()))
    })?;
    evidence(machine, driver, 2)
}

fn until_restarted(machine: &Machine, counter: &str) -> Outcome {
    machine.running.until("a restart", || {
        // The host cannot ask a supervisor that has just been killed.
        let now = machine.running.inspect().unwrap_or_default();
        let ready = now.pointer("/status/servants/1/phase") == Some(&json!("ready"));
        Ok((ready && now.pointer(counter) == Some(&json!(1))).then_some(()))
    })
}

/// Evidence with a log of so many events, for which the hardware reads one request.
fn evidence(machine: &Machine, driver: &Driver, events: usize) -> Outcome {
    let before = count(machine)?;
    let key = [7; 91];
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", STANDARD.encode(key));
    let body =
        json!({ "nonce": STANDARD.encode(NONCE), "public_key": pem, "user_data": STANDARD.encode("data") });
    let (status, evidence) = machine.request(machine.web, "POST /v1/evidence", &body)?;
    expect_eq(&status, &200, &String::from_utf8_lossy(&evidence))?;
    let evidence: Value = serde_json::from_slice(&evidence)?;
    expect_at(&evidence, "/platform", driver.platform)?;
    let bytes = |field: &str| {
        let text = evidence.get(field).and_then(Value::as_str).unwrap_or_default();
        STANDARD.decode(text).map_err(|error| Failure::failed(format_args!("{field} of evidence: {error}")))
    };
    let log = Log::parse(&bytes("events")?).map_err(|error| Failure::failed(error.to_string()))?;
    expect(log.begins_with_the_boot(), "the event log begins with the boot")?;
    expect_eq(&log.events().len(), &events, "the number of events")?;
    let bound = Bound { nonce: NONCE, public_key: &key, events: &log.head(), user_data: b"data" };
    let report_data = bound.report_data().map_err(|error| Failure::failed(error.to_string()))?;
    let expected = made(driver.platform, &report_data);
    expect(bytes("document")? == expected.outblob, "the document is the hardware's, with the report data")?;
    expect(bytes("certificates")? == expected.auxblob, "the certificates are the host's")?;
    expect_eq(&count(machine)?, &(before + 1), "the requests that the hardware has read")
}

/// Events are recorded without hardware; what only a security module has is refused.
fn recorded(machine: &Machine, driver: &Driver) -> Outcome {
    let before = count(machine)?;
    let event = json!({ "label": "config", "data": STANDARD.encode("data") });
    expect_eq(&machine.request(machine.web, "POST /v1/extend", &event)?.0, &200, "the status of an event")?;
    for (line, alternative) in [("GET /v1/random", "getrandom"), ("POST /v1/attestation", "/v1/evidence")] {
        let why = machine.refused(machine.web, line, &Value::Null, 501)?;
        expect_in(&why, &format!("platform {}", driver.platform), "the refusal")?;
        expect_in(&why, alternative, "the refusal")?;
    }
    expect_eq(&count(machine)?, &before, "the requests that the hardware has read")
}

/// The attestation server answers with evidence of the right form, once it has a certificate with evidence in it.
fn over_tls(lab: &Lab, machine: &Machine, driver: &Driver, port: u16) -> Outcome {
    let before = count(machine)?;
    let url = format!("https://127.0.0.1:{port}");
    for requests in [2, 3] {
        let done = lab.sleeve(&["verify", &url]).finish()?;
        expect_in(&done.stderr, driver.why, "why it is not verified")?;
        // One for the certificate, which later connections have too, and one for each nonce.
        expect_eq(&count(machine)?, &(before + requests), "the requests that the hardware has read")?;
    }
    Ok(())
}

/// How many requests the hardware has read.
fn count(machine: &Machine) -> Result<usize, Failure> {
    let answer = machine.running.get(machine.web, &format!("/mode/{}", char::from(COUNT)))?.body;
    answer.parse().map_err(|_| Failure::failed(format_args!("the hardware's answer {answer:?}")))
}

/// The report of this platform for these bytes, and the host's certificates. Nothing is signed.
fn made(platform: &str, inblob: &[u8]) -> Blobs {
    let is_snp = platform == "snp";
    let (length, place) = if is_snp { REPORT } else { QUOTE };
    // The version; TDX: also the type of the key, and that of the platform.
    let head: &[u8] = if is_snp { &[3, 0, 0, 0] } else { &[4, 0, 2, 0, 0x81, 0, 0, 0] };
    let mut outblob = head.to_vec();
    outblob.resize(place, 0);
    outblob.extend_from_slice(inblob);
    outblob.resize(length, 0);
    Blobs { outblob, auxblob: if is_snp { b"certificates of the host".to_vec() } else { Vec::new() } }
}

// ---- the guest half ----

fn guest(args: &[String]) -> ExitCode {
    match args.first().map(String::as_str) {
        None => before_the_supervisor(),
        Some(HARDWARE) => play_the_hardware(),
        Some(_) => serve(args, |path| match path {
            "/silent" => silent(),
            "/kill-attestor" => kill_the_attestor(),
            "/kill-supervisor" => tell_the_hardware(KILL_SUPERVISOR).map(|_| "killed".to_owned()),
            "/elsewhere" => Ok(elsewhere()),
            path => match path.strip_prefix("/mode/").map(str::as_bytes) {
                Some([mode]) => tell_the_hardware(*mode),
                _ => answer(path),
            },
        }),
    }
}

/// Starts the hardware, and becomes the supervisor.
fn before_the_supervisor() -> ExitCode {
    let started = Command::new("/proc/self/exe").args([SNP.name, HARDWARE]).spawn();
    let failed = started.map_or_else(|error| error, |_| Command::new(SUPERVISOR).exec());
    drop(print_fact("supervisor", &failed.to_string()));
    ExitCode::FAILURE
}

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(CONTROL)
}

fn tell_the_hardware(mode: u8) -> io::Result<String> {
    let mut control = UnixStream::connect_addr(&address()?)?;
    control.write_all(&[mode])?;
    let mut count = String::new();
    control.read_to_string(&mut count)?;
    Ok(count)
}

/// Makes reports until the machine ends.
fn play_the_hardware() -> ExitCode {
    // A restarted supervisor finds the first one.
    let Ok(control) = address().and_then(|address| UnixListener::bind_addr(&address)) else {
        return ExitCode::SUCCESS;
    };
    let (mode, count) = (Arc::new(AtomicU8::new(ANSWERS)), Arc::new(AtomicUsize::new(0)));
    let (controlled, counted) = (Arc::clone(&mode), Arc::clone(&count));
    drop(thread::spawn(move || {
        for client in control.incoming() {
            // A service that disconnects is no reason to end.
            drop(client.and_then(|mut client| {
                let mut next = [0];
                client.read_exact(&mut next)?;
                let [next] = next;
                match next {
                    COUNT => {}
                    KILL_ATTESTOR => kill("cgroup", &format!("/servants/{NAME}"))?,
                    KILL_SUPERVISOR => kill("comm", "supervisor-ship")?,
                    mode => controlled.store(mode, Ordering::SeqCst),
                }
                client.write_all(counted.load(Ordering::SeqCst).to_string().as_bytes())
            }));
        }
    }));
    let ended = Device::open().and_then(|device| {
        loop {
            answer_one(&device, &mode, &count)?;
        }
    });
    let why = ended.map_or_else(|error: io::Error| error.to_string(), |()| String::new());
    drop(print_fact(HARDWARE, &why));
    ExitCode::FAILURE
}

fn answer_one(device: &Device, mode: &AtomicU8, count: &AtomicUsize) -> io::Result<()> {
    let request = device.next()?;
    count.fetch_add(1, Ordering::SeqCst);
    while mode.load(Ordering::SeqCst) == SILENT {
        thread::park_timeout(POLL_INTERVAL);
    }
    let platform = if Path::new("/dev/sev-guest").exists() { "snp" } else { "tdx" };
    // The driver may have stopped waiting.
    device.answer(request.id, &Ok(made(platform, &request.inblob))).or(Ok(()))
}

/// Requests evidence while the hardware does not answer, and the event log meanwhile.
fn silent() -> io::Result<String> {
    let before = tell_the_hardware(SILENT)?;
    let started = Instant::now();
    let body = json!({ "nonce": STANDARD.encode(NONCE) }).to_string();
    let evidence = thread::spawn(move || exchange("POST /v1/evidence", &body));
    while tell_the_hardware(COUNT)? == before {
        thread::park_timeout(POLL_INTERVAL);
    }
    let asked = Instant::now();
    let (log, _) = exchange("GET /v1/eventlog", "")?;
    let log_is_quick = asked.elapsed() < LONGEST;
    let (status, _) = evidence.join().map_err(|_| io::Error::other("a thread panicked"))??;
    let in_time = (UNANSWERED.0..UNANSWERED.1).contains(&started.elapsed());
    tell_the_hardware(ANSWERS)?;
    let when = if log_is_quick { "at once" } else { "late" };
    let then = if in_time { "in time" } else { "not in time" };
    Ok(format!("eventlog {log} {when}, evidence {status} {then}"))
}

/// Kills the attestor while the hardware has its request.
fn kill_the_attestor() -> io::Result<String> {
    let before = tell_the_hardware(SILENT)?;
    let body = json!({ "nonce": STANDARD.encode(NONCE) }).to_string();
    let evidence = thread::spawn(move || exchange("POST /v1/evidence", &body));
    while tell_the_hardware(COUNT)? == before {
        thread::park_timeout(POLL_INTERVAL);
    }
    tell_the_hardware(KILL_ATTESTOR)?;
    let answer = evidence.join().map_err(|_| io::Error::other("a thread panicked"))?;
    tell_the_hardware(ANSWERS)?;
    Ok(match answer {
        Err(_) => "the request was disconnected without an answer".to_owned(),
        Ok((status, _)) => format!("the request was answered with {status}"),
    })
}

/// Kills the processes whose file in `/proc` ends with this text. This process sees all.
fn kill(file: &str, text: &str) -> io::Result<()> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let found = fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = number.filter(|_| found.trim_end().ends_with(text)) {
            kill_process(pid, Signal::KILL)?;
        }
    }
    Ok(())
}

/// What a service has of the hardware.
fn elsewhere() -> String {
    let devices = ["/dev/sev-guest", "/dev/tdx_guest", "/dev/tsm-test"];
    let device = if devices.iter().any(|path| Path::new(path).exists()) { "a device" } else { "no device" };
    let entries = fs::read_dir("/sys/kernel/config").map(Iterator::count).unwrap_or_default();
    format!("{device}, configfs {}", if entries == 0 { "absent or empty" } else { "there" })
}
