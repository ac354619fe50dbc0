//! Events that services record, while the attestor is killed again and again, as a verifier on the host sees them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_binding::eventlog::{DATA_LIMIT, EVENTS_LIMIT, Event, LOG_LIMIT, Log};
use cloister_wire::attestor::NAME;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::without_hardware::{Verifier, connected, evidence, measurements, part};
use super::{MANIFEST, Machine, NONCE, answer, exchange, find_servant, send_from_outside, serve};
use crate::lab::{Release, path_str};
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(in crate::scenarios) const SCENARIO: Scenario =
    Scenario { name: "recorded_events_survive_crashes_and_are_verified_on_the_host", host: recorded, guest };

/// The path of the guest half that records events, followed by a number.
const RECORD: &str = "/record/";

/// How often the attestor is killed, and how many events the service wants to record each time.
const KILLS: usize = 4;
const EVENTS: usize = 30;

/// The manifest: `web` may end the recording, `plain` may only record.
fn manifest() -> String {
    MANIFEST.replace("[evidence, random]", "[evidence, extend, lock], plain: [extend]")
}

/// A verifier that expects the image of the scenario.
struct Host<'a> {
    verifier: Verifier<'a>,
    measurements: String,
    folder: PathBuf,
}

impl Host<'_> {
    /// The exit code of `verify` for a document and a log, and what it printed.
    fn verify(
        &self,
        document: &[u8],
        events: &[u8],
        more: &[&str],
    ) -> Result<(Option<i32>, String), Failure> {
        let files = ["document.cose", "events"].map(|name| self.folder.join(name));
        for (path, content) in files.iter().zip([document, events]) {
            fs::write(path, content)?;
        }
        let [document, events] = &files;
        let options = [&["--allow-virtual", "--event-log", path_str(events)?], more].concat();
        self.verifier.verify(path_str(document)?, &self.measurements, &options)
    }
}

fn recorded(lab: &mut Lab) -> Outcome {
    let release = Release::default().with_trial("signals");
    let image = lab.image_on(&release, &manifest())?;
    let measurements = measurements(lab, &image, "right.json")?;
    let machine = Machine::boot_image(lab, &image, "qemu")?;
    let host = Host { verifier: Verifier::new(lab)?, measurements, folder: lab.folder().to_owned() };
    let mut confirmed = Vec::new();
    for round in 0..KILLS {
        // The sleeve has connected.
        drop(evidence(&machine)?);
        let answers = machine.running.get(machine.web, &format!("{RECORD}{round}"))?.body;
        confirmed.extend(answers.split_whitespace().map(str::to_owned));
    }
    expect(confirmed.len() >= KILLS, format_args!("events were recorded: {confirmed:?}"))?;
    let proof = evidence(&machine)?;
    let (document, log) = (part(&proof, "document")?, in_order(&part(&proof, "events")?, &confirmed)?);
    let (code, text) = host.verify(&document, &log.encode(), &[])?;
    expect_eq(&code, &Some(0), &text)?;
    let mut shorter = Log::default();
    for event in log.events().iter().take(log.events().len().saturating_sub(1)) {
        shorter.push(event.clone()).map_err(|error| Failure::failed(error.to_string()))?;
    }
    let (code, text) = host.verify(&document, &shorter.encode(), &[])?;
    expect_eq(&code, &Some(1), &text)?;
    expect_in(&text, "NOT VERIFIED (binding)", "the verdict about a log without its last event")?;
    let log = full(&machine, &host)?;
    locked(&machine, &host, &log)?;
    machine.stop()
}

/// A service can fill its part of the log and no more, and the whole of it is evidence.
fn full(machine: &Machine, host: &Host<'_>) -> Result<Log, Failure> {
    let why = machine.running.get(machine.web, "/fill-log")?.body;
    expect_in(&why, "507 ", "the status of the last event")?;
    expect_in(&why, "service web has used its part of the event log", "the refusal")?;
    let proof = evidence(machine)?;
    let (document, bytes) = (part(&proof, "document")?, part(&proof, "events")?);
    expect(bytes.len() > LOG_LIMIT / 4, format_args!("the log has {} bytes", bytes.len()))?;
    let (code, text) = host.verify(&document, &bytes, &[])?;
    expect_eq(&code, &Some(0), &text)?;
    machine.expect_memory()?;
    Log::parse(&bytes).map_err(|error| Failure::failed(error.to_string()))
}

