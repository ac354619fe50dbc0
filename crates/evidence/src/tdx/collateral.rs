//! What Intel publishes about a platform: TCB info, the identity of the quoting enclave, revocation lists, and their certificates.
//!
//! Invariant: collateral is untrusted until [`super::verify`] has checked its signatures. It is read here to say by name what is too
//! old, too new, or of another root, which the verification library reports without names.
//!
//! Source: Intel SGX/TDX Provisioning Certification Service, API version 4.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use dcap_qvl::config::CryptoProvider as _;
use dcap_qvl::{QeIdentity, QuoteCollateralV3, TcbInfo};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{DateTime, Decode, Encode, EncodePem};

use super::crypto::Intel;
use super::quote::Quote;
use crate::bytes::{Text, date};
use crate::hex;

/// The longest collateral in JSON, in bytes. Recorded ones have fewer than 30,000.
pub const MAX_COLLATERAL: usize = 1 << 20;
/// The certificates of a platform's key: its own, its authority's and the root's.
const PCK_CHAIN: usize = 3;
/// The certificates of signed documents: the signer's and the root's.
const SIGNER_CHAIN: usize = 2;
/// The common name of the certificate that signs TCB info and identities.
const SIGNER: &str = "Intel SGX TCB Signing";
const PCK: &str = "Intel SGX PCK Certificate";
/// The common names of the two authorities that certify platforms' keys.
pub(crate) const PLATFORM_CA: &str = "Intel SGX PCK Platform CA";
pub(crate) const PROCESSOR_CA: &str = "Intel SGX PCK Processor CA";
/// The version of TCB info that the fields are of.
const TCB_INFO_VERSION: u8 = 3;

/// Collateral as the verification library takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collateral {
    pub(crate) parts: QuoteCollateralV3,
}

impl Collateral {
    /// Reads the JSON object that `dcap-qvl` and the quoting services of several clouds write: the documents as texts, signatures and
    /// revocation lists in hexadecimal digits. A certificate chain of the platform's key in it is ignored; the quote's own counts.
    pub fn from_json(bytes: &[u8]) -> Result<Self, CollateralError> {
        if bytes.len() > MAX_COLLATERAL {
            return Err(CollateralError::TooLong(bytes.len()));
        }
        let parts =
            serde_json::from_slice(bytes).map_err(|error| CollateralError::Json(format!("{error}")))?;
        Ok(Self::new(parts))
    }

    pub(crate) fn new(parts: QuoteCollateralV3) -> Self {
        Self { parts: QuoteCollateralV3 { pck_certificate_chain: None, ..parts } }
    }

    /// For which platform it states to be, and how new. Nothing of it is verified: it serves to choose among collateral that the caller
    /// has. `None` if its TCB info is malformed.
    #[must_use]
    pub fn edition(&self) -> Option<Edition> {
        let info: TcbInfo = json("TCB info", &self.parts.tcb_info).ok()?;
        let order = (info.tcb_evaluation_data_number, DateTime::from_str(&info.issue_date).ok()?);
        Some(Edition { fmspc: info.fmspc.to_ascii_uppercase(), order })
    }
}

/// What collateral states to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edition {
    fmspc: String,
    /// The number of Intel's evaluation, and the date of issue.
    order: (u32, DateTime),
}

impl Edition {
    /// Whether this is for the same platform, and newer.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        self.fmspc == other.fmspc && self.order > other.order
    }
}

/// Why bytes are not collateral.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollateralError {
    /// Longer than any collateral.
    #[error("{0} bytes of collateral, more than the limit of {MAX_COLLATERAL}")]
    TooLong(usize),
    /// Not the expected JSON.
    #[error("malformed collateral: {0}")]
    Json(String),
}

/// Collateral with its parts decoded, and the quote's certificates.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) tcb_info: TcbInfo,
    qe_identity: QeIdentity,
    pck: Vec<Certificate>,
    tcb_signer: Vec<Certificate>,
    qe_signer: Vec<Certificate>,
    periods: Vec<Period>,
}

/// A document's period of validity, in seconds since 1970, both ends included.
#[derive(Debug)]
struct Period {
    name: &'static str,
    from: u64,
    until: u64,
}

impl Period {
    fn of(name: &'static str, certificate: &Certificate) -> Self {
        let validity = certificate.tbs_certificate().validity();
        Self {
            name,
            from: validity.not_before.to_unix_duration().as_secs(),
            until: validity.not_after.to_unix_duration().as_secs(),
        }
    }
}

