//! Cancelling a build.
//!
//! Invariant: a cancellation takes effect at the next write, and is an ordinary error from there: everything is cleaned
//! up.

use std::io::{self, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::BuildError;

/// A writer that fails once the build is cancelled.
#[derive(Debug)]
pub(super) struct Cancellable<'a, W> {
    out: W,
    stop: &'a AtomicBool,
}

/// Fails if the build was cancelled.
pub(super) fn check(stop: &AtomicBool) -> Result<(), BuildError> {
    if stop.load(Ordering::Relaxed) { Err(BuildError::Cancelled) } else { Ok(()) }
}

impl<'a, W> Cancellable<'a, W> {
    pub(super) const fn new(out: W, stop: &'a AtomicBool) -> Self {
        Self { out, stop }
    }

    pub(super) fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write> Write for Cancellable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not `Interrupted`: callers retry that.
        check(self.stop).map_err(io::Error::other)?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Seek> Seek for Cancellable<'_, W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.out.seek(to)
    }
}
