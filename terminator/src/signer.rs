//! Signatures of handshakes, which the attestor makes: this program has no key.
//!
//! Invariant: a signature is waited for within a limit, and at most half of the time is spent so. The TLS library asks for it in
//! the middle of a handshake and cannot do anything else meanwhile; the attestor answers in less than a millisecond unless it is being
//! restarted.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_wire::packet::{decode, encode};
use cloister_wire::terminator::{Sign, Signed};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::sign::SigningKey;
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

use crate::id;

/// How long a signature may take. An attestor that was killed is back after less than a second, unless it was killed often.
const LIMIT: Duration = Duration::from_millis(500);

/// After an attestor did not answer, handshakes fail at once for so long: meanwhile other connections are served.
const SILENCE: Duration = LIMIT;

/// After this time the request is repeated: the attestor that received it may be gone.
const REPEAT: Duration = Duration::from_millis(100);

/// Bytes of a reply: an ID and a signature in base64.
const REPLY: usize = 512;

/// The attestor's key, as the TLS library uses it.
#[derive(Clone, Debug)]
pub(crate) struct Signer(Arc<Mutex<Pair>>);

#[derive(Debug)]
struct Pair {
    end: OwnedFd,
    /// The ID of the last request.
    last: u64,
    /// Until when no signature is requested.
    silent: Option<Instant>,
}

impl Signer {
    /// Uses this pair.
    ///
    /// # Errors
    /// If the kernel's generator fails.
    pub(crate) fn new(end: OwnedFd) -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Pair { end, last: id::first()?, silent: None }))))
    }
}

impl SigningKey for Signer {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| Box::new(self.clone()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl From<Box<Signer>> for Box<dyn rustls::sign::Signer> {
    fn from(signer: Box<Signer>) -> Self {
        signer
    }
}

impl rustls::sign::Signer for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut pair = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pair.sign(message).map_err(|error| Error::General(format!("no signature of the handshake: {error}")))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl Pair {
    fn sign(&mut self, content: &[u8]) -> io::Result<Vec<u8>> {
        if self.silent.is_some_and(|until| Instant::now() < until) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.silent = None;
        self.last = self.last.wrapping_add(1);
        let request = Sign { id: self.last, content: STANDARD.encode(content) };
        let request = encode(&request).map_err(io::Error::other)?;
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            // A full queue means that no attestor reads at the moment.
            match send(&self.end, &request, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) | Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(signed) = self.reply()? {
                let signature = signed.signature.ok_or_else(|| io::Error::other("it was refused"))?;
                return STANDARD.decode(signature).map_err(io::Error::other);
            }
        }
        self.silent = Some(Instant::now() + SILENCE);
        Err(io::ErrorKind::TimedOut.into())
    }

    /// The reply to the last request; `None` if it has not arrived within [`REPEAT`].
    fn reply(&self) -> io::Result<Option<Signed>> {
        let deadline = Instant::now() + REPEAT;
        let mut buffer = [0; REPLY];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let time = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.end, PollFlags::IN)], Some(&time)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            match recv(&self.end, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((count, _)) => {
                    let signed: Signed =
                        decode(buffer.get(..count).unwrap_or_default()).map_err(io::Error::other)?;
                    // Others are replies to requests that were repeated or given up.
                    if signed.id == self.last {
                        return Ok(Some(signed));
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
