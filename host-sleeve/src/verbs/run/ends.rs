//! The message about an enclave's end.
//!
//! Invariant: the message states why the enclave ended, so that no other command is needed, and a hint never refers to a deleted
//! record. All text from the guest is bounded.

use std::cell::RefCell;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use cloister_wire::control::{Phase, State, Status};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::logbook::lines::{Format, Printer};
use crate::logbook::{CONSOLE, SERVICES};
use crate::output::{self, printable};
use crate::sleeve::run::Ran;
use crate::state::{EnclaveDir, End, Outcome, Record};
use crate::values::word;
use crate::verbs::follow::{Records, Tail};

use super::changes::shown;

/// Number of lines of a service or of the console that are shown: enough for the top of a stack trace and its message.
const LINES: usize = 10;

/// Number of bytes that are read from the end of the console for them.
const CONSOLE_TAIL: u64 = 64 * 1024;

/// Maximum number of unready services that are named; further ones are counted.
const NAMED: usize = 8;

/// Information about an enclave's end, collected before its directory may be removed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Last {
    /// The last output of its services, if it is not on the terminal already.
    services: Option<String>,
    /// The last lines of its console.
    console: Option<String>,
    /// The services that were not ready, if it has not been ready.
    waiting: Vec<String>,
    /// Whether its directory is removed.
    gone: bool,
}

impl Last {
    /// Collects the information about a run. `shown` means that the services' output is on the terminal, `gone` that the directory
    /// will be removed.
    pub(super) fn of(ran: &Ran, shown: bool, gone: bool) -> Self {
        let services = if shown { None } else { services(&ran.directory, &ran.end, &ran.record) };
        let waiting = if ran.record.ready_ms.is_none() { waiting(ran.starting.as_ref()) } else { Vec::new() };
        Self { services, console: console(&ran.directory), waiting, gone }
    }
}

/// Prints how the enclave ended. In the foreground, nothing is printed if the service exited by itself: its own output and the
/// exit code are sufficient.
pub(super) fn report(record: &Record, end: &End, last: &Last, detached: bool) {
    match message(record, end, last, detached) {
        Message::None => {}
        Message::Note(text) => output::note(&text),
        Message::Error(error) => output::error(&error),
    }
}

/// The message about an end.
#[derive(Debug)]
enum Message {
    None,
    Note(String),
    Error(Error),
}

fn message(record: &Record, end: &End, last: &Last, detached: bool) -> Message {
    let name = &record.name;
    let early = detached && record.ready_ms.is_none() && end.code != 0;
    let error = match &end.outcome {
        Outcome::Reported { state: State::Exited { .. } } if !detached => return Message::None,
        Outcome::Reported { state: State::Fatal { stage, error } } => {
            let error = Error::enclave(format!("{name} failed: {}: {}", shown(stage), shown(error)));
            return Message::Error(with_reasons(error, name, last, last.console.as_deref(), "console"));
        }
        Outcome::Reported { state } if early => {
            let who = ended_service(state).map_or_else(String::new, |who| format!("{}: ", shown(who)));
            Error::enclave(format!("{name} ended before it was ready: {who}{}", end.summary()))
        }
        Outcome::Reported { .. } | Outcome::Killed { .. } => {
            return Message::Note(format!("cloister: {name}: {}", end.summary()));
        }
        Outcome::NotVerified { why } => {
            let error = Error::enclave(format!("{name} was ended: it was not verified"));
            let hint = "docs/evidence.md explains the checks; `host-sleeve measure` shows what an image should measure";
            return Message::Error(error.because(io::Error::other(printable(why))).hint(hint));
        }
        Outcome::TimedOut { why } => Error::timed_out(format!("{name}: {why}")),
        Outcome::Failed { why } => {
            let error = Error::enclave(format!("{name} ended without reporting a final state: {why}"));
            return Message::Error(with_reasons(error, name, last, last.console.as_deref(), "console"));
        }
    };
    // A service's output explains more than the console, which services do not write to.
    Message::Error(match &last.services {
        Some(lines) => with_reasons(error, name, last, Some(lines), "services"),
        None => with_reasons(error, name, last, last.console.as_deref(), "console"),
    })
}

/// Adds the services that were not ready, the last output, and a hint on how to see all of it.
fn with_reasons(error: Error, name: &str, last: &Last, lines: Option<&str>, which: &str) -> Error {
    let mut reasons = Vec::new();
    if !last.waiting.is_empty() {
        reasons.push(format!("services not ready: {}", last.waiting.join(", ")));
    }
    if let Some(lines) = lines {
        let source = if which == "console" { "its console" } else { "its services" };
        reasons.push(format!("last output of {source}:\n{lines}"));
    }
    let error = if reasons.is_empty() { error } else { error.because(io::Error::other(reasons.join("\n"))) };
    match which {
        _ if last.gone => error.hint("run it without --rm to keep its logs"),
        "console" => error.hint(format!("`host-sleeve logs --console {name}` shows its console")),
        _ => error.hint(format!("`host-sleeve logs {name}` shows more of its output")),
    }
}

