//! One X.509 certificate of AMD's: parsed, with the signed bytes as they were sent, and its RSA-PSS signature.
//!
//! Invariant: a signature counts only with the one set of parameters that AMD uses: RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a
//! salt of 48 bytes, by a 4096-bit key with the exponent 65537. The parameters are decoded, so it does not matter whether the default
//! trailer field is spelled out, as in the certificates of Milan, or left out, as in those of Turin.
//!
//! Source: AMD 57230 (VCEK and VLEK certificates), section 3; RFC 4055 for the parameters.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rsa::pkcs1::{RsaPssParamsOwned, RsaPublicKeyRef};
use sha2::{Digest, Sha256, Sha384};
use x509_cert::Version;
use x509_cert::der::asn1::{Any, Ia5StringRef, ObjectIdentifier};
use x509_cert::der::{self, Decode, Encode, Reader, SliceReader};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::product::{Component, Product, RawTcb};
use crate::bytes::Text;

/// The longest certificate that is read, in bytes. Those of AMD have at most 1,700.
const MAX_CERTIFICATE: usize = 8192;
/// The length of an RSA modulus, and of a signature, in bytes.
const RSA_LEN: usize = 512;
/// The public exponent 65537.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];
/// The length of the salt, that of SHA-384.
const SALT_LEN: u8 = 48;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
/// AMD's extensions: the product's name, the components of the TCB version, the chip's identifier. There are more, which are not read.
const PRODUCT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const COMPONENTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3");
const CHIP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");

/// A certificate whose signature has not been checked.
#[derive(Clone, Debug)]
pub(crate) struct Certificate<'a> {
    signed: &'a [u8],
    content: x509_cert::Certificate,
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Text> {
        if bytes.len() > MAX_CERTIFICATE {
            return Err(format!("{} bytes, more than the limit of {MAX_CERTIFICATE}", bytes.len()).into());
        }
        let content =
            x509_cert::Certificate::from_der(bytes).map_err(|error| format!("malformed: {error}"))?;
        let signed = signed_part(bytes).map_err(|error| format!("malformed: {error}"))?;
        let certificate = Self { signed, content };
        let fields = certificate.content.tbs_certificate();
        if fields.version() != Version::V3 {
            return Err("not an X.509 certificate of version 3".into());
        }
        if fields.signature() != certificate.content.signature_algorithm() {
            return Err("its two signature algorithms differ".into());
        }
        certificate.check_extensions()?;
        Ok(certificate)
    }

    /// Every extension occurs once, and those that are critical are understood.
    fn check_extensions(&self) -> Result<(), Text> {
        for (index, extension) in self.extensions().iter().enumerate() {
            let oid = extension.extn_id;
            if self.extensions().iter().take(index).any(|earlier| earlier.extn_id == oid) {
                return Err(format!("extension {oid} occurs more than once").into());
            }
            let known =
                [BASIC_CONSTRAINTS, KEY_USAGE, PRODUCT, CHIP].contains(&oid) || oid.starts_with(COMPONENTS);
            if extension.critical && !known {
                return Err(format!("critical extension {oid} is not supported").into());
            }
        }
        Ok(())
    }

    fn extensions(&self) -> &[Extension] {
        self.content.tbs_certificate().extensions().map_or(&[], Vec::as_slice)
    }

    /// The content of an extension.
    fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        self.extensions()
            .iter()
            .find(|extension| extension.extn_id == oid)
            .map(|found| found.extn_value.as_bytes())
    }

    pub(crate) fn subject(&self) -> &Name {
        self.content.tbs_certificate().subject()
    }

    pub(crate) fn issuer(&self) -> &Name {
        self.content.tbs_certificate().issuer()
    }

    pub(crate) fn serial(&self) -> &[u8] {
        self.content.tbs_certificate().serial_number().as_bytes()
    }

    /// The subject's common name.
    pub(crate) fn common_name(&self) -> Option<String> {
        common_name(self.subject())
    }

    /// The first and the last second in which the certificate is valid.
    pub(crate) fn validity(&self) -> (u64, u64) {
        let validity = self.content.tbs_certificate().validity();
        (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs())
    }

    /// SHA-256 of the public key with its algorithm (DER of `SubjectPublicKeyInfo`).
    pub(crate) fn key_sha256(&self) -> Result<[u8; 32], Text> {
        let bytes = self.key().to_der().map_err(|error| format!("malformed key: {error}"))?;
        Ok(Sha256::digest(bytes).into())
    }

    pub(crate) fn key(&self) -> &SubjectPublicKeyInfoOwned {
        self.content.tbs_certificate().subject_public_key_info()
    }

    /// The bytes of the key, which must be one of P-384.
    pub(crate) fn p384_key(&self) -> Result<&[u8], Text> {
        let algorithm = &self.key().algorithm;
        let curve =
            algorithm.parameters.as_ref().and_then(|found| found.decode_as::<ObjectIdentifier>().ok());
        if algorithm.oid != EC_KEY || curve != Some(P384) {
            return Err("the certificate's key is not one of ECDSA with P-384".into());
        }
        self.key()
            .subject_public_key
            .as_bytes()
            .ok_or_else(|| "the key is not a number of whole bytes".into())
    }

    /// Whether the certificate may issue others: (is an authority, may sign certificates).
    pub(crate) fn authority(&self) -> Result<(bool, bool), Text> {
        let constraints = self.extension(BASIC_CONSTRAINTS).map(BasicConstraints::from_der).transpose();
        let usage = self.extension(KEY_USAGE).map(KeyUsage::from_der).transpose();
        let constraints = constraints.map_err(|error| format!("malformed basic constraints: {error}"))?;
        let usage = usage.map_err(|error| format!("malformed key usage: {error}"))?;
        Ok((constraints.is_some_and(|found| found.ca), usage.is_none_or(|found| found.key_cert_sign())))
    }

    /// Checks the certificate's signature with the issuer's key.
    pub(crate) fn check_signature(&self, issuer: &Self) -> Result<(), Text> {
        let signature =
            self.content.signature().as_bytes().ok_or("the signature is not a number of whole bytes")?;
        check_pss(issuer.key(), self.content.signature_algorithm(), self.signed, signature)
    }

    /// The product's name, such as `Milan-B0`.
    pub(crate) fn product_name(&self) -> Result<String, Text> {
        let bytes = self.extension(PRODUCT).ok_or("the certificate names no product")?;
        let text =
            Ia5StringRef::from_der(bytes).map_err(|error| format!("malformed product name: {error}"))?;
        Ok(String::from(text.as_str()))
    }

    /// The TCB version that the certified key is derived from.
    pub(crate) fn tcb(&self, product: Product) -> Result<RawTcb, Text> {
        let mut bytes = [0; 8];
        for (byte, component) in bytes.iter_mut().zip(product.layout()) {
            *byte = self.component(component)?;
        }
        Ok(RawTcb(bytes))
    }

    fn component(&self, component: Component) -> Result<u8, Text> {
        let name = component.name();
        let bytes = COMPONENTS.push_arc(component.arc()).ok().and_then(|oid| self.extension(oid));
        let bytes = bytes.ok_or_else(|| format!("the certificate has no {name} version"))?;
        u8::from_der(bytes)
            .map_err(|error| format!("malformed {name} version in the certificate: {error}").into())
    }

    /// The identifier of the chip that the certificate is for. Certificates of a VLEK have none.
    pub(crate) fn chip_id(&self) -> Option<&[u8]> {
        self.extension(CHIP)
    }
}

