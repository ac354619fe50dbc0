//! Quotes of TDX.
//!
//! Invariant: the collateral and the policy are the operator's; the root key is the one that the caller has pinned.

use cloister_evidence::Verdict;
use cloister_evidence::tdx::{self, Collateral, Root};

use super::files::{malformed, read};
use super::inputs::{Inputs, Missing};
use super::policy::{Digits, Policy, Register, Status, Td, Tdx};

use super::source::Source;
use crate::cli::Verify;
use crate::error::{Error, Result};

pub(super) fn verify(
    root: &Root<'_>,
    args: &Verify,
    policy: &Policy,
    source: &Source,
    now: u64,
) -> Result<Verdict> {
    let quote = source.evidence();
    let mut missing = Missing::default();
    let report_data = Inputs::read(args, source)?.report_data(args, &mut missing)?;
    if args.collateral.is_none() {
        missing.0.push("--collateral FILE".to_owned());
    }
    if policy.tdx.is_none() {
        missing.0.push("--policy FILE with `tdx`".to_owned());
    }
    missing.none()?;
    let (Some(required), Some(path)) = (&policy.tdx, &args.collateral) else {
        return Err(Error::internal("a missing requirement was not reported"));
    };
    let collateral = Collateral::from_json(&read(path)?).map_err(|error| malformed(path, error))?;
    let wanted = wanted(required, report_data);
    Ok(match tdx::verify(quote, &collateral, root, &wanted, now) {
        Ok(verified) => verified.verdict().clone(),
        Err(verdict) => verdict,
    })
}

/// The requirements as the verification takes them.
pub(super) fn wanted(required: &Tdx, report_data: [u8; 64]) -> tdx::Policy {
    let mut wanted = tdx::Policy::new(report_data, required.measurements.iter().map(Td::value).collect());
    if let Some(statuses) = &required.statuses {
        wanted.statuses = statuses.iter().map(|Status(status)| *status).collect();
    }
    wanted.refused_advisories.clone_from(&required.refused_advisories);
    wanted.minimum_evaluation = required.minimum_evaluation;
    wanted.attributes_clear |= required.attributes_clear;
    let value = |register: Option<Register>| register.map(|Digits(value)| value);
    wanted.mr_config_id = value(required.mrconfigid);
    wanted.mr_owner = value(required.mrowner);
    wanted.mr_owner_config = value(required.mrownerconfig);
    wanted
}
