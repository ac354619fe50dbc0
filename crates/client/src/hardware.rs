//! What a caller requires of an enclave on AMD SEV-SNP or Intel TDX, and the verification of its report or quote.
//!
//! Invariant: the report data is the binding of this nonce, this key and this log, whatever the policy says; nothing is fetched, and
//! evidence is refused if what it is verified with is missing.

use cloister_evidence::{Verdict, Verified, snp, tdx};

use crate::refusal::Refusal;

/// What is required of an enclave on AMD SEV-SNP.
#[derive(Clone, Debug)]
pub struct SnpRequirements {
    /// The requirements on the report: accepted measurements, lowest TCB versions, and more. Its report data is not used: it is
    /// computed for each verification.
    pub policy: snp::Policy,
    /// The trusted root keys. Default: AMD's.
    pub roots: Vec<snp::Root>,
    /// Chains of certificates, one of which must be the report's: VCEK or VLEK, ASK or ASVK, ARK, in DER. A VCEK is for one
    /// processor and TCB version, so several hosts need several. Evidence that is requested with a nonce is verified with the
    /// certificates that its host passes along, too. Default: none.
    pub chains: Vec<Vec<Vec<u8>>>,
    /// AMD's lists of revoked certificates, in DER, with the product that each is for. The chain must pass every list of its product,
    /// so that one which was fetched earlier does not hide what a later one revokes. Without any for it, nothing is checked for
    /// revocation, unless the policy requires it. Default: none.
    pub crls: Vec<(snp::Product, Vec<u8>)>,
}

/// What is required of an enclave on Intel TDX.
#[derive(Clone, Debug)]
pub struct TdxRequirements {
    /// The requirements on the quote: accepted measurements and statuses of the platform, and more. Its report data is not used: it
    /// is computed for each verification.
    pub policy: tdx::Policy,
    /// The trusted root. Default: Intel's.
    pub root: tdx::Root<'static>,
    /// Intel's collateral, one of which must be that of the quote's platform. It expires after some 30 days. Of several for one platform,
    /// only the newest counts. Default: none, and every quote is refused.
    pub collateral: Vec<tdx::Collateral>,
}

impl SnpRequirements {
    /// A guest with one of these launch digests on one of these products, each with the lowest version of its components; the other
    /// requirements are those of [`snp::Policy::new`]. Nothing is accepted without any.
    #[must_use]
    pub fn of(measurements: Vec<[u8; 48]>, minimum_tcb: Vec<(snp::Product, snp::Tcb)>) -> Self {
        Self {
            policy: snp::Policy::new([0; 64], measurements, minimum_tcb),
            roots: snp::Root::AMD.into(),
            chains: Vec::new(),
            crls: Vec::new(),
        }
    }

    /// Verifies a report with the caller's certificates, or else with those of its host.
    pub(crate) fn verify(
        &self,
        report: &[u8],
        host: &[Vec<u8>],
        report_data: [u8; 64],
        now: u64,
    ) -> Result<Verified<snp::Guest>, Refusal> {
        let policy = snp::Policy { report_data, ..self.policy.clone() };
        let chains = self.chains.iter().map(Vec::as_slice).chain(Some(host).filter(|host| !host.is_empty()));
        first(chains.map(|chain| self.by_chain(report, chain, &policy, now))).unwrap_or(Err(
            Refusal::Missing(
                "certificates of the report's key, which neither the caller nor the host has passed",
            ),
        ))
    }

    /// Verifies a report with this chain, and with every list of the product that the chain turns out to be of.
    fn by_chain(
        &self,
        report: &[u8],
        chain: &[Vec<u8>],
        policy: &snp::Policy,
        now: u64,
    ) -> Result<Verified<snp::Guest>, Verdict> {
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let verify = |crl, policy: &_| {
            snp::verify(&snp::Evidence { report, chain: &chain, crl }, &self.roots, policy, now)
        };
        if self.crls.is_empty() {
            return verify(None, policy);
        }
        let guest = verify(None, &snp::Policy { require_crl: false, ..policy.clone() })?;
        let product = guest.value().product;
        let lists = self.crls.iter().filter(|(of, _)| *of == product).map(|(_, list)| Some(list.as_slice()));
        let verified = lists.map(|list| verify(list, policy)).collect::<Result<Vec<_>, _>>()?;
        verified.into_iter().next_back().map_or_else(|| verify(None, policy), Ok)
    }
}

impl TdxRequirements {
    /// A TD with one of these measurements on a platform that is up to date; the other requirements are those of
    /// [`tdx::Policy::new`]. Nothing is accepted without any.
    #[must_use]
    pub fn of(measurements: Vec<tdx::Measurements>, collateral: Vec<tdx::Collateral>) -> Self {
        Self { policy: tdx::Policy::new([0; 64], measurements), root: tdx::Root::INTEL, collateral }
    }

    /// Verifies a quote.
    pub(crate) fn verify(
        &self,
        quote: &[u8],
        report_data: [u8; 64],
        now: u64,
    ) -> Result<Verified<tdx::Guest>, Refusal> {
        let policy = tdx::Policy { report_data, ..self.policy.clone() };
        first(self.newest().map(|collateral| tdx::verify(quote, collateral, &self.root, &policy, now)))
            .unwrap_or(Err(Refusal::Missing("Intel's collateral, which the caller passes")))
    }

    /// The collateral without what is older than other for the same platform.
    fn newest(&self) -> impl Iterator<Item = &tdx::Collateral> {
        let all: Vec<_> = self.collateral.iter().map(|one| (one, one.edition())).collect();
        let outdated = |edition: &tdx::Edition| {
            all.iter().any(|(_, other)| other.as_ref().is_some_and(|other| other.replaces(edition)))
        };
        let newest = all.iter().filter(|(_, edition)| !edition.as_ref().is_some_and(outdated));
        newest.map(|(one, _)| *one).collect::<Vec<_>>().into_iter()
    }
}

/// What the first attempt has verified that succeeds, or the verdict of the one in which most checks passed. `None` if there is no
/// attempt.
fn first<T>(
    attempts: impl Iterator<Item = Result<Verified<T>, Verdict>>,
) -> Option<Result<Verified<T>, Refusal>> {
    let mut closest: Option<Verdict> = None;
    for attempt in attempts {
        match attempt {
            Ok(verified) => return Some(Ok(verified)),
            Err(verdict) => {
                if closest.as_ref().is_none_or(|closest| passed(closest) < passed(&verdict)) {
                    closest = Some(verdict);
                }
            }
        }
    }
    Some(Err(Refusal::Evidence(closest?)))
}

/// How many checks passed.
fn passed(verdict: &Verdict) -> usize {
    verdict.checks.iter().filter(|check| matches!(check.outcome, cloister_evidence::Outcome::Pass(_))).count()
}
