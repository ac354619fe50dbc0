//! Makes documents and certificates as AWS Nitro and the development platform do, under a root that exists in tests
//! only.
//!
//! Invariant: everything is derived from fixed keys, so that the same draft gives the same bytes. DER and CBOR are
//! written here by hand, independently of the readers under test, so that malformed forms can be written too.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use minicbor::encode::Encoder;
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};

use crate::nitro::cose;

/// 2026-01-01 00:00:00 UTC, from which on the signer's certificate is valid for three hours, as those of AWS Nitro.
pub(crate) const FROM: u64 = 1_767_225_600;
pub(crate) const TO: u64 = FROM + 3 * 3600;

/// A time at which everything is valid, a second after the draft's timestamp.
pub(crate) const NOW: u64 = FROM + 61;

pub(crate) const ES384: [u8; 12] = [0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
pub(crate) const ES256: [u8; 12] = [0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const P384_KEY: &[u8] = &[0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22];
pub(crate) const P256_KEY: &[u8] =
    &[0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

/// Bits of a key usage, in the first byte of its bit string (RFC 5280, section 4.2.1.3).
pub(crate) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(crate) const CERTIFICATE_SIGN: u8 = 0x04;

/// The key with this number.
pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_slice(&[number; 48]).unwrap()
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match length {
        [0, short @ 0..=0x7f] => vec![short],
        [0, long] => vec![0x81, long],
        [high, low] => vec![0x82, high, low],
    };
    [vec![tag], length, content].concat()
}

/// Whether a certificate is an authority.
#[derive(Clone, Copy)]
pub(crate) enum Authority {
    No,
    /// Any number of authorities may follow it.
    Any,
    /// At most so many may.
    Most(u8),
}

/// A certificate to be issued.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) subject: &'static str,
    pub(crate) issuer: &'static str,
    /// `YYMMDDHHMMSSZ`.
    pub(crate) validity: [&'static str; 2],
    pub(crate) authority: Authority,
    pub(crate) usage: u8,
    /// A critical extension that nobody knows.
    pub(crate) unknown: bool,
    pub(crate) algorithm: [u8; 12],
    pub(crate) key_algorithm: &'static [u8],
    pub(crate) key: u8,
}

impl Certificate {
    fn authority(subject: &'static str, issuer: &'static str, key: u8, authority: Authority) -> Self {
        Self {
            subject,
            issuer,
            validity: ["200101000000Z", "491231235959Z"],
            authority,
            usage: CERTIFICATE_SIGN,
            unknown: false,
            algorithm: ES384,
            key_algorithm: P384_KEY,
            key,
        }
    }

    /// The certificate, signed with the issuer's key.
    pub(crate) fn issue(&self, issuer: u8) -> Vec<u8> {
        let point = key(self.key).verifying_key().to_sec1_point(false).as_bytes().to_vec();
        let body = der(
            0x30,
            &[
                &der(0xa0, &[&[2, 1, 2]]),
                &[2, 1, self.key],
                &self.algorithm,
                &name(self.issuer),
                &der(
                    0x30,
                    &self.validity.map(|time| der(0x17, &[time.as_bytes()])).each_ref().map(Vec::as_slice),
                ),
                &name(self.subject),
                &der(0x30, &[self.key_algorithm, &der(3, &[&[0], &point])]),
                &der(0xa3, &[&self.extensions()]),
            ],
        );
        let signature: Signature = key(issuer).sign(&body);
        der(0x30, &[&body, &self.algorithm, &der(3, &[&[0], signature.to_der().as_bytes()])])
    }

    fn extensions(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let constraints = match self.authority {
            Authority::Most(path) => der(0x30, &[&[1, 1, 0xff], &[2, 1, path]]),
            Authority::Any => der(0x30, &[&[1, 1, 0xff]]),
            Authority::No => der(0x30, &[]),
        };
        all.push(extension(&[0x55, 0x1d, 0x13], &constraints));
        if self.usage != 0 {
            all.push(extension(&[0x55, 0x1d, 0x0f], &der(3, &[&[unused(self.usage), self.usage]])));
        }
        if self.unknown {
            all.push(extension(&[0x55, 0x1d, 0x63], &[5, 0]));
        }
        der(0x30, &all.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }
}

/// The number of unused bits of a bit string of one byte.
fn unused(bits: u8) -> u8 {
    u8::try_from(bits.trailing_zeros()).unwrap()
}

fn extension(id: &[u8], value: &[u8]) -> Vec<u8> {
    der(0x30, &[&der(6, &[id]), &[1, 1, 0xff], &der(4, &[value])])
}

fn name(common: &str) -> Vec<u8> {
    der(0x30, &[&der(0x31, &[&der(0x30, &[&[6, 3, 0x55, 4, 3], &der(0x0c, &[common.as_bytes()])])])])
}

/// The certificates from the root to the signer's, as those of AWS Nitro.
pub(crate) fn chain() -> [Certificate; 5] {
    let signer = Certificate {
        validity: ["260101000000Z", "260101030000Z"],
        usage: DIGITAL_SIGNATURE,
        ..Certificate::authority("enclave", "instance", 5, Authority::No)
    };
    [
        Certificate::authority("root", "root", 1, Authority::Any),
        Certificate::authority("region", "root", 2, Authority::Most(2)),
        Certificate::authority("zone", "region", 3, Authority::Most(1)),
        Certificate::authority("instance", "zone", 4, Authority::Most(0)),
        signer,
    ]
}

/// Issues each certificate by the one before it, and the first by itself.
pub(crate) fn issue(chain: &[Certificate]) -> Vec<Vec<u8>> {
    let issuers = chain.iter().take(1).chain(chain);
    chain.iter().zip(issuers).map(|(certificate, issuer)| certificate.issue(issuer.key)).collect()
}

/// A document to be signed.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) module_id: String,
    pub(crate) digest: &'static str,
    pub(crate) timestamp: u64,
    pub(crate) registers: Vec<(u16, Vec<u8>)>,
    pub(crate) public_key: Option<Vec<u8>>,
    pub(crate) user_data: Option<Vec<u8>>,
    pub(crate) nonce: Option<Vec<u8>>,
    /// The certificates, the signer's last.
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) protected: Vec<u8>,
    pub(crate) unprotected: Vec<u8>,
    /// Further entries of the payload, encoded, and their number.
    pub(crate) further: (u64, Vec<u8>),
    /// Bytes after the payload's map.
    pub(crate) trailing: Vec<u8>,
}

impl Draft {
    /// A document of an enclave in production, a minute after its certificate was issued.
    pub(crate) fn nitro() -> Self {
        let value = |register: u16| vec![u8::try_from(register).unwrap() + 1; 48];
        Self {
            module_id: "i-0123456789abcdef0-enc0123456789abcdef".into(),
            digest: "SHA384",
            timestamp: (FROM + 60) * 1000,
            registers: (0..16)
                .map(|index| (index, if index < 5 { value(index) } else { vec![0; 48] }))
                .collect(),
            public_key: None,
            user_data: None,
            nonce: None,
            certificates: issue(&chain()),
            protected: b"\xa1\x01\x38\x22".to_vec(),
            unprotected: b"\xa0".to_vec(),
            further: (0, Vec::new()),
            trailing: Vec::new(),
        }
    }

    /// The same of the development platform.
    pub(crate) fn virtual_platform() -> Self {
        Self { module_id: "virtual-hello".into(), ..Self::nitro() }
    }

    /// The SHA-256 digest of its root.
    pub(crate) fn root(&self) -> [u8; 32] {
        crate::nitro::chain::fingerprint(&self.certificates[0])
    }

    pub(crate) fn set(&mut self, register: u16, value: &[u8]) {
        self.registers.retain(|(index, _)| *index != register);
        self.registers.push((register, value.to_vec()));
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        let mut out = Encoder::new(Vec::new());
        out.map(9 + self.further.0).unwrap();
        out.str("module_id").unwrap().str(&self.module_id).unwrap();
        out.str("digest").unwrap().str(self.digest).unwrap();
        out.str("timestamp").unwrap().u64(self.timestamp).unwrap();
        out.str("pcrs").unwrap().map(u64::try_from(self.registers.len()).unwrap()).unwrap();
        for (index, value) in &self.registers {
            out.u16(*index).unwrap().bytes(value).unwrap();
        }
        let (signer, bundle) = self.certificates.split_last().unwrap();
        out.str("certificate").unwrap().bytes(signer).unwrap();
        out.str("cabundle").unwrap().array(u64::try_from(bundle.len()).unwrap()).unwrap();
        for certificate in bundle {
            out.bytes(certificate).unwrap();
        }
        for (name, value) in
            [("public_key", &self.public_key), ("user_data", &self.user_data), ("nonce", &self.nonce)]
        {
            match value {
                Some(bytes) => out.str(name).unwrap().bytes(bytes).unwrap(),
                None => out.str(name).unwrap().null().unwrap(),
            };
        }
        [out.into_writer(), self.further.1.clone(), self.trailing.clone()].concat()
    }

    /// The document, signed with the key of the signer's certificate.
    pub(crate) fn sign(&self) -> Vec<u8> {
        self.sign_payload(&self.payload())
    }

    /// The same with another payload.
    pub(crate) fn sign_payload(&self, payload: &[u8]) -> Vec<u8> {
        let signature: Signature = key(5).sign(&cose::to_be_signed(&self.protected, payload));
        self.envelope(payload, &signature.to_bytes())
    }

    /// The same with another payload and signature.
    pub(crate) fn envelope(&self, payload: &[u8], signature: &[u8]) -> Vec<u8> {
        let mut out = Encoder::new(Vec::new());
        out.array(4).unwrap().bytes(&self.protected).unwrap();
        let mut out = Encoder::new([out.into_writer(), self.unprotected.clone()].concat());
        out.bytes(payload).unwrap().bytes(signature).unwrap();
        out.into_writer()
    }
}
