//! The certificates: of the development root, and of one enclave's module.
//!
//! Invariant: every subject contains [`NAME`], so that anyone who looks at a certificate sees that no hardware is behind it. Keys
//! are on P-384 and signatures are ECDSA with SHA-384, as on AWS Nitro.

use std::str::FromStr;
use std::time::Duration;

use p384::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use p384::pkcs8::{DecodePublicKey, EncodePublicKey};
use x509_cert::Certificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::GeneralizedTime;
use x509_cert::der::{self, Decode, Encode};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

use super::key::random;

/// In the subject of every certificate.
pub(super) const NAME: &str = "Cloister VIRTUAL development root, not hardware";

/// How long the root is valid: longer than a development machine is used.
const ROOT_LIFE: u64 = 10 * 365 * 24 * 3600;

/// How long a module's certificate is valid: as on AWS Nitro, so that what depends on its end is noticed in development.
const MODULE_LIFE: u64 = 3 * 3600;

/// How far the start of a certificate is in the past: a verifier's clock may be behind the host's.
const BACKDATED: u64 = 300;

/// Bytes of a serial number: RFC 5280, section 4.1.2.2, allows 20; 16 random ones do not repeat.
const SERIAL: usize = 16;

/// A certificate, as it is used.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    /// The certificate in DER.
    pub(super) der: Vec<u8>,
    /// The first second, since 1970, at which it is valid.
    pub(super) not_before: u64,
    /// The last one.
    pub(super) not_after: u64,
}

/// A certificate that cannot be created or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    /// It cannot be created.
    #[error("a certificate cannot be created")]
    Builder(#[from] builder::Error),
    /// It cannot be encoded, or is not one.
    #[error("it is not an X.509 certificate")]
    Der(#[from] der::Error),
    /// Its key is not one of ours.
    #[error("its key is not on the curve P-384")]
    Key(#[from] p384::pkcs8::spki::Error),
    /// There are no random bytes for its serial number.
    #[error(transparent)]
    Random(#[from] std::io::Error),
}

impl Issued {
    /// The root, self-signed, at `now` in seconds since 1970.
    pub(super) fn root(key: &SigningKey, now: u64) -> Result<Self, CertificateError> {
        build(
            Profile { subject: name(None)?, root: name(None)?, is_root: true },
            now,
            ROOT_LIFE,
            key.verifying_key(),
            key,
        )
    }

    /// The certificate of the module `id` for this key, signed by the root.
    pub(super) fn module(
        id: &str,
        key: &VerifyingKey,
        root: &SigningKey,
        now: u64,
    ) -> Result<Self, CertificateError> {
        let profile = Profile { subject: name(Some(id))?, root: name(None)?, is_root: false };
        build(profile, now, MODULE_LIFE, key, root)
    }

    /// Reads a certificate, and the key in it.
    pub(super) fn read(der: Vec<u8>) -> Result<(Self, VerifyingKey), CertificateError> {
        let parsed = Certificate::from_der(&der)?;
        let parsed = parsed.tbs_certificate();
        let key = VerifyingKey::from_public_key_der(&parsed.subject_public_key_info().to_der()?)?;
        let (not_before, not_after) = period(parsed.validity());
        Ok((Self { der, not_before, not_after }, key))
    }

    /// Whether it is valid at `now`, and for `ahead` more seconds.
    pub(super) const fn is_valid(&self, now: u64, ahead: u64) -> bool {
        self.not_before <= now && now.saturating_add(ahead) <= self.not_after
    }
}

/// Which certificate is built: one that the root issues, for itself or for a module.
#[derive(Debug)]
struct Profile {
    /// Whom it is issued to.
    subject: Name,
    /// The issuer.
    root: Name,
    /// Whether it is the root's own.
    is_root: bool,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.root.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        issuer: SubjectPublicKeyInfoRef<'_>,
        body: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let usage = if self.is_root { KeyUsages::KeyCertSign } else { KeyUsages::DigitalSignature };
        let constraints = BasicConstraints { ca: self.is_root, path_len_constraint: None };
        let subject = body.subject();
        Ok(vec![
            SubjectKeyIdentifier::try_from(key)?.to_extension(subject, &[])?,
            AuthorityKeyIdentifier::try_from(issuer)?.to_extension(subject, &[])?,
            constraints.to_extension(subject, &[])?,
            KeyUsage(usage.into()).to_extension(subject, &[])?,
        ])
    }
}

fn build(
    profile: Profile,
    now: u64,
    life: u64,
    key: &VerifyingKey,
    issuer: &SigningKey,
) -> Result<Issued, CertificateError> {
    let date =
        |seconds| GeneralizedTime::from_unix_duration(Duration::from_secs(seconds)).map(Time::GeneralTime);
    let validity = Validity::new(date(now.saturating_sub(BACKDATED))?, date(now.saturating_add(life))?);
    let mut serial = [0; SERIAL];
    random(&mut serial)?;
    let serial = SerialNumber::new(&serial)?;
    let key = SubjectPublicKeyInfoOwned::from_der(key.to_public_key_der()?.as_bytes())?;
    let (not_before, not_after) = period(&validity);
    let builder = CertificateBuilder::new(profile, serial, validity, key)?;
    let der = builder.build::<_, DerSignature>(issuer)?.to_der()?;
    Ok(Issued { der, not_before, not_after })
}

fn period(validity: &Validity) -> (u64, u64) {
    let seconds = |time: Time| time.to_unix_duration().as_secs();
    (seconds(validity.not_before), seconds(validity.not_after))
}

/// The subject of a module, or of the root.
fn name(module: Option<&str>) -> Result<Name, der::Error> {
    // The notation of RFC 4514, in which a comma separates names; the first one is the last of the encoding.
    let text = NAME.replace(',', "\\,");
    let text = module.map_or_else(|| format!("CN={text}"), |id| format!("CN={id},O={text}"));
    Name::from_str(&text)
}
