//! Notifications from services (`sd_notify`) that no turn has handled yet.
//!
//! Its law: repeated notifications are cheap. One of each kind is kept for a service, however often it is sent, and all that are
//! kept are handled in one turn; a pause after each such turn leaves most of the time to other work. Only status texts and
//! watchdog pings wait for the pause, since a service repeats them. The others ([`Notes::take_lasting`]) are sent once, so a
//! crash must not lose them; a service that repeats them waits as well.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::time::Duration;

use crate::clock::Moment;
use crate::launcher::{Event, Id, Verdict};
use crate::notify::Note;

/// The pause after a turn, in times of what the turn took: notes are a fifth of the supervisor's time at most.
const SHARE: u32 = 4;

/// The longest pause: the most that a status text or a ping is delayed, however many services notify.
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Notes {
    waiting: BTreeMap<Id, Said>,
    quiet_until: Moment,
    /// When a service last said something that did not wait.
    lasting: BTreeMap<Id, Moment>,
}

/// What one service said in one of its runs: each kind once, in the order in which they came first, with the last text.
#[derive(Debug)]
struct Said {
    run: u32,
    notes: Vec<Note>,
}

impl Notes {
    /// Takes what a service said in a run.
    pub(super) fn add(&mut self, id: Id, run: u32, notes: Vec<Note>) {
        if notes.is_empty() {
            return;
        }
        let said = self.waiting.entry(id).or_insert(Said { run, notes: Vec::new() });
        if said.run != run {
            *said = Said { run, notes: Vec::new() };
        }
        for note in notes {
            match said.notes.iter_mut().find(|known| discriminant(*known) == discriminant(&note)) {
                Some(known) => *known = note,
                None => said.notes.push(note),
            }
        }
    }

    /// When what waits is to be dealt with.
    pub(super) fn due(&self) -> Option<Moment> {
        (!self.waiting.is_empty()).then_some(self.quiet_until)
    }

    /// What a service has said once and for all, so that it does not wait. One that says such things again within the longest
    /// pause has them wait with the others: a failed check and a ping in turn would be a turn and a new state each time.
    pub(super) fn take_lasting(&mut self, id: Id, now: Moment) -> Vec<Event> {
        let Some(said) = self.waiting.get_mut(&id) else { return Vec::new() };
        if self.lasting.get(&id).is_some_and(|last| now.since(*last) < MAX_PAUSE) {
            return Vec::new();
        }
        // A ping that came before a failed check must not follow it: it would take it back.
        let fails = said.notes.contains(&Note::Dead);
        let lasts = |note: &mut Note| match note {
            Note::Text(_) => false,
            Note::Alive => fails,
            _ => true,
        };
        let run = said.run;
        let lasting: Vec<_> = said.notes.extract_if(.., lasts).map(|note| event(id, run, note)).collect();
        if !lasting.is_empty() {
            self.lasting.insert(id, now);
        }
        if said.notes.is_empty() {
            self.waiting.remove(&id);
        }
        lasting
    }

    /// All that waits, as events of one turn.
    pub(super) fn take(&mut self) -> Vec<Event> {
        let said = std::mem::take(&mut self.waiting);
        said.into_iter()
            .flat_map(|(id, said)| said.notes.into_iter().map(move |note| event(id, said.run, note)))
            .collect()
    }

    /// A turn of notes took from `began` until `now`: the next one waits.
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
        Note::Alive => Event::Petted { id },
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
    fn what_is_said_again_and_again_is_one_event_and_the_last_text_counts() {
        let mut notes = Notes::default();
        notes.add(Id(1), 1, vec![text("a"), Note::Alive, Note::Alive]);
        notes.add(Id(1), 1, vec![Note::Ready, text("b"), Note::Alive]);
        notes.add(Id(0), 7, vec![Note::Stopping]);
        assert_eq!(
            notes.take(),
            [
                Event::Leaving { id: Id(0) },
                Event::Text { id: Id(1), text: "b".into() },
                Event::Petted { id: Id(1) },
                Event::Ready { id: Id(1), run: 1 },
            ]
        );
        assert_eq!(notes.take(), []);
    }

    #[test]
    fn what_is_said_once_does_not_wait_for_what_is_said_again_and_again() {
        let mut notes = Notes::default();
        notes.add(Id(0), 3, vec![text("a"), Note::Ready, Note::Alive]);
        let now = Moment::from_millis;
        assert_eq!(notes.take_lasting(Id(1), now(1_000)), []);
        assert_eq!(notes.take_lasting(Id(0), now(1_000)), [Event::Ready { id: Id(0), run: 3 }]);
        assert_eq!(notes.take(), [Event::Text { id: Id(0), text: "a".into() }, Event::Petted { id: Id(0) }]);
        notes.add(Id(0), 3, vec![Note::Alive, Note::Dead]);
        let dead = Event::Checked { id: Id(0), run: 3, verdict: Verdict::Dead };
        let events = [Event::Petted { id: Id(0) }, dead];
        assert_eq!(notes.take_lasting(Id(0), now(1_200)), events, "in their order");
        notes.add(Id(0), 3, vec![Note::Stopping]);
        assert_eq!(notes.take_lasting(Id(0), now(1_400)), [Event::Leaving { id: Id(0) }]);
        assert_eq!(notes.due(), None);
    }

    #[test]
    fn what_should_be_said_once_waits_where_it_is_said_again_and_again() {
        let (mut notes, now) = (Notes::default(), Moment::from_millis);
        let dead = |id| Event::Checked { id, run: 3, verdict: Verdict::Dead };
        for id in [Id(0), Id(1)] {
            notes.add(id, 3, vec![Note::Dead]);
            assert_eq!(notes.take_lasting(id, now(1_000)), [dead(id)], "no service waits for another");
        }
        notes.add(Id(0), 3, vec![Note::Alive, Note::Dead]);
        assert_eq!(notes.take_lasting(Id(0), now(1_199)), []);
        assert!(notes.due().is_some(), "it is in the next turn of all");
        assert_eq!(notes.take(), [Event::Petted { id: Id(0) }, dead(Id(0))]);
        notes.add(Id(0), 3, vec![Note::Dead]);
        assert_eq!(notes.take_lasting(Id(0), now(1_200)), [dead(Id(0))]);
    }

    #[test]
    fn what_a_run_said_does_not_count_for_the_next() {
        let mut notes = Notes::default();
        notes.add(Id(0), 1, vec![Note::Ready]);
        notes.add(Id(0), 2, vec![Note::Alive]);
        assert_eq!(notes.take(), [Event::Petted { id: Id(0) }]);
    }

    #[test]
    fn a_turn_of_notes_is_followed_by_a_pause_in_proportion() {
        let mut notes = Notes::default();
        assert_eq!(notes.due(), None);
        notes.add(Id(0), 1, vec![Note::Ready]);
        assert_eq!(notes.due(), Some(Moment::default()), "the first is dealt with at once");
        notes.rest(Moment::from_millis(100), Moment::from_millis(110));
        assert_eq!(notes.due(), Some(Moment::from_millis(150)));
        notes.rest(Moment::from_millis(100), Moment::from_millis(900));
        assert_eq!(notes.due(), Some(Moment::from_millis(1100)), "bounded");
    }
}
