//! Certificates as the attestor makes them, with a document of AWS Nitro or without evidence, for a key of this benchmark.
//!
//! The evidence is recorded, so it does not bind this key: what a handshake costs does not depend on that.

use std::io;
use std::str::FromStr as _;
use std::time::Duration;

use cloister_binding::certificate::{Carried, OID, SERIAL};
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::EncodePublicKey as _;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{ObjectIdentifier, OctetString, UtcTime};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

/// A document with five certificates, as every document of AWS Nitro has them.
const DOCUMENT: &[u8] = include_bytes!("../../../../crates/evidence/testdata/nitro/n1-production.cose");

/// The subject of every enclave's certificate.
const SUBJECT: &str = "CN=cloister enclave";

/// Its dates, in seconds since 1970: a day that nobody compares.
const DATES: [u64; 2] = [1_767_225_600, 1_767_312_000];

/// The key of both certificates.
pub(crate) fn key() -> io::Result<SigningKey> {
    SigningKey::from_slice(&[7; 32]).map_err(io::Error::other)
}

/// Its public part, as `SubjectPublicKeyInfo` in DER.
pub(crate) fn public(key: &SigningKey) -> io::Result<Vec<u8>> {
    Ok(key.verifying_key().to_public_key_der().map_err(io::Error::other)?.into_vec())
}

/// The certificate in DER.
pub(crate) fn issue(key: &SigningKey, with_evidence: bool) -> io::Result<Vec<u8>> {
    let extension = with_evidence.then(extension).transpose()?;
    let profile = Profile { name: Name::from_str(SUBJECT).map_err(io::Error::other)?, extension };
    let serial = SerialNumber::new(&[0x55; SERIAL]).map_err(io::Error::other)?;
    let public = SubjectPublicKeyInfoOwned::from_der(&public(key)?).map_err(io::Error::other)?;
    let [from, until] = DATES.map(date);
    let validity = Validity::new(from?, until?);
    let builder = CertificateBuilder::new(profile, serial, validity, public).map_err(io::Error::other)?;
    builder.build::<_, DerSignature>(key).map_err(io::Error::other)?.to_der().map_err(io::Error::other)
}

fn extension() -> io::Result<Extension> {
    let carried = Carried { platform: "nitro".into(), evidence: DOCUMENT.to_vec() };
    let value = OctetString::new(carried.encode().map_err(io::Error::other)?).map_err(io::Error::other)?;
    Ok(Extension { extn_id: ObjectIdentifier::new_unwrap(OID), critical: false, extn_value: value })
}

fn date(seconds: u64) -> io::Result<Time> {
    UtcTime::from_unix_duration(Duration::from_secs(seconds)).map(Time::UtcTime).map_err(io::Error::other)
}

/// A certificate with at most one extension.
struct Profile {
    name: Name,
    extension: Option<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _: &Name) -> Name {
        self.name.clone()
    }

    fn get_subject(&self) -> Name {
        self.name.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(self.extension.iter().cloned().collect())
    }
}
