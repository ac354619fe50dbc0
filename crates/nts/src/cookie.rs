//! Cookies: the server's state, which the client keeps and understands nothing of.
//!
//! Invariant: a cookie is sent once, so that two requests cannot be linked by it, and every cookie fits in a request.

use std::collections::VecDeque;
use std::fmt;

/// How many cookies are kept. A server sends eight (RFC 8915, section 4), so that seven answers may be lost.
pub const COOKIES: usize = 8;

/// The longest cookie in bytes. With this algorithm, chrony's have 100.
pub const COOKIE_LIMIT: usize = 256;

/// The shortest one: with its header, a field has 16 bytes at least (RFC 7822, section 3).
const COOKIE_MIN: usize = 12;

/// A cookie.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(Vec<u8>);

/// The unused cookies of an association.
#[derive(Clone, Debug)]
pub(crate) struct Jar(VecDeque<Cookie>);

impl Cookie {
    /// A cookie of these bytes; `None` if their number is not between 12 and [`COOKIE_LIMIT`] or not a multiple of four, as it is for
    /// the body of a field.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let fits = (COOKIE_MIN..=COOKIE_LIMIT).contains(&bytes.len()) && bytes.len().is_multiple_of(4);
        fits.then(|| Self(bytes.to_vec()))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cookie({} bytes)", self.0.len())
    }
}

impl Jar {
    /// A jar with the first [`COOKIES`] of these.
    pub(crate) fn new(cookies: impl IntoIterator<Item = Cookie>) -> Self {
        Self(cookies.into_iter().take(COOKIES).collect())
    }

    /// Adds cookies, as long as there is room.
    pub(crate) fn add(&mut self, cookies: impl IntoIterator<Item = Cookie>) {
        self.0.extend(cookies.into_iter().take(COOKIES.saturating_sub(self.0.len())));
    }

    /// The oldest one, which is no longer in the jar.
    pub(crate) fn take(&mut self) -> Option<Cookie> {
        self.0.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
