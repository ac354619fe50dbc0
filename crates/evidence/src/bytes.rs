//! Reads fixed layouts from untrusted bytes, and writes times for texts.
//!
//! Invariant: nothing here reads past the end of its input, panics, or allocates more than its input is long.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use core::time::Duration;

use x509_cert::der::DateTime;

/// The text of a check's outcome.
pub(crate) type Text = Cow<'static, str>;

/// A position in untrusted bytes. `None` means that they end too early.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub(crate) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    /// What has not been read yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Numbers with the lowest byte first, as in quotes.
#[cfg(feature = "tdx")]
impl<'a> Cursor<'a> {
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A slice whose length stands before it, as 32 bits.
    pub(crate) fn counted(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.slice(len)
    }
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// A time in seconds since 1970, as in RFC 3339. Times after the year 9999 are shown in seconds.
pub(crate) fn date(seconds: u64) -> String {
    DateTime::from_unix_duration(Duration::from_secs(seconds))
        .map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
