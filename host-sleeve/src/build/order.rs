//! What is to be built, and why it was not.
//!
//! Its law: an order is complete; nothing in it is looked up later.

use std::path::Path;

use cloister_image::artifact::RootForm;
use cloister_image::limits::Limits;
use cloister_manifest::source::Report;

use crate::error::Error;
use crate::registry::Access;

/// What is to be built.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// Where the application comes from, as typed. `None`: where the record says.
    pub(crate) image: Option<&'a str>,
    /// The record of the build that is to be done again.
    pub(crate) from: Option<&'a Path>,
    /// The manifest's file.
    pub(crate) manifest: &'a Path,
    /// The form of the application's root, unless a record has it.
    pub(crate) root: RootForm,
    /// Where the enclave image is to be.
    pub(crate) output: &'a Path,
    /// Where the file for AWS Nitro is to be, if one is wanted.
    pub(crate) eif: Option<&'a Path>,
    /// How much the application may be.
    pub(crate) limits: Limits,
    /// The files of the key and the certificate to sign with.
    pub(crate) sign: Option<(&'a Path, &'a Path)>,
    /// How registries are reached.
    pub(crate) access: &'a Access,
}

/// Why there is no enclave image.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The manifest has faults: each is in the report, with its place.
    Manifest(Box<Report>),
    /// Anything else.
    Other(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Box<Report>> for Refusal {
    fn from(report: Box<Report>) -> Self {
        Self::Manifest(report)
    }
}
