//! The key of the enclave's TLS certificate.
//!
//! Invariant: it is made in the enclave, from the kernel's generator, and leaves this process only into sealed memory that init
//! and the supervisor keep open and do not read, so that it outlives a crash. It signs nothing but the handshakes of TLS 1.3 servers, and its own certificates.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::EncodePublicKey as _;
use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals};
use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes of a private key on P-256.
const BYTES: usize = 32;

/// Neither this process nor another can change the key any more.
const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// What a TLS 1.3 server signs before the hash of the handshake (RFC 8446, section 4.4.3): so no signature of it can be used as
/// one of anything else, such as a certificate.
const PADDING: [u8; 64] = [b' '; 64];
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";

/// Lengths of the hash: of SHA-256 and SHA-384, the hashes of TLS 1.3's cipher suites.
const HASHES: [usize; 2] = [32, 48];

/// The key.
pub(crate) struct TlsKey(SigningKey);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The memory or the kernel's generator failed.
    #[error("cannot read or make the key of the TLS certificate")]
    System(#[from] io::Error),
    /// The memory contains something else.
    #[error("the memory of the key of the TLS certificate is damaged")]
    Damaged,
}

impl TlsKey {
    /// The key in this memory; a new one if the memory has not been sealed yet.
    pub(crate) fn open(memory: OwnedFd) -> Result<Self, KeyError> {
        let file = File::from(memory);
        if fcntl_get_seals(&file).map_err(io::Error::from)?.contains(SealFlags::WRITE) {
            let mut bytes = [0; BYTES];
            file.read_exact_at(&mut bytes, 0)?;
            return SigningKey::from_slice(&bytes).map(Self).map_err(|_| KeyError::Damaged);
        }
        // A predecessor that was killed before it sealed the memory has not used its key.
        let key = new_key()?;
        file.write_all_at(&key.to_bytes(), 0)?;
        fcntl_add_seals(&file, SEALS).map_err(io::Error::from)?;
        Ok(Self(key))
    }

    /// The public key, as a certificate contains it (`SubjectPublicKeyInfo` in DER).
    pub(crate) fn public(&self) -> Result<Vec<u8>, p256::pkcs8::spki::Error> {
        Ok(self.0.verifying_key().to_public_key_der()?.into_vec())
    }

    /// The signature of a TLS 1.3 server's `CertificateVerify` (ECDSA with SHA-256, DER); `None` for any other content.
    pub(crate) fn sign_handshake(&self, content: &[u8]) -> Option<Vec<u8>> {
        let hash = content.strip_prefix(&PADDING)?.strip_prefix(CONTEXT)?;
        if !HASHES.contains(&hash.len()) {
            return None;
        }
        let signature: DerSignature = self.0.sign(content);
        Some(signature.as_bytes().to_vec())
    }

    /// The key, for its own certificate.
    pub(crate) fn for_certificate(&self) -> &SigningKey {
        &self.0
    }
}

fn new_key() -> io::Result<SigningKey> {
    loop {
        let mut bytes = [0; BYTES];
        random(&mut bytes)?;
        // All but one in 2^32 numbers of this length are keys.
        if let Ok(key) = SigningKey::from_slice(&bytes) {
            return Ok(key);
        }
    }
}

/// Fills `bytes` from the kernel's generator, which init has seeded.
pub(crate) fn random(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = getrandom(&mut *bytes, GetRandomFlags::empty())?;
        bytes = bytes.get_mut(count..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::VerifyingKey;
    use p256::ecdsa::signature::Verifier as _;
    use p256::pkcs8::DecodePublicKey as _;
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn memory() -> OwnedFd {
        memfd_create("key", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap()
    }

    fn content(hash: usize) -> Vec<u8> {
        [&PADDING[..], b"TLS 1.3, server CertificateVerify\0", &vec![7; hash]].concat()
    }

    #[test]
    fn the_key_outlives_the_program_and_cannot_be_replaced() {
        let memory = memory();
        let public = TlsKey::open(memory.try_clone().unwrap()).unwrap().public().unwrap();
        assert_eq!(TlsKey::open(memory.try_clone().unwrap()).unwrap().public().unwrap(), public);
        assert!(File::from(memory).write_all_at(&[1; BYTES], 0).is_err());
        assert_ne!(TlsKey::open(self::memory()).unwrap().public().unwrap(), public);
    }

    #[test]
    fn a_key_that_was_being_written_is_made_anew() {
        let memory = memory();
        File::from(memory.try_clone().unwrap()).write_all_at(&[0; 7], 0).unwrap();
        let public = TlsKey::open(memory.try_clone().unwrap()).unwrap().public().unwrap();
        assert_eq!(TlsKey::open(memory).unwrap().public().unwrap(), public);
    }

    #[test]
    fn only_handshakes_of_a_tls_1_3_server_are_signed() {
        let key = TlsKey::open(memory()).unwrap();
        let public = VerifyingKey::from_public_key_der(&key.public().unwrap()).unwrap();
        for hash in HASHES {
            let signature = key.sign_handshake(&content(hash)).unwrap();
            public.verify(&content(hash), &DerSignature::from_bytes(&signature).unwrap()).unwrap();
        }
        let client: Vec<u8> = [&PADDING[..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
        for other in [b"".to_vec(), vec![7; 32], content(0), content(33), content(64), client] {
            assert!(key.sign_handshake(&other).is_none(), "{other:?}");
        }
    }
}