impl Decoded {
    pub(crate) fn read(collateral: &Collateral, quote: &Quote<'_>) -> Result<Self, Text> {
        let parts = &collateral.parts;
        let tcb_info: TcbInfo = json("TCB info", &parts.tcb_info)?;
        let qe_identity: QeIdentity = json("QE identity", &parts.qe_identity)?;
        if tcb_info.id != "TDX" || tcb_info.version != TCB_INFO_VERSION {
            let (id, version) = (&tcb_info.id, tcb_info.version);
            return Err(
                format!("TCB info is for {id:?} in version {version}, expected TDX in version 3").into()
            );
        }
        if qe_identity.id != "TD_QE" {
            return Err(format!("QE identity is for {:?}, expected TD_QE", qe_identity.id).into());
        }
        let mut decoded = Self {
            tcb_info,
            qe_identity,
            pck: chain("quote", quote.certificates)?,
            tcb_signer: chain("TCB info", parts.tcb_info_issuer_chain.as_bytes())?,
            qe_signer: chain("QE identity", parts.qe_identity_issuer_chain.as_bytes())?,
            periods: Vec::new(),
        };
        decoded.periods = decoded.periods(parts)?;
        Ok(decoded)
    }

    /// The collateral with the certificates that were read here, those of the quote included, in the place of their texts: readers of
    /// PEM differ in what they take for a certificate if a text has more than that, and the library must verify what is checked here.
    pub(crate) fn for_library(&self, collateral: &Collateral) -> Result<QuoteCollateralV3, Text> {
        Ok(QuoteCollateralV3 {
            tcb_info_issuer_chain: pem(&self.tcb_signer)?,
            qe_identity_issuer_chain: pem(&self.qe_signer)?,
            pck_certificate_chain: Some(pem(&self.pck)?),
            ..collateral.parts.clone()
        })
    }

    /// The chains have their lengths, and each certificate the name of its purpose. The library checks signatures and roots, not names.
    pub(crate) fn check_names(&self) -> Result<(), Text> {
        let [pck, authority, _] = self.pck.as_slice() else {
            return Err(length("quote", self.pck.len(), PCK_CHAIN));
        };
        expect_name("quote", pck, &[PCK])?;
        expect_name("quote", authority, &[PLATFORM_CA, PROCESSOR_CA])?;
        for (name, chain) in [("TCB info", &self.tcb_signer), ("QE identity", &self.qe_signer)] {
            let [signer, _] = chain.as_slice() else { return Err(length(name, chain.len(), SIGNER_CHAIN)) };
            expect_name(name, signer, &[SIGNER])?;
        }
        Ok(())
    }

    /// Every chain ends in the root's key, and in a certificate that this key has signed.
    pub(crate) fn check_root(&self, root: &Certificate, key_sha256: &[u8; 32]) -> Result<(), Text> {
        if key(root)? != *key_sha256 {
            return Err("the root's certificate does not contain its pinned key".into());
        }
        for (name, chain) in
            [("quote", &self.pck), ("TCB info", &self.tcb_signer), ("QE identity", &self.qe_signer)]
        {
            let last = chain.last().ok_or_else(|| length(name, 0, SIGNER_CHAIN))?;
            let found = key(last)?;
            if found != *key_sha256 {
                let same = last.tbs_certificate().subject() == root.tbs_certificate().subject();
                let same = if same { ", although it has the root's name" } else { "" };
                let text =
                    format!("{name}: the certificates end in a key that is not the trusted root{same}");
                return Err(format!("{text}: SHA-256 {}", hex::text(&found)).into());
            }
            if !is_self_signed(last) {
                return Err(format!("{name}: the root has not signed its certificate").into());
            }
        }
        Ok(())
    }

    /// All parts and the root's own certificate are valid at `now`: a chain's copy of that one may be an older one of the same key.
    /// A part from the future and one that expired have distinct texts.
    pub(crate) fn check_dates(&self, root: &Certificate, now: u64) -> Result<(), Text> {
        let root = Period::of("certificate of the root", root);
        for Period { name, from, until } in self.periods.iter().chain([&root]) {
            if now < *from {
                let text = "the clock is behind, or the collateral was fetched for a later time";
                return Err(format!(
                    "{name}: issued at {}, and the time is {}: {text}",
                    date(*from),
                    date(now)
                )
                .into());
            }
            if now > *until {
                let text = "fetch new collateral";
                return Err(format!(
                    "{name}: expired at {}, and the time is {}: {text}",
                    date(*until),
                    date(now)
                )
                .into());
            }
        }
        Ok(())
    }

