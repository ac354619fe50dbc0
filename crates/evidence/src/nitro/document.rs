//! The payload: what the document states.
//!
//! Invariant: every field has the type and the limits of the vendor's specification (aws-nitro-enclaves-nsm-api,
//! `docs/attestation_process.md`), and there is no other field: one that this file does not know may qualify the
//! others.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use minicbor::data::Type;
use minicbor::decode::Decoder;

use super::cbor::{self, Maps, Refusal, malformed};
use crate::policy::{REGISTER_LENGTHS, Registers};

/// The beginning of the module ID in a document of the `virtual` platform. A module of AWS Nitro begins with the ID of
/// its instance, `i-`.
pub const VIRTUAL_PREFIX: &str = "virtual-";

/// Maximum bytes of a module ID; one has about 40.
const MODULE_ID_LIMIT: usize = 256;

/// The largest number of a register.
const REGISTER_MAX: u16 = 31;

/// Maximum bytes of a certificate.
const CERTIFICATE_LIMIT: usize = 1024;

/// Maximum certificates of a bundle: the root and the six intermediates that webpki follows. AWS Nitro sends four in
/// all.
const BUNDLE_LIMIT: u64 = 7;

/// Maximum bytes of user data and of a nonce.
const DATA_LIMIT: usize = 512;

/// Maximum bytes of a public key.
const KEY_LIMIT: usize = 1024;

/// Who states that it has created a document. The root of its certificates decides whether that is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// AWS Nitro Enclaves.
    Nitro,
    /// The development platform, without any protection by hardware.
    Virtual,
}

/// A document's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The platform, as the module ID states it.
    pub platform: Platform,
    /// The module that created the document: printable ASCII.
    pub module_id: String,
    /// When it was created, in milliseconds since 1970.
    pub timestamp: u64,
    /// The locked registers, by number. Registers that are not locked are not part of a document.
    pub registers: Registers,
    /// The certificate whose key signed the document, in DER.
    pub certificate: Vec<u8>,
    /// The certificates from the root to the issuer of [`Self::certificate`], in DER.
    pub bundle: Vec<Vec<u8>>,
    /// The public key that the enclave passed, if any.
    pub public_key: Option<Vec<u8>>,
    /// The user data that the enclave passed, if any.
    pub user_data: Option<Vec<u8>>,
    /// The nonce that the enclave passed, if any.
    pub nonce: Option<Vec<u8>>,
}

/// The fields that have been read.
#[derive(Default)]
struct Fields {
    module_id: Option<String>,
    digest: bool,
    timestamp: Option<u64>,
    registers: Option<Registers>,
    certificate: Option<Vec<u8>>,
    bundle: Option<Vec<Vec<u8>>>,
    public_key: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
}

impl Platform {
    /// Its name in verdicts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nitro => "nitro",
            Self::Virtual => "virtual",
        }
    }
}

impl Document {
    /// Reads a payload. Nothing in it is authentic yet.
    pub(super) fn read(payload: &[u8]) -> Result<Self, Refusal> {
        cbor::check(payload, Maps::Any)?;
        let mut read = Decoder::new(payload);
        if !matches!(read.datatype(), Ok(Type::Map | Type::MapIndef)) {
            return Err("the payload is not a map".into());
        }
        let mut fields = Fields::default();
        cbor::entries(&mut read, |read| fields.read(read))?;
        fields.complete()
    }
}

impl Fields {
    fn read(&mut self, read: &mut Decoder<'_>) -> Result<(), Refusal> {
        match read.str().map_err(|_| Refusal::from("the payload has a field whose name is not text"))? {
            "module_id" => self.module_id = Some(module_id(read)?),
            "digest" => {
                let digest = read.str().map_err(|_| Refusal::from("digest is not text"))?;
                self.digest = digest == "SHA384";
            }
            "timestamp" => self.timestamp = Some(timestamp(read)?),
            "pcrs" => self.registers = Some(registers(read)?),
            "certificate" => self.certificate = Some(certificate(read, "certificate")?),
            "cabundle" => self.bundle = Some(bundle(read)?),
            "public_key" => self.public_key = optional(read, "public_key", 1, KEY_LIMIT)?,
            "user_data" => self.user_data = optional(read, "user_data", 0, DATA_LIMIT)?,
            "nonce" => self.nonce = optional(read, "nonce", 0, DATA_LIMIT)?,
            _ => return Err("the payload has a field that is not in the specification".into()),
        }
        Ok(())
    }

