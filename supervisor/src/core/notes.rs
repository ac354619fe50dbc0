//! Notifications from services (`sd_notify`) that no turn has handled yet.
//!
//! Invariant: repeated notifications are cheap. One of each kind is stored for a service, however often it is sent, and
//! all stored ones are handled in one turn; a pause after each such turn leaves most of the time to other work. Only
//! status texts and watchdog pings wait for the pause, since a service repeats them. The others
//! ([`Notes::take_lasting`]) are sent once, so a crash must not lose them; a service that repeats them waits as well.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::time::Duration;

use crate::clock::Moment;
use crate::launcher::{Event, Id, Verdict};
use crate::notify::Note;

/// The pause after a turn, as a multiple of the turn's duration: notifications take at most a fifth of the supervisor's
/// time.
const SHARE: u32 = 4;

/// Maximum pause: the longest delay of a status text or a ping, regardless of how many services notify.
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Pending notifications.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pending: BTreeMap<Id, Pending>,
    quiet_until: Moment,
    /// When a service last sent a notification that was handled immediately.
    lasting: BTreeMap<Id, Moment>,
}

/// The notifications of one service in one of its runs: each kind once, in order of first arrival, with the last text.
#[derive(Debug)]
struct Pending {
    run: u32,
    notes: Vec<Note>,
}

impl Notes {
    /// Adds notifications of a service's run.
    pub(super) fn add(&mut self, id: Id, run: u32, notes: Vec<Note>) {
        if notes.is_empty() {
            return;
        }
        let pending = self.pending.entry(id).or_insert(Pending { run, notes: Vec::new() });
        if pending.run != run {
            *pending = Pending { run, notes: Vec::new() };
        }
        for note in notes {
            match pending.notes.iter_mut().find(|known| discriminant(*known) == discriminant(&note)) {
                Some(known) => *known = note,
                None => pending.notes.push(note),
            }
        }
    }

    /// When the pending notifications are due.
    pub(super) fn due(&self) -> Option<Moment> {
        (!self.pending.is_empty()).then_some(self.quiet_until)
    }

    /// The notifications of a service that are sent once, so that they are handled immediately. If a service repeats
    /// them within [`MAX_PAUSE`], they wait with the others: alternating failed checks and pings would cause a turn and
    /// a new state each time.
    pub(super) fn take_lasting(&mut self, id: Id, now: Moment) -> Vec<Event> {
        let Some(pending) = self.pending.get_mut(&id) else { return Vec::new() };
        if self.lasting.get(&id).is_some_and(|last| now.since(*last) < MAX_PAUSE) {
            return Vec::new();
        }
        // A ping that came before a failed check must not be handled after it: it would cancel the failure.
        let fails = pending.notes.contains(&Note::Dead);
        let lasts = |note: &mut Note| match note {
            Note::Text(_) => false,
            Note::Alive => fails,
            _ => true,
        };
        let run = pending.run;
        let lasting: Vec<_> = pending.notes.extract_if(.., lasts).map(|note| event(id, run, note)).collect();
        if !lasting.is_empty() {
            self.lasting.insert(id, now);
        }
        if pending.notes.is_empty() {
            self.pending.remove(&id);
        }
        lasting
    }

    /// All pending notifications, as events of one turn.
    pub(super) fn take(&mut self) -> Vec<Event> {
        let all = std::mem::take(&mut self.pending);
        all.into_iter()
            .flat_map(|(id, pending)| pending.notes.into_iter().map(move |note| event(id, pending.run, note)))
            .collect()
    }

    /// Starts the pause after a turn of notifications that took from `began` until `now`.
    pub(super) fn rest(&mut self, began: Moment, now: Moment) {
        let pause = now.since(began).saturating_mul(SHARE).min(MAX_PAUSE);
        self.quiet_until = Moment::from_nanos(
            now.nanos().saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)),
        );
    }
}

