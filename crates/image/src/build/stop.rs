//! Giving a build up in the middle.
//!
//! Its law: whoever asks for it is heard at the next write, and what follows is an ordinary fault: everything is cleaned up.

use std::io::{self, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::BuildFault;

/// Hands bytes on for as long as the build is wanted.
#[derive(Debug)]
pub(super) struct Wanted<'a, W> {
    out: W,
    stop: &'a AtomicBool,
}

/// A fault if the build is not wanted any more.
pub(super) fn check(stop: &AtomicBool) -> Result<(), BuildFault> {
    if stop.load(Ordering::Relaxed) { Err(BuildFault::GivenUp) } else { Ok(()) }
}

impl<'a, W> Wanted<'a, W> {
    pub(super) const fn new(out: W, stop: &'a AtomicBool) -> Self {
        Self { out, stop }
    }

    pub(super) fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write> Write for Wanted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not `Interrupted`: whoever writes would try again.
        check(self.stop).map_err(io::Error::other)?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Seek> Seek for Wanted<'_, W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.out.seek(to)
    }
}
