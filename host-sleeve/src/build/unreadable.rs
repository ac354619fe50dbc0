//! Why an enclave image that was just built cannot be read.
//!
//! Invariant: only the disk or another program can be responsible for that; anything else is a bug in Cloister.

use cloister_image::artifact::ArtifactFault;

use crate::error::Error;

/// The error for an enclave image that was just built and cannot be read.
pub(super) fn unreadable(fault: ArtifactFault) -> Error {
    let what = "the new enclave image cannot be read";
    match fault {
        ArtifactFault::Host { .. } | ArtifactFault::Changed { .. } | ArtifactFault::Occupied(_) => {
            Error::host(what).because(fault)
        }
        ArtifactFault::Layout { .. }
        | ArtifactFault::NotAnEnclave(_)
        | ArtifactFault::NoPart { .. }
        | ArtifactFault::Document { .. } => Error::internal(what).because(fault),
    }
}
