//! What is told of an enclave that degrades and recovers, or falls silent and answers again.
//!
//! Its law: however often a guest turns, and however much it says about it, what is told is bounded; what was left out is
//! counted.

use std::time::{Duration, Instant};

use cloister_wire::control::State;

use crate::output;
use crate::state::Record;
use crate::state::record::Seen;

/// How many turns are told within a [`SPAN`]: a restart has two, and a person reads no more at once.
const MOST: u32 = 10;

/// After this time turns are told again.
const SPAN: Duration = Duration::from_mins(1);

/// The longest text of a guest that is shown, in characters: some lines of a terminal.
const MAX_SHOWN: usize = 300;

/// Counts turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    since: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl Turns {
    /// Tells the enclave's turn, unless there were too many.
    pub(super) fn tell(&mut self, record: &Record) {
        if let Some(words) = self.words(&record.name, &turned(record), Instant::now()) {
            output::note(&format!("cloister: {words}"));
        }
    }

    fn words(&mut self, name: &str, turned: &str, now: Instant) -> Option<String> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SPAN) {
            self.since = Some(now);
            self.told = 0;
        }
        if self.told >= MOST {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.told = self.told.saturating_add(1);
        let mut words = format!("{name} {turned}");
        if self.left_out > 0 {
            let missed = format!(" (it turned {} times before, which was not told)", self.left_out);
            words.push_str(&missed);
            self.left_out = 0;
        }
        if self.told == MOST {
            let rest = format!(
                "\ncloister: {name} turns too often: no more is told for a while, `host-sleeve ps` shows its state"
            );
            words.push_str(&rest);
        }
        Some(words)
    }
}

/// What it has become.
fn turned(record: &Record) -> String {
    let state = record.status.as_ref().map(|status| &status.state);
    if record.silent_since_ms.is_some() {
        let kill = format!("`host-sleeve stop --kill {}`", record.name);
        return match state {
            Some(State::Stopping { .. }) => {
                format!("does not answer; when its time to stop is over it is killed, {kill} does so now")
            }
            _ => format!("does not answer; it may go on, or {kill} ends it"),
        };
    }
    match state {
        Some(State::Degraded { why }) => format!("is degraded: {}", shown(why)),
        Some(State::Ready) => "is ready again".to_owned(),
        state => format!("answers again ({})", Seen::state_word(state)),
    }
}

/// A guest's text, cut to what is shown.
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
    fn a_guest_that_flaps_is_told_some_times_and_then_counted() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let told: Vec<String> =
            (0..100).filter_map(|_| turns.words("web", "is ready again", start)).collect();
        assert_eq!(told.len(), 10);
        assert_eq!(told[0], "web is ready again");
        assert!(told[9].contains("`host-sleeve ps` shows its state"), "{}", told[9]);
        let later = turns.words("web", "is ready again", start + SPAN).unwrap();
        assert_eq!(later, "web is ready again (it turned 90 times before, which was not told)");
        assert_eq!(turns.words("web", "is ready again", start + SPAN).unwrap(), "web is ready again");
    }

    #[test]
    fn a_guest_that_says_much_is_cut() {
        let words = shown(&"ä".repeat(100_000));
        assert!(words.chars().count() < 400 && words.ends_with('…'), "{words}");
        assert_eq!(shown("short"), "short");
    }
}
