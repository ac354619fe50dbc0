//! Reports of SEV-SNP.
//!
//! Invariant: the certificates and the policy are the operator's; the root keys are those that the caller has pinned.

use cloister_evidence::Verdict;
use cloister_evidence::snp::{self, Evidence, Root};

use super::files::{certificates, malformed, read};
use super::inputs::{Inputs, Missing};
use super::policy::{Digits, MinimumTcb, Policy, Register, Snp};

use super::source::Source;
use crate::cli::Verify;
use crate::error::{Error, Result};

pub(super) fn verify(
    roots: &[Root],
    args: &Verify,
    policy: &Policy,
    source: &Source,
    now: u64,
) -> Result<Verdict> {
    let report = source.evidence();
    let mut missing = Missing::default();
    let report_data = Inputs::read(args, source)?.report_data(args, &mut missing)?;
    let mut chain = Vec::new();
    for path in &args.certificate {
        chain.extend(certificates(path)?);
    }
    if chain.is_empty() {
        chain = source.certificates().map_err(|error| malformed(&args.evidence, error))?;
    }
    if chain.is_empty() {
        missing.0.push("--certificate FILE".to_owned());
    }
    if policy.snp.is_none() {
        missing.0.push("--policy FILE with `snp`".to_owned());
    }
    missing.none()?;
    let Some(required) = &policy.snp else {
        return Err(Error::internal("a missing requirement was not reported"));
    };
    let wanted = wanted(required, report_data);
    let crl = args.crl.as_deref().map(read).transpose()?;
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let evidence = Evidence { report, chain: &chain, crl: crl.as_deref() };
    Ok(match snp::verify(&evidence, roots, &wanted, now) {
        Ok(verified) => verified.verdict().clone(),
        Err(verdict) => verdict,
    })
}

/// The requirements as the verification takes them.
pub(super) fn wanted(required: &Snp, report_data: [u8; 64]) -> snp::Policy {
    let values = |registers: &[Register]| registers.iter().map(|Digits(value)| *value).collect::<Vec<_>>();
    let minimum = required.minimum_tcb.iter().map(|MinimumTcb(product, tcb)| (*product, *tcb)).collect();
    let mut wanted = snp::Policy::new(report_data, values(&required.measurements), minimum);
    wanted.vmpl = required.vmpl;
    wanted.minimum_guest_svn = required.minimum_guest_svn;
    wanted.id_keys = required.id_keys.as_deref().map(values);
    wanted.author_keys = required.author_keys.as_deref().map(values);
    wanted.host_data = required.host_data.map(|Digits(value)| value);
    wanted.guest_policy_set |= required.guest_policy_set;
    wanted.guest_policy_clear |= required.guest_policy_clear;
    wanted.platform_set |= required.platform_set;
    wanted.platform_clear |= required.platform_clear;
    wanted.refuse_reserved = required.refuse_reserved;
    wanted.require_crl = required.require_crl;
    wanted
}
