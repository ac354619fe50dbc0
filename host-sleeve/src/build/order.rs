//! The input of a build, and its errors.
//!
//! Invariant: an order is complete; nothing in it is determined later.

use std::path::Path;

use cloister_image::artifact::RootForm;
use cloister_image::limits::Limits;
use cloister_manifest::source::Report;

use crate::error::Error;
use crate::registry::Access;

/// The input of a build.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// The reference of the container image, as typed. `None`: the one in the record.
    pub(crate) image: Option<&'a str>,
    /// The record of the build to repeat.
    pub(crate) from: Option<&'a Path>,
    /// The manifest's file.
    pub(crate) manifest: &'a Path,
    /// The form of the application's root, unless a record specifies it.
    pub(crate) root: RootForm,
    /// The path of the enclave image.
    pub(crate) output: &'a Path,
    /// The path of the file for AWS Nitro, if one is requested.
    pub(crate) eif: Option<&'a Path>,
    /// The limits on the container image.
    pub(crate) limits: Limits,
    /// The files of the key and the certificate to sign with.
    pub(crate) sign: Option<(&'a Path, &'a Path)>,
    /// How registries are reached.
    pub(crate) access: &'a Access,
}

/// Why a build or a check failed.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The manifest is invalid; the report has each error with its location.
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
