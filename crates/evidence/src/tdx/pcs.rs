//! Requests to Intel's provisioning certification service (PCS) for a platform's collateral, and its answers.
//!
//! Invariant: nothing here performs I/O: requests go through the caller's [`Fetch`]. A document is taken from its answer byte for byte,
//! because its signature is over these bytes.
//!
//! Source: Intel SGX/TDX Provisioning Certification Service, API version 4.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::intel::parse_pck_extension_with;
use serde_json::value::RawValue;
use x509_cert::der::Encode;

use super::collateral::{Collateral, PLATFORM_CA, PROCESSOR_CA, chain, common_name};
use super::crypto::Intel;
use super::quote::Quote;
use crate::fetch::{Fetch, Request, Response};
use crate::hex;

/// The address of Intel's service. Caching services have the same paths.
pub const INTEL: &str = "https://api.trustedservices.intel.com";
/// The root's revocation list, which Intel publishes elsewhere.
pub const ROOT_CRL: &str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";
/// The longest answer that is read, in bytes. Revocation lists have some 3,000 now and grow.
const LIMIT: usize = 262_144;

/// Which authority certified a platform's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// For platforms with one package.
    Processor,
    /// For platforms with several packages.
    Platform,
}

/// Which collateral a quote needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Family, model, stepping, package and custom part.
    pub fmspc: [u8; 6],
    /// The authority whose revocation list applies.
    pub authority: Authority,
}

/// Why collateral could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PcsError<E> {
    /// The request failed.
    #[error("{url}: {error}")]
    Fetch {
        /// The address.
        url: String,
        /// The caller's error.
        error: E,
    },
    /// The answer is not what the interface promises.
    #[error("{url}: {problem}")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Platform {
    /// The platform that made `quote`, by the quote's certificates, whose signatures are not checked. `None`: they are not Intel's.
    #[must_use]
    pub fn of(quote: &Quote<'_>) -> Option<Self> {
        let certificates = chain("quote", quote.certificates).ok()?;
        let [pck, authority, ..] = certificates.as_slice() else { return None };
        let authority = match common_name(authority).as_str() {
            PROCESSOR_CA => Authority::Processor,
            PLATFORM_CA => Authority::Platform,
            _ => return None,
        };
        let fmspc = parse_pck_extension_with::<Intel>(&pck.to_der().ok()?).ok()?.fmspc;
        Some(Self { fmspc, authority })
    }

    /// TCB info; the header contains its certificates.
    #[must_use]
    pub fn tcb_info(self, base: &str) -> Request {
        let fmspc = hex::text(&self.fmspc).to_uppercase();
        request(format!("{base}/tdx/certification/v4/tcb?fmspc={fmspc}"), Some("TCB-Info-Issuer-Chain"))
    }

    /// The list of revoked certificates of the platform's authority; the header contains the list's certificates.
    #[must_use]
    pub fn pck_crl(self, base: &str) -> Request {
        let authority = match self.authority {
            Authority::Processor => "processor",
            Authority::Platform => "platform",
        };
        let url = format!("{base}/sgx/certification/v4/pckcrl?ca={authority}&encoding=der");
        request(url, Some("SGX-PCK-CRL-Issuer-Chain"))
    }
}

/// The identity of the quoting enclave; the header contains its certificates.
#[must_use]
pub fn qe_identity(base: &str) -> Request {
    request(format!("{base}/tdx/certification/v4/qe/identity"), Some("SGX-Enclave-Identity-Issuer-Chain"))
}

/// The root's list of revoked certificates.
#[must_use]
pub fn root_crl() -> Request {
    request(String::from(ROOT_CRL), None)
}

const fn request(url: String, header: Option<&'static str>) -> Request {
    Request { url, header, limit: LIMIT }
}

/// Fetches the collateral of a platform: four requests.
pub fn collateral<F: Fetch>(
    fetch: &F,
    base: &str,
    platform: Platform,
) -> Result<Collateral, PcsError<F::Error>> {
    let (tcb_info, tcb_info_signature, tcb_info_issuer_chain) =
        signed(fetch, &platform.tcb_info(base), "tcbInfo")?;
    let (qe_identity, qe_identity_signature, qe_identity_issuer_chain) =
        signed(fetch, &qe_identity(base), "enclaveIdentity")?;
    let request = platform.pck_crl(base);
    let pck_crl = get(fetch, &request)?;
    let pck_crl_issuer_chain = certificates(&request, pck_crl.header.as_deref())?;
    Ok(Collateral::new(QuoteCollateralV3 {
        pck_crl_issuer_chain,
        root_ca_crl: get(fetch, &root_crl())?.body,
        pck_crl: pck_crl.body,
        tcb_info_issuer_chain,
        tcb_info,
        tcb_info_signature,
        qe_identity_issuer_chain,
        qe_identity,
        qe_identity_signature,
        pck_certificate_chain: None,
    }))
}

fn get<F: Fetch>(fetch: &F, request: &Request) -> Result<Response, PcsError<F::Error>> {
    let response =
        fetch.fetch(request).map_err(|error| PcsError::Fetch { url: request.url.clone(), error })?;
    if response.body.len() > request.limit {
        return Err(answer(request, "the answer exceeds the request's limit"));
    }
    Ok(response)
}

fn answer<E>(request: &Request, problem: &'static str) -> PcsError<E> {
    PcsError::Answer { url: request.url.clone(), problem }
}

/// The answer to a request for a signed document: the document, its signature and its certificates.
fn signed<F: Fetch>(
    fetch: &F,
    request: &Request,
    name: &str,
) -> Result<(String, Vec<u8>, String), PcsError<F::Error>> {
    let response = get(fetch, request)?;
    let (document, signature) = document(&response.body, name)
        .ok_or_else(|| answer(request, "the answer is not a signed document"))?;
    Ok((document, signature, certificates(request, response.header.as_deref())?))
}

/// The member `name` of a JSON object, byte for byte, and its member `signature`.
fn document(body: &[u8], name: &str) -> Option<(String, Vec<u8>)> {
    let members: alloc::collections::BTreeMap<&str, &RawValue> = serde_json::from_slice(body).ok()?;
    let signature: &str = serde_json::from_str(members.get("signature")?.get()).ok()?;
    Some((String::from(members.get(name)?.get()), hex::bytes_of_any_case(signature)?))
}

/// Certificates in PEM, in a header that is encoded as a part of an address.
fn certificates<E>(request: &Request, header: Option<&str>) -> Result<String, PcsError<E>> {
    let header = header.ok_or_else(|| answer(request, "the answer has no certificates in its header"))?;
    unescape(header).ok_or_else(|| answer(request, "the certificates in the header are malformed"))
}

/// Decodes `%0A` and the like (RFC 3986, section 2.1).
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = Vec::from(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.extend(hex::bytes_of_any_case(digits)?);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}
