//! Verifying evidence for a person or a script: the platform is recognised by the evidence's form, and `cloister-evidence`
//! verifies it.
//!
//! Invariant: no platform is verified with less than its table of checks, and a requirement that does not apply to the evidence
//! is refused, not ignored.

mod files;
mod inputs;
mod policy;
mod remote;
mod required;
mod snp;
mod source;
mod tdx;

use cloister_evidence::Verdict;
use cloister_evidence::nitro::{self, Binding, Events, Expectation, Freshness, Measurements, Nonce, Roots};
use cloister_evidence::snp::REPORT_LEN;
use sha2::{Digest as _, Sha256};

use crate::cli::{Skip, Verify};
use crate::error::{Error, Result};
pub(crate) use files::read;
use files::{certificates, malformed};
use inputs::{Inputs, Missing};
use policy::Policy;
pub(crate) use required::Required;
pub(crate) use source::Source;

/// The platforms, by the form of their evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A document of AWS Nitro or of the platform virtual.
    Document,
    /// A report of SEV-SNP.
    Report,
    /// A quote of TDX.
    Quote,
}

impl Form {
    const fn name(self) -> &'static str {
        match self {
            Self::Document => "documents of AWS Nitro and of the platform virtual",
            Self::Report => "reports of SEV-SNP",
            Self::Quote => "quotes of TDX",
        }
    }

    /// Recognises evidence by its beginning and length. The verification checks all of it.
    fn of(bytes: &[u8]) -> Option<Self> {
        // Versions 4 and 5 with the type of TDX (`tee_type` 0x81): Intel TDX DCAP Quoting Library API, A.3.1.
        let quote = |version: u8| {
            bytes.starts_with(&[version, 0]) && bytes.get(4..8) == Some([0x81, 0, 0, 0].as_slice())
        };
        match bytes {
            // An array of four in CBOR, with or without the tag of COSE_Sign1 (RFC 9052, 2).
            [0x84, ..] | [0xd2, 0x84, ..] => Some(Self::Document),
            _ if bytes.len() == REPORT_LEN => Some(Self::Report),
            _ if quote(4) || quote(5) => Some(Self::Quote),
            _ => None,
        }
    }
}

/// The roots of the vendors. Those of documents are arguments of the command.
struct Vendors<'a> {
    amd: &'a [cloister_evidence::snp::Root],
    intel: cloister_evidence::tdx::Root<'a>,
}

/// Those that are built in.
const PINNED: Vendors<'static> =
    Vendors { amd: &cloister_evidence::snp::Root::AMD, intel: cloister_evidence::tdx::Root::INTEL };

/// Verifies evidence at the time `now`, in seconds since 1970.
pub(crate) fn verify(args: &Verify, source: &Source, now: u64) -> Result<Verdict> {
    verify_under(&PINNED, args, source, now)
}

fn verify_under(vendors: &Vendors<'_>, args: &Verify, source: &Source, now: u64) -> Result<Verdict> {
    let evidence = source.evidence();
    let policy = match &args.policy {
        Some(path) => Policy::from_json(&read(path)?)
            .map_err(|error| malformed(path, error).hint("docs/cli.md describes policies"))?,
        None => Policy::default(),
    };
    let Some(form) = Form::of(evidence) else {
        let kinds = "a document of AWS Nitro or of the platform virtual (COSE), a report of SEV-SNP or a quote of TDX";
        return Err(Error::operator(format!("{} contains no evidence", args.evidence.display()))
            .hint(format!("evidence is {kinds}")));
    };
    if let Some((option, _, _)) = options(args).iter().find(|(_, given, of)| *given && !of.contains(&form)) {
        return Err(Error::operator(format!("{option} does not apply to {}", form.name()))
            .hint("a requirement that is not checked must not be given: leave it out"));
    }
    if let Some((skip, option, _)) =
        skipped(args).into_iter().find(|(skip, _, given)| *given && args.skip.contains(skip))
    {
        let name = format!("{skip:?}").to_lowercase();
        return Err(Error::operator(format!("{option} cannot be required with --skip {name}"))
            .hint("a requirement that is not checked must not be given: leave out one of the two"));
    }
    match form {
        Form::Document => document(args, source, now),
        Form::Report => snp::verify(vendors.amd, args, &policy, source, now),
        Form::Quote => tdx::verify(&vendors.intel, args, &policy, source, now),
    }
}

/// The options that apply to some forms only, and whether they are given.
fn options(args: &Verify) -> [(&'static str, bool, &'static [Form]); 10] {
    use Form::{Document, Quote, Report};
    [
        ("--measurements", !args.measurements.is_empty(), &[Document]),
        ("--trust-root", !args.trust_root.is_empty(), &[Document]),
        ("--allow-virtual", args.allow_virtual, &[Document]),
        ("--max-age", args.max_age.is_some(), &[Document]),
        ("--skip", !args.skip.is_empty(), &[Document]),
        ("--policy", args.policy.is_some(), &[Report, Quote]),
        ("--report-data", args.report_data.is_some(), &[Report, Quote]),
        ("--certificate", !args.certificate.is_empty(), &[Report]),
        ("--crl", args.crl.is_some(), &[Report]),
        ("--collateral", args.collateral.is_some(), &[Quote]),
    ]
}

/// The options that are not checked if a check is skipped, and whether they are given.
fn skipped(args: &Verify) -> [(Skip, &'static str, bool); 5] {
    [
        (Skip::Nonce, "--nonce", args.nonce.is_some()),
        (Skip::Binding, "--public-key", args.public_key.is_some()),
        (Skip::Binding, "--user-data", args.user_data.is_some()),
        (Skip::Measurements, "--measurements", !args.measurements.is_empty()),
        (Skip::Events, "--event-log", args.event_log.is_some()),
    ]
}

fn document(args: &Verify, source: &Source, now: u64) -> Result<Verdict> {
    let mut missing = Missing::default();
    let inputs = Inputs::read(args, source)?;
    let references = inputs.references.as_slice();
    let nonce = inputs.nonce.as_ref().map_or(Nonce::Unchecked, |nonce| Nonce::Equals(nonce));
    if inputs.nonce.is_none() {
        missing.unless(args, Skip::Nonce, "--nonce HEX");
    }
    let binding = if inputs.nonce.is_none() || args.skip.contains(&Skip::Binding) {
        Binding::Unchecked
    } else {
        Binding::Bound { public_key: &inputs.public_key, user_data: &inputs.user_data }
    };
    let measurements = if references.is_empty() {
        missing.unless(args, Skip::Measurements, "--measurements FILE");
        Measurements::Unchecked
    } else {
        Measurements::AnyOf(references)
    };
    missing.none()?;
    let events = if args.skip.contains(&Skip::Events) { Events::Unchecked } else { Events::Log(&inputs.log) };
    let mut freshness = Freshness::default();
    if let Some(age) = args.max_age {
        freshness.max_age = age.as_secs();
    }
    let allow_virtual = args.allow_virtual;
    let expectation = Expectation { allow_virtual, freshness, nonce, binding, measurements, events };
    let mut roots = Roots::aws();
    for path in &args.trust_root {
        for certificate in certificates(path)? {
            roots = roots.with_development(Sha256::digest(&certificate).into());
        }
    }
    Ok(match nitro::verify(source.evidence(), &roots, now, &expectation) {
        Ok(verified) => verified.verdict().clone(),
        Err(verdict) => verdict,
    })
}

#[cfg(test)]
mod tests;
