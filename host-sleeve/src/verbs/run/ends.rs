//! What is said of an enclave that has ended.
//!
//! Its law: whoever waited for it learns why it ended from what is printed, without another command, and a hint never names
//! what is gone. Everything of the guest is bounded.

use std::cell::RefCell;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use cloister_wire::control::{Phase, State, Status};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::logbook::lines::{Look, Printer};
use crate::logbook::{CONSOLE, SERVICES};
use crate::output::{self, printable};
use crate::sleeve::run::Ran;
use crate::state::{End, Folder, Outcome, Record};
use crate::values::word;
use crate::verbs::follow::{Records, Tail};

use super::changes::shown;

/// Lines of a service or of the console that are shown: enough for a stack's top and the message under it.
const LINES: usize = 10;

/// How much of the console's end is read for them, in bytes.
const CONSOLE_TAIL: u64 = 64 * 1024;

/// Services that are named as waited for; more are counted.
const NAMED: usize = 8;

/// What was seen of an enclave's end, taken before its folder may be removed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Last {
    /// What its services wrote last, if it is not on the terminal already.
    said: Option<String>,
    /// What its console showed last.
    console: Option<String>,
    /// The services that it waited for, if it has not been ready.
    waiting: Vec<String>,
    /// Whether its folder is removed.
    gone: bool,
}

impl Last {
    /// Looks at what is left of a run. `shown` says that the services' output is on the terminal, `gone` that the folder
    /// will not be kept.
    pub(super) fn of(ran: &Ran, shown: bool, gone: bool) -> Self {
        let said = if shown { None } else { services(&ran.folder, &ran.end, &ran.record) };
        let waiting = if ran.record.ready_ms.is_none() { waiting(ran.starting.as_ref()) } else { Vec::new() };
        Self { said, console: console(&ran.folder), waiting, gone }
    }
}

/// Says how it ended. In the foreground, a service that ended by itself has said all there is to say with its own output
/// and the code.
pub(super) fn tell(record: &Record, end: &End, last: &Last, detached: bool) {
    match words(record, end, last, detached) {
        Say::Quiet => {}
        Say::Note(text) => output::note(&text),
        Say::Error(error) => output::error(&error),
    }
}

/// What there is to say about an end.
#[derive(Debug)]
enum Say {
    Quiet,
    Note(String),
    Error(Error),
}

fn words(record: &Record, end: &End, last: &Last, detached: bool) -> Say {
    let name = &record.name;
    let early = detached && record.ready_ms.is_none() && end.code != 0;
    let error = match &end.outcome {
        Outcome::Told { state: State::Exited { .. } } if !detached => return Say::Quiet,
        Outcome::Told { state: State::Fatal { stage, error } } => {
            let error = Error::enclave(format!("{name} could not go on: {}: {}", shown(stage), shown(error)));
            return Say::Error(with_reasons(error, name, last, last.console.as_deref(), "console"));
        }
        Outcome::Told { state } if early => {
            let who = ended_service(state).map_or_else(String::new, |who| format!("{}: ", shown(who)));
            Error::enclave(format!("{name} ended before it was ready: {who}{}", end.words()))
        }
        Outcome::Told { .. } | Outcome::Killed { .. } => {
            return Say::Note(format!("cloister: {name}: {}", end.words()));
        }
        Outcome::TimedOut { why } => Error::timed_out(format!("{name}: {why}")),
        Outcome::Failed { why } => {
            let error = Error::enclave(format!("{name} ended without reporting a final state: {why}"));
            return Say::Error(with_reasons(error, name, last, last.console.as_deref(), "console"));
        }
    };
    // What a service wrote says more than the console, which it does not write to.
    Say::Error(match &last.said {
        Some(lines) => with_reasons(error, name, last, Some(lines), "services"),
        None => with_reasons(error, name, last, last.console.as_deref(), "console"),
    })
}