/// The bytes of a certificate or a revocation list that are signed: the first element of the outer sequence.
pub(crate) fn signed_part(bytes: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(bytes)?;
    let signed = reader.sequence(|parts| {
        let signed = parts.tlv_bytes()?;
        parts.tlv_bytes()?;
        parts.tlv_bytes()?;
        Ok::<_, der::Error>(signed)
    })?;
    reader.finish()?;
    Ok(signed)
}

/// Checks an RSASSA-PSS signature by a 4096-bit key.
pub(crate) fn check_pss(
    key: &SubjectPublicKeyInfoOwned,
    algorithm: &AlgorithmIdentifierOwned,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), Text> {
    check_parameters(algorithm)?;
    if key.algorithm.oid != RSA_ENCRYPTION {
        return Err(format!("the issuer's key has the algorithm {}, not RSA", key.algorithm.oid).into());
    }
    let bytes = key.subject_public_key.as_bytes().ok_or("the issuer's key is not a number of whole bytes")?;
    let numbers = RsaPublicKeyRef::from_der(bytes).map_err(|error| format!("malformed RSA key: {error}"))?;
    if numbers.modulus.as_bytes().len() != RSA_LEN || numbers.public_exponent.as_bytes() != RSA_EXPONENT {
        return Err("the issuer's key is not a 4096-bit RSA key with the exponent 65537".into());
    }
    let key = rsa::PublicKey::try_from(numbers).map_err(|error| format!("invalid RSA key: {error}"))?;
    // The length of the salt must be that of SHA-384, which the parameters announce.
    key.pss_verify::<Sha384>(signed, signature).map_err(|_| "the signature is invalid".into())
}

fn check_parameters(algorithm: &AlgorithmIdentifierOwned) -> Result<(), Text> {
    if algorithm.oid != RSASSA_PSS {
        return Err(
            format!("the signature algorithm is {}, not RSASSA-PSS ({RSASSA_PSS})", algorithm.oid).into()
        );
    }
    let parameters = algorithm.parameters.as_ref().ok_or("the RSASSA-PSS parameters are missing")?;
    let parameters: RsaPssParamsOwned =
        parameters.decode_as().map_err(|error| format!("malformed RSASSA-PSS parameters: {error}"))?;
    // The only defined value of the trailer field is the default one: decoding accepts no other.
    let mask = &parameters.mask_gen;
    let mask_hash = mask.parameters.as_ref().is_some_and(is_sha384);
    if !is_sha384(&parameters.hash) || mask.oid != MGF1 || !mask_hash || parameters.salt_len != SALT_LEN {
        return Err(
            "the RSASSA-PSS parameters are not SHA-384, MGF1 with SHA-384 and a salt of 48 bytes".into()
        );
    }
    Ok(())
}

/// Whether the algorithm is SHA-384, whose parameters are NULL or left out (RFC 4055, section 2.1).
fn is_sha384(algorithm: &AlgorithmIdentifierOwned) -> bool {
    algorithm.oid == SHA384 && algorithm.parameters.as_ref().is_none_or(Any::is_null)
}

/// The common name of a distinguished name.
pub(crate) fn common_name(name: &Name) -> Option<String> {
    let attribute = name.iter().find(|attribute| attribute.oid == COMMON_NAME)?;
    core::str::from_utf8(attribute.value.value()).ok().map(String::from)
}
