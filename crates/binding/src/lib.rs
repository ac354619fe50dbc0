//! What a platform's report data says: who asked, whose TLS key it is, and what happened since the launch.
//!
//! Invariant: two different sets of values never give the same report data, and report data chosen by a program inside
//! the enclave is never mistaken for it: it begins with [`MAGIC`], which [`is_reserved`] lets the enclave refuse to
//! everyone else.
//!
//! docs/evidence.md specifies the format. The attestor writes it, the verifier (`cloister-evidence`) compares it: both
//! use this crate, so that they cannot differ.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod certificate;
pub mod eventlog;

use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest as _, Sha384};

/// The first bytes of report data that Cloister computes. Followed by a SHA-384 digest it fills the 64 bytes that TDX
/// and SEV-SNP have for it.
pub const MAGIC: [u8; 16] = *b"cloister bound 1";

/// Bytes of report data: the size of the field in TDX and SEV-SNP. AWS Nitro has room for more.
pub const REPORT_DATA: usize = 64;

/// Separates this hash from every other one (domain separation).
const DOMAIN: &[u8] = b"cloister report data 1";

/// Minimum bytes of a nonce: 128 random bits do not repeat.
pub const NONCE_MIN: usize = 16;

/// Maximum bytes of a nonce: what the smallest platform interface takes in full (a TPM's qualifying data).
pub const NONCE_MAX: usize = 64;

/// Maximum bytes of a public key: the limit of a Nitro document's field.
pub const KEY_LIMIT: usize = 1024;

/// Maximum bytes of user data, which only its digest carries: a message, not a file.
pub const USER_DATA_LIMIT: usize = 64 << 10;

/// The values that report data binds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<'a> {
    /// The nonce of the party that requested the evidence: [`NONCE_MIN`] to [`NONCE_MAX`] bytes.
    pub nonce: &'a [u8],
    /// The public key of the enclave's TLS certificate, as `SubjectPublicKeyInfo` in DER. Empty if it has none.
    pub public_key: &'a [u8],
    /// The head of the event log ([`eventlog::Log::head`]).
    pub events: &'a [u8; 48],
    /// The application's own data. Empty if it has none.
    pub user_data: &'a [u8],
}

/// A value that cannot be bound. The caller must pass another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingError {
    /// The nonce has this many bytes.
    Nonce(usize),
    /// The public key has this many bytes.
    Key(usize),
    /// The user data has this many bytes.
    UserData(usize),
}

impl Bound<'_> {
    /// The report data: [`MAGIC`], and a digest over all values, each preceded by its length.
    pub fn report_data(&self) -> Result<[u8; REPORT_DATA], BindingError> {
        if !(NONCE_MIN..=NONCE_MAX).contains(&self.nonce.len()) {
            return Err(BindingError::Nonce(self.nonce.len()));
        }
        if self.public_key.len() > KEY_LIMIT {
            return Err(BindingError::Key(self.public_key.len()));
        }
        if self.user_data.len() > USER_DATA_LIMIT {
            return Err(BindingError::UserData(self.user_data.len()));
        }
        let mut hash = Sha384::new();
        for part in [DOMAIN, self.nonce, self.public_key, self.events, self.user_data] {
            hash.update(length(part));
            hash.update(part);
        }
        let mut report_data = [0; REPORT_DATA];
        let bytes: Vec<u8> = MAGIC.into_iter().chain(hash.finalize()).collect();
        for (byte, value) in report_data.iter_mut().zip(bytes) {
            *byte = value;
        }
        Ok(report_data)
    }
}

/// Whether report data looks like Cloister's own. A program inside the enclave that chooses its report data must not
/// choose such.
#[must_use]
pub fn is_reserved(report_data: &[u8]) -> bool {
    report_data.starts_with(&MAGIC)
}

/// The length of a part as it precedes the part: four bytes, the most significant first.
pub(crate) fn length(part: &[u8]) -> [u8; 4] {
    // Every part is bounded far below 4 GiB.
    u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes()
}

