//! Requests to AMD's key distribution service (KDS), and its answers.
//!
//! Invariant: pure functions; the caller performs the requests. VLEK certificates are not among them: KDS issues these to cloud
//! providers only, which hand them to the guest.
//!
//! Source: AMD 57230, section 4 (KDS interface).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use x509_cert::Certificate;
use x509_cert::der::Encode;

use super::product::Product;
use super::report::Report;
use crate::bytes::is_zero;
use crate::fetch::Request;
use crate::hex;

/// The address of AMD's service.
pub const AMD: &str = "https://kdsintf.amd.com";
/// The longest certificate, chain or revocation list that is fetched, in bytes.
const LIMIT: usize = 65_536;
/// The certificates of an answer with a chain: signing key and root.
const CHAIN_LEN: usize = 2;

/// Why no request can be made, or an answer not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KdsError {
    /// The host hides the chip's identifier.
    #[error("the report does not name its chip: the host masks it; ask the host for the certificate")]
    MaskedChip,
    /// The identifier is longer than those of the product.
    #[error("the report's chip identifier is not one of {0}")]
    Chip(Product),
    /// The answer is not two certificates in PEM.
    #[error("the chain is not two certificates in PEM")]
    Chain,
}

/// Which keys a chain or a revocation list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keys of chips.
    Vcek,
    /// Keys loaded by cloud providers.
    Vlek,
}

impl Kind {
    const fn path(self) -> &'static str {
        match self {
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
        }
    }
}

/// The certificate of the VCEK that signed `report`, in DER.
pub fn vcek(base: &str, product: Product, report: &Report) -> Result<Request, KdsError> {
    if is_zero(&report.chip_id) {
        return Err(KdsError::MaskedChip);
    }
    let wrong = KdsError::Chip(product);
    let (chip, rest) = report.chip_id.split_at_checked(product.chip_id_len()).ok_or(wrong.clone())?;
    if !is_zero(rest) {
        return Err(wrong);
    }
    let tcb = report.reported_tcb.read(product);
    let fmc = match product {
        Product::Milan | Product::Genoa => String::new(),
        Product::Turin => format!("fmcSPL={:02}&", tcb.fmc),
    };
    let versions = format!(
        "{fmc}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
        tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode
    );
    Ok(request(format!("{base}/vcek/v1/{product}/{}?{versions}", hex::text(chip))))
}

/// The signing key's and the root's certificate, in PEM. [`chain`] reads the answer.
#[must_use]
pub fn cert_chain(base: &str, kind: Kind, product: Product) -> Request {
    request(format!("{base}/{}/v1/{product}/cert_chain", kind.path()))
}

/// The list of revoked certificates, in DER.
#[must_use]
pub fn crl(base: &str, kind: Kind, product: Product) -> Request {
    request(format!("{base}/{}/v1/{product}/crl", kind.path()))
}

const fn request(url: String) -> Request {
    Request { url, header: None, limit: LIMIT }
}

/// Reads an answer to [`cert_chain`]: the signing key's certificate and the root's, in DER, in the order of
/// [`super::Evidence::chain`].
pub fn chain(answer: &[u8]) -> Result<[Vec<u8>; CHAIN_LEN], KdsError> {
    if answer.len() > LIMIT {
        return Err(KdsError::Chain);
    }
    let certificates = Certificate::load_pem_chain(answer).map_err(|_| KdsError::Chain)?;
    let certificates: Result<Vec<_>, _> = certificates.iter().map(Encode::to_der).collect();
    certificates.map_err(|_| KdsError::Chain)?.try_into().map_err(|_| KdsError::Chain)
}
