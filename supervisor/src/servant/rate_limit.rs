//! What a servant may send in which time.
//!
//! Its law: a servant that was taken over by those whose bytes it reads costs the supervisor a bounded part of its time and of its
//! log. What is over the bound waits, or is dropped and counted.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Packets that are taken without a pause, and the pause behind them: three thousand a second, of which an honest servant sends
/// some ten.
const BURST: u32 = 64;
const PAUSE: Duration = Duration::from_millis(20);

/// Lines for the log, and the time over which they are counted. The gateway sends half as many.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// The packets of one servant.
#[derive(Debug, Default)]
pub(super) struct Pace {
    taken: u32,
    window: Option<Instant>,
    lines: u32,
}

impl Pace {
    /// Waits where the servant has sent many packets in a row.
    pub(super) async fn packet(&mut self) {
        self.taken = self.taken.saturating_add(1);
        if self.taken >= BURST {
            self.taken = 0;
            sleep(PAUSE).await;
        }
    }

    /// Whether it may write one more line into the log.
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
        let mut pace = Pace::default();
        let start = Instant::now();
        for _ in 0..BURST * 10 {
            pace.packet().await;
        }
        assert!(start.elapsed() >= PAUSE * 10);
        let now = Instant::now();
        assert_eq!((0..1000).filter(|_| pace.line(now)).count(), 10);
        assert!(pace.line(now + WINDOW));
    }
}
