//! The files that `verify` and `connect` are given.
//!
//! Invariant: a file is bounded before it is read.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::error::{Error, ErrorContext as _, Result};

/// The longest input file, in bytes: larger than any evidence, certificate, collateral, log or user data that is accepted.
const FILE_LIMIT: u64 = 1 << 20;

/// The certificates of a file, in DER.
pub(super) fn certificates(path: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = read(path)?;
    if !bytes.starts_with(b"-----BEGIN") {
        return Ok(vec![bytes]);
    }
    let read: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&bytes).map(|found| found.map(|der| der.to_vec())).collect();
    read.map_err(|error| malformed(path, error))
}

/// Reads a file, or standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let source: Box<dyn io::Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).context(|| format!("cannot open {}", path.display()))?)
    };
    let mut bytes = Vec::new();
    source
        .take(FILE_LIMIT.saturating_add(1))
        .read_to_end(&mut bytes)
        .context(|| format!("cannot read {}", path.display()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_LIMIT {
        return Err(Error::operator(format!("{} has more than {FILE_LIMIT} bytes", path.display())));
    }
    Ok(bytes)
}

pub(super) fn malformed(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::operator(format!("{} cannot be used", path.display())).because(error)
}
