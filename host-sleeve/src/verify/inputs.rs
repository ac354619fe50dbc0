//! The requirements that `verify` is given, for all platforms.
//!
//! Invariant: a requirement that is missing is an error of the operator, not a check that is left out.

use std::path::PathBuf;

use cloister_evidence::binding::Bound;
use cloister_evidence::eventlog::Log;
use cloister_evidence::policy::{IMAGE_REGISTERS, Reference};

use super::files::{malformed, read};
use super::source::Source;
use crate::cli::{Skip, Verify};
use crate::error::{Error, Result};

/// The files that several platforms need.
pub(super) struct Inputs {
    pub(super) references: Vec<Reference>,
    pub(super) nonce: Option<Vec<u8>>,
    pub(super) public_key: Vec<u8>,
    pub(super) user_data: Vec<u8>,
    pub(super) log: Log,
}

impl Inputs {
    pub(super) fn read(args: &Verify, source: &Source) -> Result<Self> {
        let optional = |path: &Option<PathBuf>| path.as_deref().map_or(Ok(Vec::new()), read);
        let reference = |path: &PathBuf| {
            let (name, bytes) = (path.display().to_string(), read(path)?);
            Reference::of_any_platform(&name, &bytes, &IMAGE_REGISTERS)
                .map_err(|error| malformed(path, error))
        };
        let references = args.measurements.iter().map(reference).collect::<Result<_>>()?;
        if let Source::Enclave(fetched) = source {
            let log = Log::parse(&fetched.events).map_err(|error| malformed(&args.evidence, error))?;
            let (nonce, public_key) = (Some(fetched.nonce.clone()), fetched.public_key.clone());
            return Ok(Self { references, nonce, public_key, user_data: Vec::new(), log });
        }
        let log = match &args.event_log {
            None => Log::booted(),
            Some(path) => Log::parse(&read(path)?).map_err(|error| malformed(path, error))?,
        };
        Ok(Self {
            references,
            nonce: args.nonce.as_ref().map(|nonce| nonce.0.clone()),
            public_key: optional(&args.public_key)?,
            user_data: optional(&args.user_data)?,
            log,
        })
    }

    /// The report data of a platform whose evidence contains nothing else that the enclave chooses.
    pub(super) fn report_data(&self, args: &Verify, missing: &mut Missing) -> Result<[u8; 64]> {
        if let Some(given) = &args.report_data {
            return <[u8; 64]>::try_from(given.0.as_slice()).map_err(|_| {
                Error::operator(format!("the report data has {} bytes, not 64", given.0.len()))
            });
        }
        let Some(nonce) = &self.nonce else {
            missing.0.push("--nonce HEX or --report-data HEX".to_owned());
            return Ok([0; 64]);
        };
        let bound = Bound {
            nonce,
            public_key: &self.public_key,
            events: &self.log.head(),
            user_data: &self.user_data,
        };
        bound
            .report_data()
            .map_err(|error| Error::operator("the report data cannot be computed").because(error))
    }
}

/// Requirements that the operator has neither given nor skipped.
#[derive(Debug, Default)]
pub(super) struct Missing(pub(super) Vec<String>);

impl Missing {
    pub(super) fn unless(&mut self, args: &Verify, skip: Skip, option: &str) {
        if !args.skip.contains(&skip) {
            let name = format!("{skip:?}").to_lowercase();
            self.0.push(format!("{option} (or --skip {name})"));
        }
    }

    pub(super) fn none(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let needed = self.0.join(", ");
        Err(Error::operator("the evidence would be verified only in part").hint(format!("add {needed}")))
    }
}
