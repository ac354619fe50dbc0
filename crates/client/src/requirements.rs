//! What a caller requires of an enclave, and the verification.
//!
//! Invariant: nothing is left unchecked: without measurements every enclave is refused, and nonce, key, event log and age are
//! always compared.

use cloister_evidence::eventlog::Log;
use cloister_evidence::nitro::{
    self, Binding, Document, Events, Expectation, Freshness, Measurements, Nonce, Platform, Roots,
};
use cloister_evidence::policy::Reference;
use cloister_evidence::{Verdict, Verified};
use rustls::CommonState;

use crate::certificate::Parts;
use crate::refusal::Refusal;

/// What the caller requires of an enclave.
#[derive(Clone, Debug)]
pub struct Requirements {
    /// The measurements of the images that are accepted. Without any, every enclave is refused.
    pub measurements: Vec<Reference>,
    /// The trusted roots. Default: AWS's, for Nitro.
    pub roots: Roots,
    /// Whether the development platform `virtual` is accepted, which no hardware protects and whose root must be among
    /// [`Self::roots`]. Default: no.
    pub allow_virtual: bool,
    /// How old the evidence may be, in seconds. Default: 60. A server presents a certificate for 45 s, so less than that
    /// refuses some connections.
    pub freshness: Freshness,
    /// What the enclave has recorded since its launch. Default: the end of the boot and nothing else.
    pub log: Log,
}

impl Requirements {
    /// An enclave that runs one of these images, on AWS Nitro, with the defaults of the other fields.
    #[must_use]
    pub fn of(measurements: Vec<Reference>) -> Self {
        Self {
            measurements,
            roots: Roots::aws(),
            allow_virtual: false,
            freshness: Freshness::default(),
            log: Log::booted(),
        }
    }

    /// Verifies the evidence in a certificate in DER, at `now` in seconds since 1970.
    ///
    /// This proves whose key is in the certificate, not that the other end of a connection has it: that is the handshake's part
    /// ([`crate::Verifier`]).
    ///
    /// # Errors
    /// If the certificate is not an enclave's, or a check of the evidence fails.
    pub fn certificate(&self, der: &[u8], now: u64) -> Result<Verified<Document>, Refusal> {
        let parts = Parts::read(der)?;
        let carried = parts.carried()?;
        let platform =
            [Platform::Nitro, Platform::Virtual].into_iter().find(|p| p.name() == carried.platform);
        let Some(platform) = platform else { return Err(Refusal::Platform(carried.platform)) };
        let verified = self.evidence(&carried.evidence, parts.serial()?, &parts.public_key, now);
        let verified = verified.map_err(Refusal::Evidence)?;
        if verified.value().platform != platform {
            return Err(Refusal::Certificate("its evidence is of another platform than it states"));
        }
        Ok(verified)
    }

    /// Verifies the evidence of an established connection's certificate again, for its verdict. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// As [`Self::certificate`], also if the evidence has become too old since the handshake; and if there is no certificate yet.
    pub fn connection(&self, connection: &CommonState, now: u64) -> Result<Verified<Document>, Refusal> {
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        self.certificate(certificate.ok_or(Refusal::Certificate("there is none"))?, now)
    }

    /// Verifies evidence for this nonce and key.
    pub(crate) fn evidence(
        &self,
        evidence: &[u8],
        nonce: &[u8],
        public_key: &[u8],
        now: u64,
    ) -> Result<Verified<Document>, Verdict> {
        let expectation = Expectation {
            allow_virtual: self.allow_virtual,
            freshness: self.freshness,
            nonce: Nonce::Equals(nonce),
            binding: Binding::Bound { public_key, user_data: &[] },
            measurements: Measurements::AnyOf(&self.measurements),
            events: Events::Log(&self.log),
        };
        nitro::verify(evidence, &self.roots, now, &expectation)
    }
}
