//! Pipes loaned to streams at full throughput.
//!
//! Invariant: an idle connection holds no pipe, and all connections together hold at most [`MAX_PIPES`]. A stream that gets
//! none copies instead, which is slower but always possible.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use cloister_sys::splice;
use rustix::io::Errno;

/// Requested pipe capacity in bytes: several times the largest piece a socket returns at once. The kernel grants less when a
/// user already holds many pipe pages (`pipe-user-pages-soft`); a smaller pipe works too.
const SIZE: usize = 256 * 1024;

/// Maximum number of pipes on loan: 32 of [`SIZE`] take at most 8 MiB of kernel memory and 64 descriptors.
const MAX_PIPES: usize = 32;

/// Idle pipes kept for reuse: with the few CPUs of an enclave, more streams are rarely at full throughput at once.
const MAX_SPARE: usize = 4;

/// The pipes of one service, created on first use.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pool: Arc<Mutex<Pool>>,
}

impl Pipes {
    /// How many are on loan.
    #[cfg(test)]
    pub(crate) fn on_loan(&self) -> usize {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).on_loan
    }

    /// An empty pipe, or `None` if all are on loan or no descriptors are left.
    pub(crate) fn lend(&self) -> Option<Loan> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.on_loan >= MAX_PIPES {
            return None;
        }
        let pipe = match pool.spare.pop() {
            Some(pipe) => pipe,
            None => Pipe::new().ok()?,
        };
        pool.on_loan = pool.on_loan.saturating_add(1);
        Some(Loan { pipe: Some(pipe), inside: 0, pool: Arc::clone(&self.pool) })
    }
}

/// A pipe on loan. Dropping it returns the pipe to the pool, or closes it if bytes are left inside.
#[derive(Debug)]
pub(crate) struct Loan {
    pipe: Option<Pipe>,
    inside: usize,
    pool: Arc<Mutex<Pool>>,
}

impl Loan {
    /// Bytes inside.
    pub(crate) const fn inside(&self) -> usize {
        self.inside
    }

    /// The read end.
    pub(crate) fn reader(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.pipe.as_ref().map(|pipe| pipe.reader.as_fd()).ok_or(Errno::BADF)
    }

    /// The write end.
    pub(crate) fn writer(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.pipe.as_ref().map(|pipe| pipe.writer.as_fd()).ok_or(Errno::BADF)
    }

    /// Capacity in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.pipe.as_ref().map_or(0, |pipe| pipe.capacity)
    }

    /// Records that `count` bytes were written to it.
    pub(crate) const fn filled(&mut self, count: usize) {
        self.inside = self.inside.saturating_add(count);
    }

    /// Records that `count` bytes were read from it.
    pub(crate) const fn drained(&mut self, count: usize) {
        self.inside = self.inside.saturating_sub(count);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.on_loan = pool.on_loan.saturating_sub(1);
        if self.inside == 0 && pool.spare.len() < MAX_SPARE {
            pool.spare.extend(self.pipe.take());
        }
    }
}

#[derive(Debug, Default)]
struct Pool {
    spare: Vec<Pipe>,
    on_loan: usize,
}

#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    capacity: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = splice::pipe()?;
        // A smaller pipe does the same work in smaller pieces.
        let capacity = splice::set_pipe_size(&writer, SIZE).or_else(|_| splice::pipe_size(&writer))?;
        Ok(Self { reader, writer, capacity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pipe_is_reused_and_one_with_bytes_inside_is_not() {
        let pipes = Pipes::default();
        drop(pipes.lend().unwrap());
        assert_eq!(pipes.pool.lock().unwrap().spare.len(), 1);
        let mut dirty = pipes.lend().unwrap();
        dirty.filled(1);
        drop(dirty);
        assert_eq!(pipes.pool.lock().unwrap().spare.len(), 0);
    }

    #[test]
    fn running_out_of_pipes_is_not_an_error() {
        let pipes = Pipes::default();
        let loans: Vec<Loan> = std::iter::from_fn(|| pipes.lend()).collect();
        assert!(pipes.lend().is_none());
        let max = loans.len();
        drop(loans);
        // Only some idle pipes are kept, and as many as before can be loaned again.
        let spare = pipes.pool.lock().unwrap().spare.len();
        assert!((1..max).contains(&spare), "{spare} of {max}");
        assert_eq!(std::iter::from_fn(|| pipes.lend()).collect::<Vec<_>>().len(), max);
    }
}
