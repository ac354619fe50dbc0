//! Hashing in the background: a thread hashes one buffer while its owner reads and writes the next. Hashing costs about
//! as much as reading and writing the same bytes.
//!
//! Invariant: exactly the buffers that the owner used are hashed, in order.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use sha2::{Digest as _, Sha256};

use super::Digest;

/// A digest computed in a separate thread.
#[derive(Debug)]
pub struct BackgroundHash {
    to_hash: SyncSender<Filled>,
    hashed: Receiver<Vec<u8>>,
    hash: JoinHandle<Sha256>,
    buffers: usize,
}

/// A buffer and the number of bytes used at its start.
type Filled = (Vec<u8>, usize);

/// Buffers in circulation: one is filled, one waits, one is hashed.
const BUFFERS: usize = 3;

/// The size of each: small enough for a processor's cache, large enough to make the handover cheap.
const BUFFER: usize = 256 * 1024;

impl BackgroundHash {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (to_hash, waiting) = mpsc::sync_channel::<Filled>(BUFFERS);
        let (give_back, hashed) = mpsc::sync_channel(BUFFERS);
        let work = move || {
            let mut hash = Sha256::new();
            for (buffer, count) in waiting {
                hash.update(buffer.get(..count).unwrap_or_default());
                // The owner has dropped the receiver once everything has been read.
                drop(give_back.send(buffer));
            }
            hash
        };
        let hash = thread::Builder::new().name("digest".to_owned()).spawn(work)?;
        Ok(Self { to_hash, hashed, hash, buffers: 0 })
    }

    /// A buffer to fill. If all are in use, this waits until one has been hashed.
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

    /// The digest of all hashed bytes.
    pub fn finish(self) -> io::Result<Digest> {
        drop(self.to_hash);
        let hash = self.hash.join().map_err(|_| ended())?;
        Ok(Digest(hash.finalize().into()))
    }
}

fn ended() -> io::Error {
    io::Error::other("the hashing thread has terminated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashing_in_the_background_gives_the_same_digest() {
        for pieces in [0, 1, BUFFERS, 40] {
            let mut hash = BackgroundHash::start().unwrap();
            let mut all = Vec::new();
            for number in 0..pieces {
                let mut buffer = hash.buffer().unwrap();
                buffer.fill(u8::try_from(number).unwrap());
                all.extend_from_slice(&buffer[..BUFFER - number]);
                hash.pass(buffer, BUFFER - number).unwrap();
            }
            assert_eq!(hash.finish().unwrap(), Digest::of(&all), "{pieces} pieces");
        }
    }
}
