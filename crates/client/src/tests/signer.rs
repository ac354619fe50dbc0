//! Makes what an enclave on the platform `virtual` presents: documents and certificates, under a root that exists in tests only.
//!
//! Invariant: everything is derived from fixed keys and times. Nothing is shared with the code that reads it.

use std::str::FromStr as _;
use std::time::Duration;

use cloister_evidence::binding::Bound;
use cloister_evidence::binding::certificate::{Carried, OID};
use cloister_evidence::eventlog::Log;
use minicbor::Encoder;
use p256::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _};
use p384::ecdsa::signature::Signer as _;
use sha2::{Digest as _, Sha256};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{GeneralizedTime, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};

/// The time of every test, in seconds since 1970.
pub(super) const NOW: u64 = 1_800_000_000;

/// The serial number of every certificate, unless a test says otherwise.
pub(super) const SERIAL: [u8; 16] = [0x55; 16];

const ROOT: &str = "CN=test root";

/// The key with this number, of a server.
pub(super) fn server_key(number: u8) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[number; 32]).unwrap()
}

/// The same in PKCS #8, as rustls takes it.
pub(super) fn private(number: u8) -> Vec<u8> {
    server_key(number).to_pkcs8_der().unwrap().as_bytes().to_vec()
}

/// Its public key, as `SubjectPublicKeyInfo` in DER.
pub(super) fn public(number: u8) -> Vec<u8> {
    server_key(number).verifying_key().to_public_key_der().unwrap().into_vec()
}

fn module_key(number: u8) -> p384::ecdsa::SigningKey {
    p384::ecdsa::SigningKey::from_slice(&[number; 48]).unwrap()
}

/// A document of the module.
#[derive(Clone)]
pub(super) struct Draft {
    /// The number of the key that it binds.
    pub(super) key: u8,
    pub(super) nonce: Vec<u8>,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) log: Log,
}

impl Default for Draft {
    /// For the certificate with the first key, made a second ago.
    fn default() -> Self {
        Self { key: 1, nonce: SERIAL.to_vec(), created: NOW - 1, log: Log::booted() }
    }
}

impl Draft {
    /// The value of a register, in every document.
    pub(super) fn register(&self, register: u16) -> Vec<u8> {
        match register {
            0..3 => vec![u8::try_from(register).unwrap() + 1; 48],
            16 => self.log.nitro_register(16).to_vec(),
            _ => vec![0; 48],
        }
    }

    /// The document, in COSE.
    pub(super) fn sign(&self) -> Vec<u8> {
        let (payload, protected) = (self.payload(), b"\xa1\x01\x38\x22");
        let mut signed = Encoder::new(Vec::new());
        signed.array(4).unwrap().str("Signature1").unwrap().bytes(protected).unwrap();
        signed.bytes(b"").unwrap().bytes(&payload).unwrap();
        let signature: p384::ecdsa::Signature = module_key(2).sign(&signed.into_writer());
        let mut out = Encoder::new(Vec::new());
        out.array(4).unwrap().bytes(protected).unwrap().map(0).unwrap();
        out.bytes(&payload).unwrap().bytes(&signature.to_bytes()).unwrap();
        out.into_writer()
    }

    fn payload(&self) -> Vec<u8> {
        let public_key = public(self.key);
        let bound =
            Bound { nonce: &self.nonce, public_key: &public_key, events: &self.log.head(), user_data: &[] };
        let mut out = Encoder::new(Vec::new());
        out.map(9).unwrap().str("module_id").unwrap().str("virtual-test").unwrap();
        out.str("digest").unwrap().str("SHA384").unwrap();
        out.str("timestamp").unwrap().u64(self.created * 1000).unwrap();
        out.str("pcrs").unwrap().map(17).unwrap();
        for register in 0..17 {
            out.u16(register).unwrap().bytes(&self.register(register)).unwrap();
        }
        out.str("certificate").unwrap().bytes(&module_certificate()).unwrap();
        out.str("cabundle").unwrap().array(1).unwrap().bytes(&root_certificate()).unwrap();
        out.str("public_key").unwrap().bytes(&public_key).unwrap();
        out.str("user_data").unwrap().bytes(&bound.report_data().unwrap()).unwrap();
        out.str("nonce").unwrap().bytes(&self.nonce).unwrap();
        out.into_writer()
    }
}

/// The certificate of a server, with evidence.
#[derive(Clone)]
pub(super) struct Carrier {
    /// The number of its key.
    pub(super) key: u8,
    pub(super) serial: Vec<u8>,
    pub(super) extensions: Vec<Extension>,
}

impl Carrier {
    /// The certificate with the first key that carries this document.
    pub(super) fn of(draft: &Draft) -> Self {
        let carried = Carried { platform: "virtual".into(), evidence: draft.sign() };
        Self { key: 1, serial: SERIAL.to_vec(), extensions: vec![extension(&carried.encode().unwrap())] }
    }

    /// Its DER.
    pub(super) fn issue(self) -> Vec<u8> {
        let public = SubjectPublicKeyInfoOwned::from_der(&public(self.key)).unwrap();
        let subject = Name::from_str("CN=cloister enclave").unwrap();
        let profile = Profile { subject: subject.clone(), issuer: subject, extensions: self.extensions };
        let serial = SerialNumber::new(&self.serial).unwrap();
        let builder = CertificateBuilder::new(profile, serial, validity(), public).unwrap();
        let signed = builder.build::<_, p256::ecdsa::DerSignature>(&server_key(self.key));
        signed.unwrap().to_der().unwrap()
    }
}

/// The extension for evidence, with this value.
pub(super) fn extension(value: &[u8]) -> Extension {
    Extension {
        extn_id: ObjectIdentifier::new_unwrap(OID),
        critical: false,
        extn_value: OctetString::new(value).unwrap(),
    }
}

/// SHA-256 of the root.
pub(super) fn root() -> [u8; 32] {
    Sha256::digest(root_certificate()).into()
}

fn root_certificate() -> Vec<u8> {
    issue(ROOT, 1, &BasicConstraints { ca: true, path_len_constraint: None }, KeyUsages::KeyCertSign)
}

fn module_certificate() -> Vec<u8> {
    let constraints = BasicConstraints { ca: false, path_len_constraint: None };
    issue("CN=test module", 2, &constraints, KeyUsages::DigitalSignature)
}

/// A certificate of the root for the module key with this number.
fn issue(subject: &str, key: u8, constraints: &BasicConstraints, usage: KeyUsages) -> Vec<u8> {
    let (subject, issuer) = (Name::from_str(subject).unwrap(), Name::from_str(ROOT).unwrap());
    let extensions = vec![
        constraints.to_extension(&subject, &[]).unwrap(),
        KeyUsage(usage.into()).to_extension(&subject, &[]).unwrap(),
    ];
    let public = module_key(key).verifying_key().to_public_key_der().unwrap();
    let public = SubjectPublicKeyInfoOwned::from_der(public.as_bytes()).unwrap();
    let profile = Profile { subject, issuer, extensions };
    let builder = CertificateBuilder::new(profile, SerialNumber::from(key), validity(), public).unwrap();
    builder.build::<_, p384::ecdsa::DerSignature>(&module_key(1)).unwrap().to_der().unwrap()
}

/// A day around the tests' time.
fn validity() -> Validity {
    let date = |seconds| {
        Time::GeneralTime(GeneralizedTime::from_unix_duration(Duration::from_secs(seconds)).unwrap())
    };
    Validity::new(date(NOW - 43_200), date(NOW + 43_200))
}

/// A certificate with these names and extensions.
struct Profile {
    subject: Name,
    issuer: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}
