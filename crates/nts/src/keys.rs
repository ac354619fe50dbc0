//! The keys that TLS exports, and sealing with them.
//!
//! Invariant: keys are not shown. A key is used in one direction, so that an answer cannot be made of a request.

use std::fmt;

use aes_siv::KeyInit;
use aes_siv::siv::Aes128Siv;

/// Bytes of a key of `AEAD_AES_SIV_CMAC_256` (RFC 5297, section 6.1).
pub const KEY: usize = 32;

/// The label of the exported keys (RFC 8915, section 5.1).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-network-time-security";

/// Who seals with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client.
    ToServer,
    /// The server.
    ToClient,
}

/// A key for one direction.
#[derive(Clone)]
pub struct Key([u8; KEY]);

/// The keys of one association.
#[derive(Clone, Debug)]
pub struct Keys {
    to_server: Key,
    to_client: Key,
}

impl Direction {
    /// The context of the exported key: the protocol (0, NTPv4), the algorithm (15, `AEAD_AES_SIV_CMAC_256`) and the direction
    /// (RFC 8915, section 5.1).
    #[must_use]
    pub const fn context(self) -> [u8; 5] {
        match self {
            Self::ToServer => [0, 0, 0, 15, 0],
            Self::ToClient => [0, 0, 0, 15, 1],
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A key of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; KEY]) -> Self {
        Self(bytes)
    }

    /// Encrypts `plain` and authenticates it with `associated` and `nonce`; `None` if AES-SIV refuses their lengths.
    #[must_use]
    pub fn seal(&self, associated: &[u8], nonce: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        // The nonce is the last component before the plaintext (RFC 5297, section 3).
        Aes128Siv::new(&self.0.into()).encrypt([associated, nonce], plain).ok()
    }

    /// The reverse of [`Self::seal`]; `None` if any of it was changed.
    #[must_use]
    pub fn open(&self, associated: &[u8], nonce: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        Aes128Siv::new(&self.0.into()).decrypt([associated, nonce], sealed).ok()
    }
}

impl Keys {
    /// The keys with which the client and the server seal.
    #[must_use]
    pub const fn new(to_server: Key, to_client: Key) -> Self {
        Self { to_server, to_client }
    }

    /// The keys of a TLS connection, by its exporter, which gets the label and the context.
    ///
    /// # Errors
    /// Those of the exporter.
    pub fn export<E>(exporter: impl Fn(&[u8], &[u8]) -> Result<[u8; KEY], E>) -> Result<Self, E> {
        let key = |direction: Direction| exporter(EXPORTER_LABEL, &direction.context()).map(Key);
        Ok(Self::new(key(Direction::ToServer)?, key(Direction::ToClient)?))
    }

    /// The key for one direction.
    #[must_use]
    pub const fn key(&self, direction: Direction) -> &Key {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}
