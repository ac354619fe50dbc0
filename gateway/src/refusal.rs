//! Why a connection is refused, and how often that is said.
//!
//! Its law: whoever sits outside can cause as many refusals as it likes, and not as many lines.

use std::io;
use std::time::Duration;

use cloister_wire::frame::FrameError;
use cloister_wire::hello::VERSION;
use tokio::time::Instant;

/// The time over which lines are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Lines a window: enough to see each kind of fault once.
const LINES: u32 = 5;

/// Why a connection is not carried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The host asked to drain, or the enclave is stopping.
    #[error("the enclave takes no new connections: it is draining")]
    Draining,
    /// The port's cap is reached.
    #[error("connection limit of ingress port {0} reached")]
    Full(u16),
    /// The host did not say in time what it wants.
    #[error("the host sent no header in time")]
    Silent,
    /// The host went away in the middle of the header.
    #[error("the host broke off before its header was complete: {0}")]
    BrokenOff(io::Error),
    /// The host does not speak this channel.
    #[error("the header cannot be read: {0}")]
    Header(#[from] FrameError),
    /// The host speaks another version of it.
    #[error("the host speaks version {0} of ingress, this side speaks version {VERSION}")]
    Version(u32),
    /// The manifest names no such port.
    #[error("the manifest has no ingress port {0}")]
    Port(u16),
    /// The service does not answer.
    #[error("ingress port {port}: no service answers on TCP port {target}: {error}")]
    Service {
        /// The port the host asked for.
        port: u16,
        /// Where the service should listen.
        target: u16,
        /// What the system says.
        error: io::Error,
    },
}

/// How many refusals have been said lately.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Quota {
    /// The line for a refusal, if there may be one now. The first line of a window tells how many went unsaid.
    pub(crate) fn say(&mut self, now: Instant, refusal: &Refusal) -> Option<String> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.said = 0;
        }
        if self.said >= LINES {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.said = self.said.saturating_add(1);
        let line = match std::mem::take(&mut self.unsaid) {
            0 => format!("ingress: refused a connection: {refusal}"),
            more => format!("ingress: refused a connection, and {more} more before it: {refusal}"),
        };
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_few_lines_and_a_number() {
        let mut quota = Quota::default();
        let start = Instant::now();
        let lines = (0..1000).filter(|_| quota.say(start, &Refusal::Port(81)).is_some()).count();
        assert_eq!(lines, 5);
        assert_eq!(
            quota.say(start + WINDOW, &Refusal::Full(80)).unwrap(),
            "ingress: refused a connection, and 995 more before it: connection limit of ingress port 80 reached"
        );
        assert_eq!(
            quota.say(start + WINDOW, &Refusal::Draining).unwrap(),
            "ingress: refused a connection: the enclave takes no new connections: it is draining"
        );
    }
}
