//! What a caller requires of an enclave, and the verification.
//!
//! Invariant: nothing is left unchecked: without measurements every enclave is refused, and nonce, key and event log are always
//! compared; so is the age where evidence has one, in documents of AWS Nitro and `virtual`. Evidence of SEV-SNP and TDX is accepted
//! only if the caller requires something of it.

use cloister_evidence::binding::Bound;
use cloister_evidence::eventlog::Log;
use cloister_evidence::nitro::{
    self, Binding, Document, Events, Expectation, Freshness, Measurements, Nonce, Roots,
};
use cloister_evidence::policy::Reference;
use cloister_evidence::{Verdict, Verified};
use rustls::CommonState;

use crate::certificate::Parts;
use crate::hardware::{SnpRequirements, TdxRequirements};
use crate::refusal::Refusal;
use crate::statement::Statement;

/// Characters of a platform's name that an error repeats: the longest name that a certificate can have.
const PLATFORM_LIMIT: usize = 16;

/// What the caller requires of an enclave.
#[derive(Clone, Debug)]
pub struct Requirements {
    /// The measurements of the images that are accepted on AWS Nitro and `virtual`. Without any, every enclave there is refused.
    pub measurements: Vec<Reference>,
    /// The trusted roots. Default: AWS's, for Nitro.
    pub roots: Roots,
    /// Whether the development platform `virtual` is accepted, which no hardware protects and whose root must be among
    /// [`Self::roots`]. Default: no.
    pub allow_virtual: bool,
    /// How old a document may be, in seconds. Default: 60. A server presents a certificate for 45 s, so less than that
    /// refuses some connections. Reports of SEV-SNP and quotes of TDX contain no time: only a nonce shows that they are of this moment
    /// ([`crate::Answer`]).
    pub freshness: Freshness,
    /// What the enclave has recorded since its launch. Default: the end of the boot and nothing else.
    pub log: Log,
    /// What is required of an enclave on AMD SEV-SNP. Default: nothing, and it is refused.
    pub snp: Option<SnpRequirements>,
    /// What is required of an enclave on Intel TDX. Default: nothing, and it is refused.
    pub tdx: Option<TdxRequirements>,
}

/// Evidence that a server has sent, and what it must bind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    /// The platform, as the server states it: it selects the verification and proves nothing.
    pub(crate) platform: &'a str,
    pub(crate) evidence: &'a [u8],
    /// The certificates that the host of a SEV-SNP report passes along, in the order of the chain.
    pub(crate) certificates: &'a [Vec<u8>],
    pub(crate) nonce: &'a [u8],
    pub(crate) public_key: &'a [u8],
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
            snp: None,
            tdx: None,
        }
    }

    /// Verifies the evidence in a certificate in DER, at `now` in seconds since 1970.
    ///
    /// This proves whose key is in the certificate, not that the other end of a connection has it: that is the handshake's part
    /// ([`crate::Verifier`]).
    ///
    /// # Errors
    /// If the certificate is not an enclave's, or a check of the evidence fails.
    pub fn certificate(&self, der: &[u8], now: u64) -> Result<Statement, Refusal> {
        let parts = Parts::read(der)?;
        let carried = parts.carried()?;
        let presented = Presented {
            platform: &carried.platform,
            evidence: &carried.evidence,
            certificates: &[],
            nonce: parts.serial()?,
            public_key: &parts.public_key,
        };
        let statement = self.evidence(&presented, now)?;
        if statement.platform() != carried.platform {
            return Err(Refusal::Certificate("its evidence is of another platform than it states"));
        }
        Ok(statement)
    }

    /// Verifies the evidence of an established connection's certificate again, for its verdict. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// As [`Self::certificate`], also if the evidence has become too old since the handshake; and if there is no certificate yet.
    pub fn connection(&self, connection: &CommonState, now: u64) -> Result<Statement, Refusal> {
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        self.certificate(certificate.ok_or(Refusal::Certificate("there is none"))?, now)
    }

    /// Verifies evidence for this nonce and key.
    pub(crate) fn evidence(&self, presented: &Presented<'_>, now: u64) -> Result<Statement, Refusal> {
        let Presented { evidence, certificates, .. } = *presented;
        match (presented.platform, &self.snp, &self.tdx) {
            ("nitro" | "virtual", _, _) => {
                let verified = self.document(presented, now).map_err(Refusal::Evidence)?;
                Ok(Statement::Document(Box::new(verified)))
            }
            ("snp", Some(snp), _) => {
                let verified = snp.verify(evidence, certificates, self.report_data(presented)?, now)?;
                Ok(Statement::Report(Box::new(verified)))
            }
            ("tdx", _, Some(tdx)) => {
                let verified = tdx.verify(evidence, self.report_data(presented)?, now)?;
                Ok(Statement::Quote(Box::new(verified)))
            }
            (other, _, _) => {
                let printable = other.chars().filter(|c| !c.is_control());
                Err(Refusal::Platform(printable.take(PLATFORM_LIMIT).collect()))
            }
        }
    }

    fn document(&self, presented: &Presented<'_>, now: u64) -> Result<Verified<Document>, Verdict> {
        let expectation = Expectation {
            allow_virtual: self.allow_virtual,
            freshness: self.freshness,
            nonce: Nonce::Equals(presented.nonce),
            binding: Binding::Bound { public_key: presented.public_key, user_data: &[] },
            measurements: Measurements::AnyOf(&self.measurements),
            events: Events::Log(&self.log),
        };
        nitro::verify(presented.evidence, &self.roots, now, &expectation)
    }

    /// The report data of SEV-SNP and TDX, which alone confirms the log there.
    fn report_data(&self, presented: &Presented<'_>) -> Result<[u8; 64], Refusal> {
        if !self.log.begins_with_the_boot() {
            return Err(Refusal::Log);
        }
        let Presented { nonce, public_key, .. } = *presented;
        let bound = Bound { nonce, public_key, events: &self.log.head(), user_data: &[] };
        Ok(bound.report_data()?)
    }
}
