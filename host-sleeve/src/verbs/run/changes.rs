//! Messages about an enclave that becomes degraded and recovers, or stops responding and responds again.
//!
//! Invariant: however often a guest changes its state, and however long its explanations are, the messages are bounded;
//! suppressed ones are counted.

use std::time::{Duration, Instant};

use cloister_wire::control::State;

use crate::output;
use crate::state::Record;
use crate::state::record::Seen;

/// Maximum number of changes reported within one [`SPAN`]: a restart causes two, and more could not be read in that time.
const MAX_REPORTED: u32 = 10;

/// The period of the limit.
const SPAN: Duration = Duration::from_mins(1);

/// Maximum length of a guest's text in a message, in characters: a few lines of a terminal.
const MAX_SHOWN: usize = 300;

/// Reports changes of state at a limited rate.
#[derive(Debug, Default)]
pub(super) struct Changes {
    since: Option<Instant>,
    reported: u32,
    suppressed: u64,
}

impl Changes {
    /// Reports the enclave's change, unless there were too many.
    pub(super) fn report(&mut self, record: &Record) {
        if let Some(text) = self.text(&record.name, &change(record), Instant::now()) {
            output::note(&format!("cloister: {text}"));
        }
    }

    fn text(&mut self, name: &str, change: &str, now: Instant) -> Option<String> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SPAN) {
            self.since = Some(now);
            self.reported = 0;
        }
        if self.reported >= MAX_REPORTED {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.reported = self.reported.saturating_add(1);
        let mut text = format!("{name} {change}");
        if self.suppressed > 0 {
            let suppressed = format!(" ({} earlier changes suppressed)", self.suppressed);
            text.push_str(&suppressed);
            self.suppressed = 0;
        }
        if self.reported == MAX_REPORTED {
            let rest = format!(
                "\ncloister: {name} changes state too often: further changes are suppressed for up to a minute; `host-sleeve ps` shows its state"
            );
            text.push_str(&rest);
        }
        Some(text)
    }
}

/// What has changed.
fn change(record: &Record) -> String {
    let state = record.status.as_ref().map(|status| &status.state);
    if record.unresponsive_since_ms.is_some() {
        let kill = format!("`host-sleeve stop --kill {}`", record.name);
        return match state {
            Some(State::Stopping { .. }) => {
                format!("does not respond; it will be killed when its stop timeout expires, or now by {kill}")
            }
            _ => format!("does not respond; it may recover; {kill} kills it"),
        };
    }
    match state {
        Some(State::Degraded { why }) => format!("is degraded: {}", shown(why)),
        Some(State::Ready) => "is ready again".to_owned(),
        state => format!("responds again ({})", Seen::state_word(state)),
    }
}

/// A guest's text, truncated.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_flapping_guest_are_reported_up_to_a_limit_and_then_counted() {
        let (mut changes, start) = (Changes::default(), Instant::now());
        let reported: Vec<String> =
            (0..100).filter_map(|_| changes.text("web", "is ready again", start)).collect();
        assert_eq!(reported.len(), 10);
        assert_eq!(reported[0], "web is ready again");
        assert!(reported[9].contains("`host-sleeve ps` shows its state"), "{}", reported[9]);
        let later = changes.text("web", "is ready again", start + SPAN).unwrap();
        assert_eq!(later, "web is ready again (90 earlier changes suppressed)");
        assert_eq!(changes.text("web", "is ready again", start + SPAN).unwrap(), "web is ready again");
    }

    #[test]
    fn a_guests_long_text_is_truncated() {
        let text = shown(&"ä".repeat(100_000));
        assert!(text.chars().count() < 400 && text.ends_with('…'), "{text}");
        assert_eq!(shown("short"), "short");
    }
}
