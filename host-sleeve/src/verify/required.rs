//! What `connect --verify` requires of an enclave.
//!
//! Invariant: the files are read once, before the first connection.

use cloister_client::{Answer, IMAGE_REGISTERS, Log, Reference, Refusal, Requirements, Roots};
use sha2::{Digest as _, Sha256};

use super::files::{certificates, malformed, read};
use crate::cli::Connect;
use crate::error::Result;

/// The requirements.
#[derive(Clone, Debug)]
pub(crate) struct Required {
    requirements: Requirements,
    /// The event log. `None` for any that the evidence confirms.
    log: Option<Log>,
}

impl Required {
    /// Those of the arguments.
    pub(crate) fn read(args: &Connect) -> Result<Self> {
        let references = args.measurements.iter().map(|path| {
            let name = path.display().to_string();
            Reference::of_any_platform(&name, &read(path)?, &IMAGE_REGISTERS)
                .map_err(|error| malformed(path, error))
        });
        let mut requirements = Requirements::of(references.collect::<Result<_>>()?);
        requirements.allow_virtual = args.allow_virtual;
        requirements.roots = Roots::aws();
        for path in &args.trust_root {
            for certificate in certificates(path)? {
                requirements.roots = requirements.roots.with_development(Sha256::digest(&certificate).into());
            }
        }
        if let Some(age) = args.max_age {
            requirements.freshness.max_age = age.as_secs();
        }
        let parse = |path| Log::parse(&read(path)?).map_err(|error| malformed(path, error));
        let log = args.event_log.as_deref().map(parse).transpose()?;
        Ok(Self { requirements, log })
    }

    /// Verifies evidence, at `now` in seconds since 1970.
    pub(crate) fn check(&self, answer: &Answer, now: u64) -> std::result::Result<(), Refusal> {
        let mut requirements = self.requirements.clone();
        // A log that cannot be read is confirmed by nothing.
        requirements.log = self.log.clone().or_else(|| Log::parse(&answer.events).ok()).unwrap_or_default();
        answer.verify(&requirements, now).map(drop)
    }
}
