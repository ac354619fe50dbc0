//! From an answer to a reading: how far the clock is off, and by how much that may be wrong.
//!
//! Invariant: the offset's error is at most the bound, if the server's clock is as good as it states and the local clock was not set
//! between the two readings. How long the packets took in each direction is not assumed: all of the delay may have been on one side.

use std::time::Duration;

use cloister_clock::{Date, Offset};

use crate::answer::Answer;

/// How far a clock is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What must be added to the clock.
    pub offset: Offset,
    /// The error of the offset at most. The drift of the clock during the round trip is not in it.
    pub bound: Duration,
    /// The time from sending to arrival. An attacker who delays packets can move the offset by half of it.
    pub round_trip: Duration,
}

/// Why there is no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadingError {
    /// The clock ran backwards between sending and arrival.
    #[error("the clock was set back during the request")]
    Backwards,
    /// The server states that it sent the answer before it got the request, or that it took longer than the whole round trip.
    #[error("the server's timestamps contradict the round trip")]
    Contradiction,
    /// The server states a date before 2026 or after 2045.
    #[error("the server states an implausible date: {} s after 1970", .0.seconds())]
    Implausible(Date),
}

impl Answer {
    /// The reading by readings of the local clock, before the request was sent and after the answer arrived.
    ///
    /// # Errors
    /// If the four dates cannot be those of one exchange, or the server's is implausible.
    pub fn reading(&self, sent: Date, arrived: Date) -> Result<Reading, ReadingError> {
        let date = |timestamp: crate::Timestamp| timestamp.date().ok_or(ReadingError::Contradiction);
        let (received, transmitted) = (date(self.received)?, date(self.transmitted)?);
        if let Some(date) = [received, transmitted].into_iter().find(|date| !date.is_plausible()) {
            return Err(ReadingError::Implausible(date));
        }
        if arrived < sent {
            return Err(ReadingError::Backwards);
        }
        let round_trip = arrived.since(sent).magnitude();
        let held = if transmitted < received { None } else { Some(transmitted.since(received).magnitude()) };
        let delay = held.and_then(|held| round_trip.checked_sub(held)).ok_or(ReadingError::Contradiction)?;
        let ahead = received.since(sent).nanos();
        let offset = Offset::from_nanos(ahead.midpoint(transmitted.since(arrived).nanos()));
        // Half the delay, and a nanosecond for what was rounded.
        let half = (delay / 2).saturating_add(Duration::from_nanos(1));
        Ok(Reading { offset, bound: half.saturating_add(self.error), round_trip })
    }
}
