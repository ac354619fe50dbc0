//! The TLS certificate of the enclave, with the evidence in it.
//!
//! Invariant: it is signed by its own key, and its serial number is the nonce of its evidence, which binds that key: the
//! evidence cannot be moved to another certificate. The format is in docs/evidence.md. A certificate without evidence proves nothing;
//! it only lets a client ask why there is none.

use std::str::FromStr as _;
use std::time::Duration;

use cloister_binding::certificate::{Carried, CarriedError, OID, SERIAL};
use p256::ecdsa::DerSignature;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{GeneralizedTime, ObjectIdentifier, OctetString, UtcTime};
use x509_cert::der::{self, Decode as _, Encode as _};
use x509_cert::ext::Extension;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

use crate::key::TlsKey;

/// How long it is valid. Clients that verify the evidence decide by its age; others see a certificate without an issuer anyway. A
/// connection may be opened with it for 45 s only, but software that inspects it later should not call it expired at once.
const LIFE: u64 = 24 * 3600;

/// How far its start is in the past: the clock of a client may be behind. It is never before 1970, which TLS libraries refuse: a
/// machine without a clock may start there.
const BACKDATED: u64 = 300;

/// Dates before 2050 are written in this form (RFC 5280, section 4.1.2.5).
const LAST_UTC_TIME: u64 = 2_524_607_999;

/// Its subject: whom it belongs to is in the evidence.
const SUBJECT: &str = "CN=cloister enclave";

/// Why it was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// It could not be put together.
    #[error("the certificate cannot be created")]
    Builder(#[from] builder::Error),
    /// A part of it could not be encoded.
    #[error("the certificate cannot be encoded")]
    Der(#[from] der::Error),
    /// The evidence does not fit.
    #[error(transparent)]
    Evidence(#[from] CarriedError),
    /// The key could not be encoded.
    #[error("the key of the certificate cannot be encoded")]
    Key(#[from] p256::pkcs8::spki::Error),
}

/// The certificate in DER, at `now` in seconds since 1970.
pub(crate) fn issue(
    key: &TlsKey,
    serial: &[u8; SERIAL],
    carried: Option<&Carried>,
    now: u64,
) -> Result<Vec<u8>, CertificateError> {
    let extension = carried.map(extension).transpose()?;
    let validity = Validity::new(date(now.saturating_sub(BACKDATED))?, date(now.saturating_add(LIFE))?);
    let profile = Profile { name: Name::from_str(SUBJECT)?, extension };
    let public = SubjectPublicKeyInfoOwned::from_der(&key.public()?)?;
    let builder = CertificateBuilder::new(profile, SerialNumber::new(serial)?, validity, public)?;
    Ok(builder.build::<_, DerSignature>(key.for_certificate())?.to_der()?)
}

fn extension(carried: &Carried) -> Result<Extension, CertificateError> {
    let extn_value = OctetString::new(carried.encode()?)?;
    Ok(Extension { extn_id: ObjectIdentifier::new_unwrap(OID), critical: false, extn_value })
}

/// A serial number from these random bytes: positive, and of full length whatever they are.
pub(crate) const fn serial(mut random: [u8; SERIAL]) -> [u8; SERIAL] {
    random[0] = random[0] & 0x3f | 0x40;
    random
}

fn date(seconds: u64) -> Result<Time, der::Error> {
    let since = Duration::from_secs(seconds);
    if seconds > LAST_UTC_TIME {
        return GeneralizedTime::from_unix_duration(since).map(Time::GeneralTime);
    }
    UtcTime::from_unix_duration(since).map(Time::UtcTime)
}

/// A certificate for servers with at most one extension.
struct Profile {
    name: Name,
    extension: Option<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.name.clone()
    }

    fn get_subject(&self) -> Name {
        self.name.clone()
    }

    fn build_extensions(
        &self,
        _key: SubjectPublicKeyInfoRef<'_>,
        _issuer: SubjectPublicKeyInfoRef<'_>,
        _body: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(self.extension.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Verifier as _;
    use rustix::fs::{MemfdFlags, memfd_create};
    use x509_cert::Certificate;

    use super::*;

    fn key() -> TlsKey {
        TlsKey::open(memfd_create("key", MemfdFlags::ALLOW_SEALING).unwrap()).unwrap()
    }

    fn carried(length: usize) -> Carried {
        Carried { platform: "nitro".into(), evidence: vec![7; length] }
    }

    #[test]
    fn a_certificate_carries_its_evidence_and_is_signed_by_its_key() {
        let (key, serial) = (key(), serial([0xff; SERIAL]));
        let der = issue(&key, &serial, Some(&carried(5000)), 1_800_000_000).unwrap();
        let parsed = Certificate::from_der(&der).unwrap();
        let body = parsed.tbs_certificate();
        assert_eq!(body.serial_number().as_bytes(), serial);
        assert_eq!(body.subject_public_key_info().to_der().unwrap(), key.public().unwrap());
        let [extension] = &body.extensions().unwrap()[..] else { panic!("one extension") };
        assert_eq!((extension.extn_id.to_string().as_str(), extension.critical), (OID, false));
        assert_eq!(Carried::decode(extension.extn_value.as_bytes()), Ok(carried(5000)));
        let signature = DerSignature::from_bytes(parsed.signature().raw_bytes()).unwrap();
        let public = key.for_certificate().verifying_key();
        public.verify(&body.to_der().unwrap(), &signature).unwrap();
    }

    #[test]
    fn no_date_is_before_1970_and_none_is_refused() {
        for now in [0, 1, 299, 301, LAST_UTC_TIME, LAST_UTC_TIME + 1, 4_000_000_000] {
            let der = issue(&key(), &serial([0; SERIAL]), None, now).unwrap();
            let parsed = Certificate::from_der(&der).unwrap();
            assert!(parsed.tbs_certificate().extensions().is_none());
            let validity = parsed.tbs_certificate().validity();
            let start = validity.not_before.to_unix_duration().as_secs();
            assert_eq!(start, now.saturating_sub(BACKDATED), "{now}");
        }
    }

    #[test]
    fn a_serial_number_is_positive_and_of_full_length() {
        for first in 0..=u8::MAX {
            let mut random = [0; SERIAL];
            random[0] = first;
            assert!((0x40..0x80).contains(&serial(random)[0]));
        }
    }
}
