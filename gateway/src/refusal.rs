//! Why a connection is refused, and how often that is reported.
//!
//! Invariant: peers outside can cause any number of refusals, but only a bounded number of log lines.

use std::io;
use std::time::Duration;

use cloister_wire::frame::FrameError;
use cloister_wire::hello::VERSION;
use tokio::time::Instant;

/// The time over which lines are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Lines per window: enough to report each kind of refusal once.
const LINES: u32 = 5;

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The host requested a drain, or the enclave is stopping.
    #[error("the enclave accepts no new connections: it is draining")]
    Draining,
    /// The port's connection limit is reached.
    #[error("connection limit of ingress port {0} reached")]
    Full(u16),
    /// The host did not send a header in time.
    #[error("the host sent no header in time")]
    NoHeader,
    /// The connection was closed before the header was complete.
    #[error("the connection was closed before the header was complete: {0}")]
    ClosedEarly(io::Error),
    /// The header is not valid.
    #[error("invalid header: {0}")]
    Header(#[from] FrameError),
    /// The host uses another version of the protocol.
    #[error("the host uses version {0} of the ingress protocol, this gateway uses version {VERSION}")]
    Version(u32),
    /// The port leads to nothing.
    #[error(
        "ingress port {0} leads to nothing: it is not in the manifest, or this platform has no attestation server"
    )]
    Port(u16),
    /// The terminator cannot be given the connection.
    #[error("ingress port {port}: cannot pass the connection to the terminator: {error}")]
    Terminator {
        /// The ingress port.
        port: u16,
        /// The cause.
        error: io::Error,
    },
    /// The service cannot be reached.
    #[error("ingress port {port}: cannot connect to the service on TCP port {target}: {error}")]
    Service {
        /// The ingress port.
        port: u16,
        /// The port on which the service is expected to listen.
        target: u16,
        /// The cause.
        error: io::Error,
    },
}

/// Limits the lines about refusals.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    since: Option<Instant>,
    logged: u32,
    suppressed: u64,
}

impl Quota {
    /// The line for a refusal, if it is within the limit. The next line after suppressed ones contains their number.
    pub(crate) fn line(&mut self, now: Instant, refusal: &Refusal) -> Option<String> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.logged = 0;
        }
        if self.logged >= LINES {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.logged = self.logged.saturating_add(1);
        let line = match std::mem::take(&mut self.suppressed) {
            0 => format!("ingress: refused a connection: {refusal}"),
            more => format!("ingress: refused a connection ({more} earlier refusals suppressed): {refusal}"),
        };
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_causes_a_few_lines_and_a_count() {
        let mut quota = Quota::default();
        let start = Instant::now();
        let lines = (0..1000).filter(|_| quota.line(start, &Refusal::Port(81)).is_some()).count();
        assert_eq!(lines, 5);
        assert_eq!(
            quota.line(start + WINDOW, &Refusal::Full(80)).unwrap(),
            "ingress: refused a connection (995 earlier refusals suppressed): connection limit of ingress port 80 reached"
        );
        assert_eq!(
            quota.line(start + WINDOW, &Refusal::Draining).unwrap(),
            "ingress: refused a connection: the enclave accepts no new connections: it is draining"
        );
    }
}