/// The log, in which every confirmed event is where the response said.
fn in_order(bytes: &[u8], confirmed: &[String]) -> Result<Log, Failure> {
    let log = Log::parse(bytes).map_err(|error| Failure::failed(error.to_string()))?;
    for entry in confirmed {
        let (label, position) = entry.split_once('@').unwrap_or_default();
        let found = position.parse().ok().and_then(|position: usize| log.events().get(position));
        let kind = found.map(|event| event.kind().to_owned());
        expect_eq(&kind, &Some(format!("service.web.{label}")), "the event at a confirmed position")?;
    }
    let kinds: BTreeSet<_> = log.events().iter().map(Event::kind).collect();
    expect_eq(&kinds.len(), &log.events().len(), "the number of different events")?;
    Ok(log)
}

/// After the recording has ended, PCR17 is in every document.
fn locked(machine: &Machine, host: &Host<'_>, log: &Log) -> Outcome {
    let why = machine.refused(machine.plain, "POST /v1/lock", &Value::Null, 403)?;
    expect_in(&why, "add `lock` to attestation.services.plain", "the refusal")?;
    let event = json!({ "label": "last", "data": STANDARD.encode("data") });
    expect_eq(&machine.request(machine.plain, "POST /v1/extend", &event)?.0, &200, "an event of `plain`")?;
    drop(connected(machine, "POST /v1/lock", &Value::Null)?);
    let why = machine.refused(machine.plain, "POST /v1/extend", &event, 409)?;
    expect_in(&why, "service web has locked the log", "the refusal")?;
    machine.expect_answer(machine.web, "/kill-attestor", "disconnected without an answer")?;
    let chosen = json!({ "nonce": STANDARD.encode(NONCE) });
    let document = connected(machine, "POST /v1/attestation", &chosen)?;
    let whole = connected(machine, "GET /v1/eventlog", &Value::Null)?;
    let found = Log::parse(&whole).map_err(|error| Failure::failed(error.to_string()))?;
    let kinds: Vec<_> = found.events().iter().map(|event| event.kind().to_owned()).collect();
    expect_eq(&kinds.len(), &log.events().len().saturating_add(2), "the number of events")?;
    expect(
        kinds.ends_with(&["service.plain.last".to_owned(), "locked".to_owned()]),
        format_args!("the last events: {kinds:?}"),
    )?;
    let (code, text) = host.verify(&document, &whole, &["--skip", "binding"])?;
    expect_eq(&code, &Some(0), &text)?;
    let (code, text) = host.verify(&document, &log.encode(), &["--skip", "binding"])?;
    expect_eq(&code, &Some(1), &text)?;
    expect_in(&text, "PCR17", "the verdict about an older log")
}

/// Records long events until one is refused, and returns the refusal.
fn fill_the_log() -> io::Result<String> {
    let event = json!({ "label": "long", "data": STANDARD.encode([7; DATA_LIMIT]) }).to_string();
    for _ in 0..EVENTS_LIMIT {
        let (status, body) = exchange("POST /v1/extend", &event)?;
        if status != "200" {
            return Ok(format!("{status} {}", String::from_utf8_lossy(&body)));
        }
    }
    Ok("every event was recorded".to_owned())
}

fn guest(args: &[String]) -> ExitCode {
    serve(args, |path| match path {
        "/fill-log" => fill_the_log(),
        path if path.starts_with(RECORD) => record_while_killed(path),
        path => answer(path),
    })
}

/// Records events, and kills the attestor after some of them, while the next is being recorded. Returns the confirmed ones, each
/// with its position.
fn record_while_killed(path: &str) -> io::Result<String> {
    let round: usize = path.strip_prefix(RECORD).and_then(|text| text.parse().ok()).unwrap_or_default();
    let (confirm, confirmed) = mpsc::channel();
    let recording = thread::spawn(move || {
        for number in 0..EVENTS {
            let label = format!("r{round}.{number}");
            let event = json!({ "label": label, "data": STANDARD.encode("data") }).to_string();
            // A request that was interrupted may have been recorded or not.
            let Ok((status, body)) = exchange("POST /v1/extend", &event) else { continue };
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            if status == "200" {
                confirm
                    .send(format!("{label}@{}", body.get("position").unwrap_or(&Value::Null)))
                    .unwrap_or_default();
            }
        }
    });
    let mut all: Vec<String> = confirmed.iter().take(round.saturating_add(1)).collect();
    send_from_outside(find_servant(NAME)?, Signal::KILL.as_raw())?;
    all.extend(confirmed);
    recording.join().map_err(|_| io::Error::other("the thread panicked"))?;
    Ok(all.join(" "))
}
