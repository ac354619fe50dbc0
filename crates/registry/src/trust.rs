//! The root certificates with which registries are verified.
//!
//! Invariant: those of this host are used, so that a company's own authority is trusted; if there are none, nothing is trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::error::RegistryError;

/// The variable that selects another file, as for OpenSSL.
const VARIABLE: &str = "SSL_CERT_FILE";

/// The paths of distributions' certificate bundles: Debian, Fedora, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The TLS configuration.
pub(super) fn config() -> Result<TlsConfig, RegistryError> {
    let asked = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let known = || BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
    let path = asked.or_else(known).ok_or(RegistryError::NoRoots)?;
    config_with(&path)
}

fn config_with(path: &Path) -> Result<TlsConfig, RegistryError> {
    let error = |what| RegistryError::File { path: path.to_owned(), what };
    let bytes = std::fs::read(path).map_err(|_| error("it cannot be read"))?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let roots: Vec<Certificate<'static>> = parse_pem(&bytes).filter_map(certificate).collect();
    if roots.is_empty() {
        return Err(error("it contains no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots));
    Ok(builder.unversioned_rustls_crypto_provider(provider).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_reported() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = config_with(file.path()).unwrap_err();
        assert!(error.to_string().ends_with("it contains no certificate"), "{error}");
        assert!(config_with(Path::new("/no/such/file")).is_err());
    }
}
