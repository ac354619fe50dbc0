//! Why an enclave image that was just built cannot be read.
//!
//! Invariant: only the disk or another program can be responsible for that; anything else is a bug in Cloister.

use cloister_image::artifact::ArtifactError;

use crate::error::Error;

/// The error for an enclave image that was just built and cannot be read.
pub(super) fn unreadable(error: ArtifactError) -> Error {
    let what = "the new enclave image cannot be read";
    match error {
        ArtifactError::Host { .. } | ArtifactError::Changed { .. } | ArtifactError::Occupied(_) => {
            Error::host(what).because(error)
        }
        ArtifactError::Layout { .. }
        | ArtifactError::NotAnEnclave(_)
        | ArtifactError::NoPart { .. }
        | ArtifactError::Document { .. } => Error::internal(what).because(error),
    }
}
