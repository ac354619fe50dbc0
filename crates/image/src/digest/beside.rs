//! Hashing beside the work: a thread hashes a buffer while its owner reads and writes the next. A hash costs about as much as
//! reading and writing the same bytes.
//!
//! Its law: the hash sees the very buffer that its owner used, in order, and nothing else.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use sha2::{Digest as _, Sha256};

use super::Digest;

/// A digest that grows in a thread of its own.
#[derive(Debug)]
pub struct Beside {
    to_hash: SyncSender<Filled>,
    hashed: Receiver<Vec<u8>>,
    hash: JoinHandle<Sha256>,
    buffers: usize,
}

/// A buffer, and how many bytes at its front count.
type Filled = (Vec<u8>, usize);

/// Buffers on their way: one is filled, one waits, one is hashed.
const BUFFERS: usize = 3;

/// The size of each: small enough for a processor's cache, large enough that handing over costs nothing.
const BUFFER: usize = 256 * 1024;

impl Beside {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (to_hash, waiting) = mpsc::sync_channel::<Filled>(BUFFERS);
        let (give_back, hashed) = mpsc::sync_channel(BUFFERS);
        let work = move || {
            let mut hash = Sha256::new();
            for (buffer, count) in waiting {
                hash.update(buffer.get(..count).unwrap_or_default());
                // Nobody takes it back once all has been read.
                drop(give_back.send(buffer));
            }
            hash
        };
        let hash = thread::Builder::new().name("digest".to_owned()).spawn(work)?;
        Ok(Self { to_hash, hashed, hash, buffers: 0 })
    }

    /// A buffer to fill: waits until one has been hashed when all are on their way.
    pub fn buffer(&mut self) -> io::Result<Vec<u8>> {
        if self.buffers < BUFFERS {
            self.buffers = self.buffers.saturating_add(1);
            return Ok(vec![0; BUFFER]);
        }
        self.hashed.recv().map_err(|_| ended())
    }

    /// Hashes the first `count` bytes of `buffer`.
    pub fn pass(&self, buffer: Vec<u8>, count: usize) -> io::Result<()> {
        self.to_hash.send((buffer, count)).map_err(|_| ended())
    }

    /// The digest of all that passed.
    pub fn finish(self) -> io::Result<Digest> {
        drop(self.to_hash);
        let hash = self.hash.join().map_err(|_| ended())?;
        Ok(Digest(hash.finalize().into()))
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread that hashes has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_beside_has_the_same_digest() {
        for pieces in [0, 1, BUFFERS, 40] {
            let mut beside = Beside::start().unwrap();
            let mut all = Vec::new();
            for number in 0..pieces {
                let mut buffer = beside.buffer().unwrap();
                buffer.fill(u8::try_from(number).unwrap());
                all.extend_from_slice(&buffer[..BUFFER - number]);
                beside.pass(buffer, BUFFER - number).unwrap();
            }
            assert_eq!(beside.finish().unwrap(), Digest::of(&all), "{pieces} pieces");
        }
    }
}
