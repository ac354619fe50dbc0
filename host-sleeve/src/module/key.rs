//! Keys, and the random bytes that they are made of.
//!
//! Invariant: all of them come from the kernel's generator, which has been seeded before it returns any (`getrandom(2)`).

use std::io;

use p384::ecdsa::SigningKey;
use rustix::rand::{GetRandomFlags, getrandom};

/// Fills `bytes` with random ones of the host's kernel.
pub(super) fn random(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = getrandom(&mut *bytes, GetRandomFlags::empty())?;
        bytes = bytes.get_mut(count..).unwrap_or_default();
    }
    Ok(())
}

/// A new key.
pub(super) fn new_key() -> io::Result<SigningKey> {
    loop {
        let mut bytes = [0; 48];
        random(&mut bytes)?;
        // All but one in 2^190 numbers of this length are keys.
        if let Ok(key) = SigningKey::from_slice(&bytes) {
            return Ok(key);
        }
    }
}
