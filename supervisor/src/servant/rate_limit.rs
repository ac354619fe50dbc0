//! Limits how much a servant may send.
//!
//! Invariant: a servant that was compromised by the bytes it reads takes a bounded part of the supervisor's time and
//! log. Packets over the limit wait; lines over the limit are dropped.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Packets that are read without a pause, and the pause after them: three thousand per second, of which a correct
/// servant sends about ten.
const BURST: u32 = 64;
const PAUSE: Duration = Duration::from_millis(20);

/// Lines for the log, and the time over which they are counted. The gateway sends half as many.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// The rate limit of one servant.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    taken: u32,
    window: Option<Instant>,
    lines: u32,
}

impl RateLimit {
    /// Counts a packet, and waits if the servant has sent many in a row.
    pub(super) async fn packet(&mut self) {
        self.taken = self.taken.saturating_add(1);
        if self.taken >= BURST {
            self.taken = 0;
            sleep(PAUSE).await;
        }
    }

    /// Counts a line for the log, and returns whether it is within the limit.
    pub(super) fn line(&mut self, now: Instant) -> bool {
        if self.window.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            self.window = Some(now);
            self.lines = 0;
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= LINES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_packets_and_lines_is_bounded() {
        let mut rate = RateLimit::default();
        let start = Instant::now();
        for _ in 0..BURST * 10 {
            rate.packet().await;
        }
        assert!(start.elapsed() >= PAUSE * 10);
        let now = Instant::now();
        assert_eq!((0..1000).filter(|_| rate.line(now)).count(), 10);
        assert!(rate.line(now + WINDOW));
    }
}
