//! What verified evidence states, on each platform.
//!
//! Invariant: each form contains a value that exists only if every check of its platform's table passed.

use cloister_evidence::nitro::Document;
use cloister_evidence::{Verdict, Verified, snp, tdx};

/// What verified evidence states.
#[derive(Clone, Debug)]
pub enum Statement {
    /// A document of AWS Nitro, or of the development platform `virtual`.
    Document(Box<Verified<Document>>),
    /// A report of AMD SEV-SNP.
    Report(Box<Verified<snp::Guest>>),
    /// A quote of Intel TDX.
    Quote(Box<Verified<tdx::Guest>>),
}

impl Statement {
    /// The checks that passed.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        match self {
            Self::Document(document) => document.verdict(),
            Self::Report(report) => report.verdict(),
            Self::Quote(quote) => quote.verdict(),
        }
    }

    /// The platform: `nitro`, `tdx`, `snp` or `virtual`.
    #[must_use]
    pub fn platform(&self) -> &'static str {
        self.verdict().platform
    }

    /// The document, if it is one.
    #[must_use]
    pub fn document(&self) -> Option<&Document> {
        if let Self::Document(document) = self { Some(document.value()) } else { None }
    }

    /// The report, if it is one.
    #[must_use]
    pub fn report(&self) -> Option<&snp::Guest> {
        if let Self::Report(report) = self { Some(report.value()) } else { None }
    }

    /// The quote, if it is one.
    #[must_use]
    pub fn quote(&self) -> Option<&tdx::Guest> {
        if let Self::Quote(quote) = self { Some(quote.value()) } else { None }
    }
}