/// Adds what was waited for and what was said, and where the rest is, if there is a rest.
fn with_reasons(error: Error, name: &str, last: &Last, lines: Option<&str>, which: &str) -> Error {
    let mut reasons = Vec::new();
    if !last.waiting.is_empty() {
        reasons.push(format!("it waited to become ready: {}", last.waiting.join(", ")));
    }
    if let Some(lines) = lines {
        let subject = if which == "console" { "its console showed" } else { "its services wrote" };
        reasons.push(format!("{subject} last:\n{lines}"));
    }
    let error = if reasons.is_empty() { error } else { error.because(io::Error::other(reasons.join("\n"))) };
    match which {
        _ if last.gone => error.hint("without --rm its logs are kept"),
        "console" => error.hint(format!("`host-sleeve logs --console {name}` shows its console")),
        _ => error.hint(format!("`host-sleeve logs {name}` shows all that is kept of its output")),
    }
}

fn ended_service(state: &State) -> Option<&str> {
    match state {
        State::Exited { service, .. } | State::Signaled { service, .. } => Some(service),
        _ => None,
    }
}

/// The services that were not ready in the last status before the end began.
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
fn services(folder: &Folder, end: &End, record: &Record) -> Option<String> {
    let service = match &end.outcome {
        Outcome::Told { state } => ended_service(state).map(str::to_owned),
        _ => None,
    };
    let count = record.status.as_ref().map_or(0, |status| status.services.len());
    let look = Look { names: count > 1 && service.is_none(), ..Look::default() };
    let mut tail = Tail::new(LINES, service);
    let text = Text::default();
    let printed = Records::open(folder.dir(), SERVICES)
        .drain(&mut tail)
        .and_then(|()| tail.hand_to(&mut Printer::new(look, text.clone(), text.clone())));
    // A log that cannot be read has nothing to show; the end is told without it.
    printed.ok()?;
    quoted(&text.0.borrow())
}

/// The last lines of the console.
fn console(folder: &Folder) -> Option<String> {
    let mut file = std::fs::File::open(folder.dir().at(CONSOLE)).ok()?;
    let from = file.metadata().ok()?.len().saturating_sub(CONSOLE_TAIL);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(CONSOLE_TAIL).read_to_end(&mut bytes).ok()?;
    quoted(&bytes)
}

/// The last lines of a text, each marked and cut to what is shown.
fn quoted(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(LINES);
    let last: Vec<String> =
        lines.get(from..)?.iter().map(|line| format!("  | {}", shown(line.trim_end()))).collect();
    (!last.is_empty()).then(|| last.join("\n"))
}

/// What two streams wrote, in the order in which they did.
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

    fn said(outcome: Outcome, last: &Last, detached: bool) -> String {
        let end = End { code: 3, outcome, at_ms: 2 };
        match words(&launched("web"), &end, last, detached) {
            Say::Quiet => String::new(),
            Say::Note(text) => text,
            Say::Error(error) => output::render(&error),
        }
    }

    fn exited() -> Outcome {
        Outcome::Told { state: State::Exited { service: "app".into(), code: 3 } }
    }

    #[test]
    fn a_detached_service_that_fails_is_told_with_its_last_lines_and_what_was_waited_for() {
        let last = Last {
            said: Some("  | no database".into()),
            waiting: vec!["app (starting)".into()],
            ..Last::default()
        };
        assert_eq!(
            said(exited(), &last, true),
            "error: web ended before it was ready: app: exited (3)\n\
             because: it waited to become ready: app (starting)\nits services wrote last:\n  | no database\n\
             hint: `host-sleeve logs web` shows all that is kept of its output"
        );
        assert_eq!(said(exited(), &last, false), "", "its output is on the terminal");
    }

    #[test]
    fn a_hint_names_no_enclave_that_is_gone() {
        let last = Last { console: Some("  | no /proc".into()), gone: true, ..Last::default() };
        let fatal = Outcome::Told { state: State::Fatal { stage: "mounts".into(), error: "no".into() } };
        for outcome in [fatal, exited(), Outcome::Failed { why: "x".into() }] {
            let said = said(outcome, &last, true);
            assert!(said.contains("  | no /proc") && said.contains("without --rm"), "{said}");
            assert!(!said.contains("host-sleeve logs"), "{said}");
        }
    }

    #[test]
    fn what_a_guest_said_last_is_bounded() {
        let text = format!("{}\n{}", "first\n".repeat(100), "x".repeat(100_000));
        let quoted = quoted(text.as_bytes()).unwrap();
        assert_eq!(quoted.lines().count(), LINES);
        assert!(quoted.len() < 1000, "{} bytes", quoted.len());
        assert_eq!(super::quoted(b"\n \n"), None);
    }
}
