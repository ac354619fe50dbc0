//! The signals that end a command: SIGINT, SIGTERM and SIGHUP.
//!
//! Invariant: a signal that was ignored when the program started stays ignored. `nohup` and the `&` of a shell without job
//! control protect a program in this way (signal(7): an ignored signal stays ignored across execve(2)), and a handler
//! would remove that protection.

use std::fs;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{ErrorContext, Result};

/// Where the kernel lists the ignored signals of this process, one bit each (`proc_pid_status(5)`, `SigIgn`).
const STATUS: &str = "/proc/self/status";

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal was closed.
    Hangup,
}

/// Receives the signals that were not ignored when the program started.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    /// Installs the handlers. Must be called inside the event loop.
    pub(crate) fn listen() -> Result<Self> {
        // Without /proc the ignored signals are unknown; a signal that ends the command is the safer assumption.
        let ignored = ignored(&fs::read_to_string(STATUS).unwrap_or_default());
        let listen = |kind: SignalKind| {
            let number = u32::try_from(kind.as_raw_value()).unwrap_or_default();
            let is_ignored = ignored & 1_u64.unbounded_shl(number.saturating_sub(1)) != 0;
            let listening = (!is_ignored).then(|| signal(kind)).transpose();
            listening.context(|| "cannot install a signal handler".to_owned())
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Sent {
        tokio::select! {
            () = received(&mut self.interrupt) => Sent::Interrupt,
            () = received(&mut self.terminate) => Sent::Terminate,
            () = received(&mut self.hangup) => Sent::Hangup,
        }
    }

    /// Whether a signal has arrived already.
    pub(crate) async fn pending(&mut self) -> bool {
        // The event loop checks for arrived signals when a task yields.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            _ = self.next() => true,
            () = std::future::ready(()) => false,
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The mask of ignored signals in a `status` file.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read_from_the_status_of_a_process() {
        assert_eq!(ignored("Name:\tsh\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000000007\n"), 7);
        assert_eq!(ignored(""), 0);
        assert_eq!(ignored("SigIgn:\tnonsense\n"), 0);
    }
}
