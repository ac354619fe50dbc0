//! What a caller requires of a document.
//!
//! Invariant: nothing is unchecked by omission: each part that is not required must be named as such.

use crate::eventlog::Log;
use crate::policy::Reference;

/// What the caller requires of a document.
#[derive(Clone, Debug)]
pub struct Expectation<'a> {
    /// Whether documents of the platform `virtual` are accepted, which nothing but a development key protects.
    pub allow_virtual: bool,
    /// How old a document may be.
    pub freshness: Freshness,
    /// The nonce.
    pub nonce: Nonce<'a>,
    /// What the report data binds.
    pub binding: Binding<'a>,
    /// The registers that the image determines.
    pub measurements: Measurements<'a>,
    /// The registers that the enclave has extended.
    pub events: Events<'a>,
}

/// How far a document's timestamp may be from the current time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Maximum seconds in the past.
    pub max_age: u64,
    /// Maximum seconds in the future: the difference between the two clocks.
    pub max_ahead: u64,
}

/// The required nonce.
#[derive(Clone, Copy, Debug)]
pub enum Nonce<'a> {
    /// This one, which the caller has drawn for this request: 16 to 64 bytes.
    Equals(&'a [u8]),
    /// Any or none. A recorded document can then be replayed until it is too old.
    Unchecked,
}

/// The required report data.
#[derive(Clone, Copy, Debug)]
pub enum Binding<'a> {
    /// Cloister's binding of the nonce, this key, the event log and this user data ([`crate::binding`]).
    Bound {
        /// The public key of the TLS connection, as `SubjectPublicKeyInfo` in DER. Empty for none.
        public_key: &'a [u8],
        /// The application's data. Empty for none.
        user_data: &'a [u8],
    },
    /// These fields, as a program inside the enclave has chosen them.
    Raw {
        /// The field `public_key`.
        public_key: Option<&'a [u8]>,
        /// The field `user_data`.
        user_data: Option<&'a [u8]>,
    },
    /// Any. Nothing then ties the document to a connection.
    Unchecked,
}

/// The required measurements.
#[derive(Clone, Copy, Debug)]
pub enum Measurements<'a> {
    /// Those of one of these images.
    AnyOf(&'a [Reference]),
    /// Any. The enclave may then run anything.
    Unchecked,
}

/// The required events.
#[derive(Clone, Copy, Debug)]
pub enum Events<'a> {
    /// Those of this log, which begins with the end of the boot.
    Log(&'a Log),
    /// Any. The boot may then be incomplete; images that Cloister has not built have other registers there.
    Unchecked,
}

impl Default for Freshness {
    /// A document is made for a request, and takes seconds at most; a minute covers slow networks. Clocks that NTP
    /// keeps differ by less than the rest.
    fn default() -> Self {
        Self { max_age: 60, max_ahead: 30 }
    }
}
