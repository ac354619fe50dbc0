//! Pipes lent to streams in full flow.
//!
//! Its law: an idle connection holds no pipe, and all connections together hold at most [`MOST_PIPES`]. Whoever gets none
//! copies, which is slower and never fails.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use cloister_sys::splice;
use rustix::io::Errno;

/// Bytes a pipe is asked to hold: several of the largest pieces a socket gives at once. The kernel hands out less when a
/// user holds much (`pipe-user-pages-soft`), and less will do.
const SIZE: usize = 256 * 1024;

/// The most pipes lent at once: 32 of [`SIZE`] bind at most 8 MiB of kernel memory and 64 descriptors.
const MOST_PIPES: usize = 32;

/// Pipes kept for the next stream: more are rarely in full flow at once on the few CPUs of an enclave.
const MOST_KEPT: usize = 4;

/// The pipes of one service. They are made when the first stream flows.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    shelf: Arc<Mutex<Shelf>>,
}

impl Pipes {
    /// How many are lent.
    #[cfg(test)]
    pub(crate) fn lent(&self) -> usize {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).lent
    }

    /// An empty pipe, or `None` when all are lent or descriptors have run out.
    pub(crate) fn lend(&self) -> Option<Lent> {
        let mut home = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if home.lent >= MOST_PIPES {
            return None;
        }
        let pipe = match home.kept.pop() {
            Some(pipe) => pipe,
            None => Pipe::new().ok()?,
        };
        home.lent = home.lent.saturating_add(1);
        Some(Lent { pipe: Some(pipe), inside: 0, home: Arc::clone(&self.shelf) })
    }
}

/// A pipe on loan. It goes back when dropped; one with bytes inside is thrown away instead.
#[derive(Debug)]
pub(crate) struct Lent {
    pipe: Option<Pipe>,
    inside: usize,
    home: Arc<Mutex<Shelf>>,
}

impl Lent {
    /// Bytes inside.
    pub(crate) const fn inside(&self) -> usize {
        self.inside
    }

    /// Where bytes come out.
    pub(crate) fn reader(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.pipe.as_ref().map(|pipe| pipe.reader.as_fd()).ok_or(Errno::BADF)
    }

    /// Where bytes go in.
    pub(crate) fn writer(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.pipe.as_ref().map(|pipe| pipe.writer.as_fd()).ok_or(Errno::BADF)
    }

    /// Bytes that fit in when it is empty.
    pub(crate) fn capacity(&self) -> usize {
        self.pipe.as_ref().map_or(0, |pipe| pipe.capacity)
    }

    /// Notes that `count` bytes went in.
    pub(crate) const fn filled(&mut self, count: usize) {
        self.inside = self.inside.saturating_add(count);
    }

    /// Notes that `count` bytes came out.
    pub(crate) const fn drained(&mut self, count: usize) {
        self.inside = self.inside.saturating_sub(count);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        home.lent = home.lent.saturating_sub(1);
        if self.inside == 0 && home.kept.len() < MOST_KEPT {
            home.kept.extend(self.pipe.take());
        }
    }
}

#[derive(Debug, Default)]
struct Shelf {
    kept: Vec<Pipe>,
    lent: usize,
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
        // A smaller pipe does the same work in smaller steps.
        let capacity = splice::set_pipe_size(&writer, SIZE).or_else(|_| splice::pipe_size(&writer))?;
        Ok(Self { reader, writer, capacity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_pipe_is_lent_again_and_a_dirty_one_is_not() {
        let pipes = Pipes::default();
        drop(pipes.lend().unwrap());
        assert_eq!(pipes.shelf.lock().unwrap().kept.len(), 1);
        let mut dirty = pipes.lend().unwrap();
        dirty.filled(1);
        drop(dirty);
        assert_eq!(pipes.shelf.lock().unwrap().kept.len(), 0);
    }

    #[test]
    fn there_is_an_end_to_the_pipes_and_it_is_no_error() {
        let pipes = Pipes::default();
        let lent: Vec<Lent> = std::iter::from_fn(|| pipes.lend()).collect();
        assert!(pipes.lend().is_none());
        let most = lent.len();
        drop(lent);
        // What nobody uses is not kept for ever; as many as before can be lent again.
        let kept = pipes.shelf.lock().unwrap().kept.len();
        assert!((1..most).contains(&kept), "{kept} of {most}");
        assert_eq!(std::iter::from_fn(|| pipes.lend()).collect::<Vec<_>>().len(), most);
    }
}
