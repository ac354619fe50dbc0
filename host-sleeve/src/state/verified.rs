//! Whether an enclave was verified by its own sleeve.
//!
//! Invariant: `yes` is written only after evidence of this launch has passed every check against the expected measurements.

use serde::{Deserialize, Serialize};

/// Whether the sleeve has verified its enclave. That it is ready says nothing about it, and the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verified {
    /// It has.
    Yes,
    /// It has not, or not yet.
    #[default]
    No,
    /// It cannot: the image has no attestation port, or what the machine signs proves nothing to anyone.
    Impossible,
}

impl Verified {
    /// As `ps` shows it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Impossible => "impossible",
        }
    }
}