    fn complete(self) -> Result<Document, Refusal> {
        fn present<T>(field: Option<T>, name: &str) -> Result<T, Refusal> {
            field.ok_or_else(|| format!("{name} is missing").into())
        }
        if !self.digest {
            return Err("digest is not SHA384".into());
        }
        let module_id = present(self.module_id, "module_id")?;
        let platform =
            if module_id.starts_with(VIRTUAL_PREFIX) { Platform::Virtual } else { Platform::Nitro };
        Ok(Document {
            platform,
            module_id,
            timestamp: present(self.timestamp, "timestamp")?,
            registers: present(self.registers, "pcrs")?,
            certificate: present(self.certificate, "certificate")?,
            bundle: present(self.bundle, "cabundle")?,
            public_key: self.public_key,
            user_data: self.user_data,
            nonce: self.nonce,
        })
    }
}

fn module_id(read: &mut Decoder<'_>) -> Result<String, Refusal> {
    let text = read.str().map_err(|_| Refusal::from("module_id is not text"))?;
    if text.is_empty() || text.len() > MODULE_ID_LIMIT || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("module_id is not 1 to {MODULE_ID_LIMIT} printable letters").into());
    }
    Ok(text.into())
}

fn timestamp(read: &mut Decoder<'_>) -> Result<u64, Refusal> {
    match read.u64() {
        Ok(0) => Err("timestamp is zero".into()),
        Ok(milliseconds) => Ok(milliseconds),
        Err(_) => Err("timestamp is not a number of milliseconds".into()),
    }
}

fn registers(read: &mut Decoder<'_>) -> Result<Registers, Refusal> {
    if !matches!(read.datatype(), Ok(Type::Map | Type::MapIndef)) {
        return Err("pcrs is not a map".into());
    }
    let mut registers = Registers::new();
    cbor::entries(read, |read| {
        let index = read.u16().ok().filter(|index| *index <= REGISTER_MAX);
        let index =
            index.ok_or_else(|| Refusal::from(format!("pcrs has a key that is not 0 to {REGISTER_MAX}")))?;
        let value = read.bytes().ok().filter(|value| REGISTER_LENGTHS.contains(&value.len()));
        let value = value.ok_or_else(|| Refusal::from(format!("PCR{index} is not 32, 48 or 64 bytes")))?;
        registers.insert(index, value.into());
        Ok(())
    })?;
    if registers.is_empty() { Err("pcrs is empty".into()) } else { Ok(registers) }
}

fn certificate(read: &mut Decoder<'_>, name: &str) -> Result<Vec<u8>, Refusal> {
    let bytes = read.bytes().ok().filter(|bytes| (1..=CERTIFICATE_LIMIT).contains(&bytes.len()));
    bytes.map(Vec::from).ok_or_else(|| format!("{name} is not 1 to {CERTIFICATE_LIMIT} bytes").into())
}

fn bundle(read: &mut Decoder<'_>) -> Result<Vec<Vec<u8>>, Refusal> {
    let count = read.array().map_err(|_| Refusal::from("cabundle is not an array"))?.unwrap_or_default();
    if !(1..=BUNDLE_LIMIT).contains(&count) {
        return Err(format!("cabundle has {count} certificates, the limits are 1 and {BUNDLE_LIMIT}").into());
    }
    (0..count).map(|_| certificate(read, "a certificate of cabundle")).collect()
}

/// A field that may be missing, which the module also writes as null.
fn optional(
    read: &mut Decoder<'_>,
    name: &str,
    least: usize,
    most: usize,
) -> Result<Option<Vec<u8>>, Refusal> {
    if read.datatype().map_err(malformed)? == Type::Null {
        read.null().map_err(malformed)?;
        return Ok(None);
    }
    let bytes = read.bytes().map_err(|_| Refusal::from(format!("{name} is not a byte string")))?;
    if !(least..=most).contains(&bytes.len()) {
        let length = bytes.len();
        return Err(format!("{name} has {length} bytes, the limits are {least} and {most}").into());
    }
    Ok(Some(bytes.into()))
}