fn ended_service(state: &State) -> Option<&str> {
    match state {
        State::Exited { service, .. } | State::Signaled { service, .. } => Some(service),
        _ => None,
    }
}

/// The services that were not ready in the last status before the shutdown began.
fn waiting(starting: Option<&Status>) -> Vec<String> {
    let services = starting.iter().flat_map(|status| &status.services);
    let open = services.filter(|service| !matches!(service.phase, Phase::Ready | Phase::Done));
    let mut named: Vec<String> = open
        .map(|service| {
            let details = service.waits_for.iter().chain(&service.text);
            let details = details.map(|text| shown(&printable(text)));
            let state: Vec<_> = std::iter::once(word(&service.phase)).chain(details).collect();
            format!("{} ({})", shown(&service.name), state.join(", "))
        })
        .collect();
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    named
}

/// The last lines of the service that ended, or of all of them.
fn services(directory: &EnclaveDir, end: &End, record: &Record) -> Option<String> {
    let service = match &end.outcome {
        Outcome::Reported { state } => ended_service(state).map(str::to_owned),
        _ => None,
    };
    let count = record.status.as_ref().map_or(0, |status| status.services.len());
    let format = Format { names: count > 1 && service.is_none(), ..Format::default() };
    let mut tail = Tail::new(LINES, service);
    let text = Text::default();
    let printed = Records::open(directory.dir(), SERVICES)
        .drain(&mut tail)
        .and_then(|()| tail.write_to(&mut Printer::new(format, text.clone(), text.clone())));
    // Without a readable log, the end is reported without its lines.
    printed.ok()?;
    quoted(&text.0.borrow())
}

/// The last lines of the console.
fn console(directory: &EnclaveDir) -> Option<String> {
    let mut file = directory.dir().open_file(CONSOLE).ok()?;
    let from = file.metadata().ok()?.len().saturating_sub(CONSOLE_TAIL);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(CONSOLE_TAIL).read_to_end(&mut bytes).ok()?;
    quoted(&bytes)
}

/// The last lines of a text, each marked and truncated.
fn quoted(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(LINES);
    let last: Vec<String> =
        lines.get(from..)?.iter().map(|line| format!("  | {}", shown(line.trim_end()))).collect();
    (!last.is_empty()).then(|| last.join("\n"))
}

/// The text written to two streams, in order.
#[derive(Clone, Debug, Default)]
struct Text(Rc<RefCell<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::tests::launched;

    fn printed(outcome: Outcome, last: &Last, detached: bool) -> String {
        let end = End { code: 3, outcome, at_ms: 2 };
        match message(&launched("web"), &end, last, detached) {
            Message::None => String::new(),
            Message::Note(text) => text,
            Message::Error(error) => output::render(&error),
        }
    }

    fn exited() -> Outcome {
        Outcome::Reported { state: State::Exited { service: "app".into(), code: 3 } }
    }

    #[test]
    fn a_failed_detached_service_is_reported_with_its_last_lines_and_the_unready_services() {
        let last = Last {
            services: Some("  | no database".into()),
            waiting: vec!["app (starting)".into()],
            ..Last::default()
        };
        assert_eq!(
            printed(exited(), &last, true),
            "error: web ended before it was ready: app: exited (3)\n\
             because: services not ready: app (starting)\nlast output of its services:\n  | no database\n\
             hint: `host-sleeve logs web` shows more of its output"
        );
        assert_eq!(printed(exited(), &last, false), "", "its output is on the terminal");
    }

    #[test]
    fn a_hint_never_names_a_removed_enclave() {
        let last = Last { console: Some("  | no /proc".into()), gone: true, ..Last::default() };
        let fatal = Outcome::Reported { state: State::Fatal { stage: "mounts".into(), error: "no".into() } };
        for outcome in [fatal, exited(), Outcome::Failed { why: "x".into() }] {
            let printed = printed(outcome, &last, true);
            assert!(printed.contains("  | no /proc") && printed.contains("without --rm"), "{printed}");
            assert!(!printed.contains("host-sleeve logs"), "{printed}");
        }
    }

    #[test]
    fn the_last_lines_of_a_guest_are_bounded() {
        let text = format!("{}\n{}", "first\n".repeat(100), "x".repeat(100_000));
        let quoted = quoted(text.as_bytes()).unwrap();
        assert_eq!(quoted.lines().count(), LINES);
        assert!(quoted.len() < 1000, "{} bytes", quoted.len());
        assert_eq!(super::quoted(b"\n \n"), None);
    }
}