impl fmt::Display for BindingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nonce(length) => {
                write!(f, "the nonce has {length} bytes, the limits are {NONCE_MIN} and {NONCE_MAX}")
            }
            Self::Key(length) => write!(f, "the public key has {length} bytes, the limit is {KEY_LIMIT}"),
            Self::UserData(length) => {
                write!(f, "the user data has {length} bytes, the limit is {USER_DATA_LIMIT}")
            }
        }
    }
}

impl core::error::Error for BindingError {}

/// Hexadecimal digits.
#[cfg(test)]
fn digits(bytes: &[u8]) -> alloc::string::String {
    bytes.iter().fold(alloc::string::String::new(), |text, byte| text + &alloc::format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUND: Bound<'_> =
        Bound { nonce: b"0123456789abcdef", public_key: b"key", events: &[7; 48], user_data: b"data" };

    /// The digest is that of Python's `hashlib` over the bytes that docs/evidence.md lists.
    #[test]
    fn report_data_has_these_bytes() {
        let report_data = BOUND.report_data().unwrap();
        assert_eq!(&report_data[..16], b"cloister bound 1");
        assert_eq!(digits(&report_data[16..]), GOLDEN);
    }

    const GOLDEN: &str =
        "98a28f27e7dcc8dc0596fcf652b01bc838a117479c7e1dc6c4735258e6eaa44b17efbc56fa44eda562109443d7115f6b";

    #[test]
    fn every_value_changes_the_report_data() {
        let others = [
            Bound { nonce: b"0123456789abcdeg", ..BOUND },
            Bound { public_key: b"", ..BOUND },
            Bound { events: &[8; 48], ..BOUND },
            Bound { user_data: b"date", ..BOUND },
        ];
        for other in others {
            assert_ne!(other.report_data(), BOUND.report_data(), "{other:?}");
        }
    }

    #[test]
    fn values_over_their_limits_are_refused() {
        let long = alloc::vec![0; USER_DATA_LIMIT + 1];
        let refused = [
            (Bound { nonce: &long[..15], ..BOUND }, BindingError::Nonce(15)),
            (Bound { nonce: &long[..65], ..BOUND }, BindingError::Nonce(65)),
            (Bound { public_key: &long[..1025], ..BOUND }, BindingError::Key(1025)),
            (Bound { user_data: &long, ..BOUND }, BindingError::UserData(USER_DATA_LIMIT + 1)),
        ];
        for (bound, error) in refused {
            assert_eq!(bound.report_data(), Err(error));
        }
        let longest = Bound { nonce: &long[..64], public_key: &long[..1024], user_data: &long[1..], ..BOUND };
        assert!(longest.report_data().is_ok());
    }

    #[test]
    fn computed_report_data_is_reserved_and_other_data_is_not() {
        assert!(is_reserved(&BOUND.report_data().unwrap()));
        assert!(is_reserved(&MAGIC));
        assert!(!is_reserved(b"cloister bound"));
        assert!(!is_reserved(&[0; 64]));
        assert!(!is_reserved(b""));
    }

    proptest! {
        #[test]
        fn a_byte_moved_between_two_values_changes_the_report_data(
            nonce in proptest::collection::vec(any::<u8>(), 17..=64),
            key in proptest::collection::vec(any::<u8>(), 1..100),
            user_data in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let bound = Bound { nonce: &nonce, public_key: &key, user_data: &user_data, ..BOUND };
            let (shorter, last) = nonce.split_at(nonce.len() - 1);
            let longer = [last, &key].concat();
            let moved = Bound { nonce: shorter, public_key: &longer, ..bound };
            prop_assert_ne!(bound.report_data(), moved.report_data());
            let (first, rest) = key.split_at(1);
            let joined = [rest, &user_data].concat();
            let moved = Bound { public_key: first, user_data: &joined, ..bound };
            prop_assert!(rest.is_empty() || bound.report_data() != moved.report_data());
        }
    }
}
