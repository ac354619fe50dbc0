//! The state that must survive a crash of the supervisor, besides the logs, in a memfd that init holds.
//!
//! Invariant: there are two slots and the older one is overwritten, so a crash in the middle of a write leaves the
//! previous state intact. A slot with a wrong checksum counts as empty.
//!
//! ```text
//! slot:  u64 number | u64 checksum of the body (FNV-1a) | u32 length | body (JSON)
//! ```

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use cloister_wire::causes::REPORT;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a slot: sixty services with texts of maximum length need about forty thousand.
const SLOT: u64 = 256 * 1024;

const HEADER: usize = 20;

/// Maximum length of a state in bytes; with [`HEADER`] it fills a slot.
const MAX_BODY: usize = 256 * 1024 - HEADER;

/// A state that cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum StashError {
    /// The memfd cannot be read or written.
    #[error("cannot read or write the stash")]
    Io(#[from] io::Error),
    /// The state cannot be serialized as JSON.
    #[error("internal error: cannot serialize the state; {REPORT}")]
    Format(#[from] serde_json::Error),
    /// It is longer than a slot.
    #[error("internal error: the state has {0} bytes, the limit is {MAX_BODY}; {REPORT}")]
    TooLong(usize),
}

/// A value preserved across crashes.
#[derive(Debug)]
pub struct Stash<T> {
    file: File,
    number: u64,
    body: Vec<u8>,
    kind: PhantomData<fn(T)>,
}

impl<T: Serialize + DeserializeOwned> Stash<T> {
    /// Continues with `memfd`, and returns the value that was stored there last, if any.
    #[must_use]
    pub fn resume(memfd: OwnedFd) -> (Self, Option<T>) {
        let file = File::from(memfd);
        let slots = [0, SLOT].into_iter().filter_map(|at| read_slot(&file, at));
        let newest = slots.max_by_key(|(number, _)| *number);
        let (number, body) = newest.unwrap_or_default();
        let value = serde_json::from_slice(&body).ok();
        (Self { file, number, body, kind: PhantomData }, value)
    }

    /// Stores `value`. Storing the same value again costs nothing.
    pub fn save(&mut self, value: &T) -> Result<(), StashError> {
        let body = serde_json::to_vec(value)?;
        if body == self.body {
            return Ok(());
        }
        if body.len() > MAX_BODY {
            return Err(StashError::TooLong(body.len()));
        }
        let number = self.number.saturating_add(1);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let slot =
            [number.to_le_bytes().as_slice(), &checksum(&body).to_le_bytes(), &length.to_le_bytes(), &body]
                .concat();
        self.file.write_all_at(&slot, (number % 2).saturating_mul(SLOT))?;
        self.number = number;
        self.body = body;
        Ok(())
    }
}

fn read_slot(file: &File, at: u64) -> Option<(u64, Vec<u8>)> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, at).ok()?;
    let (number, rest) = header.split_first_chunk::<8>()?;
    let (sum, length) = rest.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    let length = usize::try_from(length).ok().filter(|n| *n <= MAX_BODY)?;
    let mut body = vec![0; length];
    file.read_exact_at(&mut body, at.saturating_add(u64::try_from(HEADER).ok()?)).ok()?;
    (checksum(&body) == u64::from_le_bytes(*sum)).then(|| (u64::from_le_bytes(*number), body))
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): it detects a torn write; no attacker writes here.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};

    fn memfd() -> OwnedFd {
        memfd_create("stash", MemfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn a_successor_finds_the_state_that_was_saved_last() {
        let fd = memfd();
        let (mut stash, found) = Stash::<Vec<u32>>::resume(fd.try_clone().unwrap());
        assert_eq!(found, None);
        for round in 0..5 {
            stash.save(&vec![round]).unwrap();
        }
        assert_eq!(Stash::<Vec<u32>>::resume(fd).1, Some(vec![4]));
    }

    #[test]
    fn a_torn_write_leaves_the_previous_state() {
        let fd = memfd();
        let (mut stash, _) = Stash::<String>::resume(fd.try_clone().unwrap());
        stash.save(&"first".to_owned()).unwrap();
        stash.save(&"second".to_owned()).unwrap();
        let at = SLOT * (stash.number % 2) + 22;
        stash.file.write_all_at(b"X", at).unwrap();
        assert_eq!(Stash::<String>::resume(fd).1, Some("first".to_owned()));
    }

    #[test]
    fn a_state_that_does_not_fit_is_refused() {
        let (mut stash, _) = Stash::<String>::resume(memfd());
        assert!(matches!(stash.save(&"x".repeat(MAX_BODY)), Err(StashError::TooLong(_))));
    }
}