    /// The time until which all parts are valid.
    pub(crate) fn valid_until(&self) -> u64 {
        self.periods.iter().map(|period| period.until).min().unwrap_or(0)
    }

    fn periods(&self, parts: &QuoteCollateralV3) -> Result<Vec<Period>, Text> {
        let mut periods = Vec::from([
            document("TCB info", &self.tcb_info.issue_date, &self.tcb_info.next_update)?,
            document("QE identity", &self.qe_identity.issue_date, &self.qe_identity.next_update)?,
            list("root revocation list", &parts.root_ca_crl)?,
            list("PCK revocation list", &parts.pck_crl)?,
        ]);
        let chains = [
            ("certificate in the quote", &self.pck),
            ("certificate of TCB info", &self.tcb_signer),
            ("certificate of QE identity", &self.qe_signer),
        ];
        for (name, chain) in chains {
            periods.extend(chain.iter().map(|certificate| Period::of(name, certificate)));
        }
        Ok(periods)
    }
}

fn json<'a, T: serde::Deserialize<'a>>(name: &str, text: &'a str) -> Result<T, Text> {
    serde_json::from_str(text).map_err(|error| format!("malformed {name}: {error}").into())
}

fn document(name: &'static str, from: &str, until: &str) -> Result<Period, Text> {
    let seconds = |text: &str| {
        let time =
            DateTime::from_str(text).map_err(|_| Text::from(format!("{name}: malformed date {text:?}")))?;
        Ok::<_, Text>(time.unix_duration().as_secs())
    };
    Ok(Period { name, from: seconds(from)?, until: seconds(until)? })
}

fn list(name: &'static str, bytes: &[u8]) -> Result<Period, Text> {
    let list =
        CertificateList::<Rfc5280>::from_der(bytes).map_err(|error| format!("malformed {name}: {error}"))?;
    let until =
        list.tbs_cert_list.next_update.ok_or_else(|| format!("{name}: no date of its next update"))?;
    let from = list.tbs_cert_list.this_update.to_unix_duration().as_secs();
    // The library does not accept a list in the second of its next update.
    Ok(Period { name, from, until: until.to_unix_duration().as_secs().saturating_sub(1) })
}

/// Certificates in PEM. Quotes end them with a zero byte.
pub(crate) fn chain(name: &str, text: &[u8]) -> Result<Vec<Certificate>, Text> {
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    Certificate::load_pem_chain(text)
        .map_err(|error| format!("{name}: malformed certificates in PEM: {error}").into())
}

/// Certificates as a text that has one reading.
fn pem(certificates: &[Certificate]) -> Result<String, Text> {
    let texts = certificates.iter().map(|certificate| certificate.to_pem(LineEnding::LF));
    texts.collect::<Result<_, _>>().map_err(|error| format!("malformed certificate: {error}").into())
}

fn length(name: &str, found: usize, expected: usize) -> Text {
    format!("{name}: {found} certificates, expected {expected}").into()
}

/// The common name of a certificate's subject.
pub(crate) fn common_name(certificate: &Certificate) -> String {
    let name = certificate.tbs_certificate().subject().common_name();
    name.ok().flatten().map(|name| String::from(name.value())).unwrap_or_default()
}

fn expect_name(part: &str, certificate: &Certificate, accepted: &[&str]) -> Result<(), Text> {
    let found = common_name(certificate);
    if accepted.contains(&found.as_str()) {
        return Ok(());
    }
    Err(format!("{part}: a certificate for {found:?}, expected one for {:?}", accepted.join(" or ")).into())
}

/// Whether a certificate is signed with its own key. The library takes the root from its caller and does not look at the copies.
fn is_self_signed(certificate: &Certificate) -> bool {
    let body = certificate.tbs_certificate();
    let key = body.subject_public_key_info().subject_public_key.as_bytes();
    let (Some(key), Some(signature), Ok(signed)) = (key, certificate.signature().as_bytes(), body.to_der())
    else {
        return false;
    };
    certificate.signature_algorithm() == body.signature()
        && Intel::sig_algo().verify_signature(key, &signed, signature).is_ok()
}

/// SHA-256 of a certificate's key with its algorithm.
fn key(certificate: &Certificate) -> Result<[u8; 32], Text> {
    let key = certificate.tbs_certificate().subject_public_key_info().to_der();
    let key = key.map_err(|error| format!("malformed key: {error}"))?;
    Ok(Sha256::digest(key).into())
}