fn event(id: Id, run: u32, note: Note) -> Event {
    match note {
        Note::Ready => Event::Ready { id, run },
        Note::Stopping => Event::Leaving { id },
        Note::Alive => Event::WatchdogPing { id },
        Note::Dead => Event::Checked { id, run, verdict: Verdict::Dead },
        Note::Text(text) => Event::Text { id, text },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Note {
        Note::Text(text.into())
    }

    #[test]
    fn repeated_notifications_become_one_event_with_the_last_text() {
        let mut notes = Notes::default();
        notes.add(Id(1), 1, vec![text("a"), Note::Alive, Note::Alive]);
        notes.add(Id(1), 1, vec![Note::Ready, text("b"), Note::Alive]);
        notes.add(Id(0), 7, vec![Note::Stopping]);
        assert_eq!(
            notes.take(),
            [
                Event::Leaving { id: Id(0) },
                Event::Text { id: Id(1), text: "b".into() },
                Event::WatchdogPing { id: Id(1) },
                Event::Ready { id: Id(1), run: 1 },
            ]
        );
        assert_eq!(notes.take(), []);
    }

    #[test]
    fn notifications_that_are_sent_once_do_not_wait_for_repeated_ones() {
        let mut notes = Notes::default();
        notes.add(Id(0), 3, vec![text("a"), Note::Ready, Note::Alive]);
        let now = Moment::from_millis;
        assert_eq!(notes.take_lasting(Id(1), now(1_000)), []);
        assert_eq!(notes.take_lasting(Id(0), now(1_000)), [Event::Ready { id: Id(0), run: 3 }]);
        assert_eq!(
            notes.take(),
            [Event::Text { id: Id(0), text: "a".into() }, Event::WatchdogPing { id: Id(0) }]
        );
        notes.add(Id(0), 3, vec![Note::Alive, Note::Dead]);
        let dead = Event::Checked { id: Id(0), run: 3, verdict: Verdict::Dead };
        let events = [Event::WatchdogPing { id: Id(0) }, dead];
        assert_eq!(notes.take_lasting(Id(0), now(1_200)), events, "in their order");
        notes.add(Id(0), 3, vec![Note::Stopping]);
        assert_eq!(notes.take_lasting(Id(0), now(1_400)), [Event::Leaving { id: Id(0) }]);
        assert_eq!(notes.due(), None);
    }

    #[test]
    fn repeated_state_notifications_wait_like_status_texts() {
        let (mut notes, now) = (Notes::default(), Moment::from_millis);
        let dead = |id| Event::Checked { id, run: 3, verdict: Verdict::Dead };
        for id in [Id(0), Id(1)] {
            notes.add(id, 3, vec![Note::Dead]);
            assert_eq!(notes.take_lasting(id, now(1_000)), [dead(id)], "services do not wait for each other");
        }
        notes.add(Id(0), 3, vec![Note::Alive, Note::Dead]);
        assert_eq!(notes.take_lasting(Id(0), now(1_199)), []);
        assert!(notes.due().is_some(), "it is handled in the next turn of all services");
        assert_eq!(notes.take(), [Event::WatchdogPing { id: Id(0) }, dead(Id(0))]);
        notes.add(Id(0), 3, vec![Note::Dead]);
        assert_eq!(notes.take_lasting(Id(0), now(1_200)), [dead(Id(0))]);
    }

    #[test]
    fn notifications_of_a_run_are_dropped_when_the_next_run_notifies() {
        let mut notes = Notes::default();
        notes.add(Id(0), 1, vec![Note::Ready]);
        notes.add(Id(0), 2, vec![Note::Alive]);
        assert_eq!(notes.take(), [Event::WatchdogPing { id: Id(0) }]);
    }

    #[test]
    fn a_turn_of_notifications_is_followed_by_a_proportional_pause() {
        let mut notes = Notes::default();
        assert_eq!(notes.due(), None);
        notes.add(Id(0), 1, vec![Note::Ready]);
        assert_eq!(notes.due(), Some(Moment::default()), "the first is handled immediately");
        notes.rest(Moment::from_millis(100), Moment::from_millis(110));
        assert_eq!(notes.due(), Some(Moment::from_millis(150)));
        notes.rest(Moment::from_millis(100), Moment::from_millis(900));
        assert_eq!(notes.due(), Some(Moment::from_millis(1100)), "bounded");
    }
}
