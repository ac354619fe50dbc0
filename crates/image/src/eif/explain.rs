//! Describes a file in structured form: sections, digests, registers, signature, and what is not measured.
//!
//! Invariant: only a file with a correct checksum and, if it is signed, a valid signature is explained.

use std::io::{self, Write};

use crc32fast::Hasher;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha384};

use super::cose::Signed;
use super::format::{HEADER_BYTES, SECTION_HEADER_BYTES, SUMMED};
use super::{Arch, Certificate, Damage, Eif, Error, Kind, Section, Validity};
use crate::digest::{Digest, Hashed};
use crate::measure::{NitroPcrs, PcrHasher, Role};
use crate::wide;

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// What no register covers: anyone who passes the file on can change it without changing the attestation.
const UNMEASURED: [&str; 4] = [
    "the architecture, default memory and default processors of the header",
    "the metadata",
    "the checksum",
    "the signature (PCR8 covers the certificate, and only if the image is signed)",
];

/// The description of a file.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The processor it is for.
    pub arch: Arch,
    /// Bytes of the file.
    pub length: u64,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Bytes of memory an enclave gets by default.
    pub default_memory: u64,
    /// Processors an enclave gets by default.
    pub default_cpus: u64,
    /// CRC-32 of the file, which has been verified.
    pub checksum: u32,
    /// Its sections in their order.
    pub sections: Vec<SectionDigest>,
    /// The kernel's command line.
    pub command_line: String,
    /// The file's metadata. Not measured.
    pub metadata: Option<Map<String, Value>>,
    /// The registers that the hardware will report.
    pub pcrs: NitroPcrs,
    /// The signature, if it is signed.
    pub signature: Option<SignatureDetails>,
    /// What no register covers.
    pub unmeasured: [&'static str; 4],
}

/// A section and its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SectionDigest {
    /// Its kind.
    pub kind: Kind,
    /// Where its content begins, in bytes.
    pub offset: u64,
    /// Bytes of content.
    pub size: u64,
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Whether registers cover it.
    pub measured: bool,
}

/// A valid signature, and its certificate's own fields. Whether to trust the certificate is the reader's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignatureDetails {
    /// The certificate's subject.
    pub subject: String,
    /// The certificate's issuer.
    pub issuer: String,
    /// When it is valid.
    pub validity: Validity,
    /// SHA-384 of the certificate in DER, in hexadecimal digits: the fingerprint to compare.
    pub fingerprint: String,
}

/// Reads the whole file once and explains it.
pub fn explain(file: &Eif) -> Result<Explanation, Error> {
    let Pass { sections, pcrs: hasher, digest } = pass(file)?;
    let section = file.small(Kind::Signature)?;
    let signed = section.map(|section| Signed::decode(&section)).transpose().map_err(Damage::Signature)?;
    let certificate = signed.as_ref().map(|signed| Certificate::from_pem(&signed.certificate)).transpose();
    let certificate = certificate.map_err(Damage::Signature)?;
    let pcrs = hasher.finish(certificate.as_ref().map(Certificate::der));
    if let (Some(signed), Some(certificate)) = (&signed, &certificate) {
        signed.verify(&pcrs.pcr0, certificate.key()).map_err(Damage::Signature)?;
    }
    Ok(Explanation {
        arch: file.arch(),
        length: file.length(),
        digest,
        default_memory: file.header.default_memory,
        default_cpus: file.header.default_cpus,
        checksum: file.header.checksum,
        sections,
        command_line: command_line(file)?,
        metadata: metadata(file)?,
        pcrs,
        signature: certificate.as_ref().map(details),
        unmeasured: UNMEASURED,
    })
}

/// The result of reading every byte.
struct Pass {
    sections: Vec<SectionDigest>,
    pcrs: PcrHasher,
    digest: Digest,
}

/// Reads every byte, computes digests and registers, and verifies the checksum.
fn pass(file: &Eif) -> Result<Pass, Error> {
    let mut checksum = Hasher::new();
    let mut whole = Hashed::new(io::sink());
    let mut pcrs = PcrHasher::default();
    let mut ramdisks = 0;
    stream(file, 0, HEADER_BYTES, |bytes| {
        checksum.update(bytes.get(..SUMMED).unwrap_or_default());
        whole.write_all(bytes)
    })?;
    let mut sections = Vec::new();
    for section in file.sections() {
        let head = section.offset - SECTION_HEADER_BYTES;
        stream(file, head, SECTION_HEADER_BYTES, |bytes| {
            checksum.update(bytes);
            whole.write_all(bytes)
        })?;
        let role = role(section, &mut ramdisks);
        let mut digest = Hashed::new(io::sink());
        stream(file, section.offset, section.size, |bytes| {
            checksum.update(bytes);
            whole.write_all(bytes)?;
            if let Some(role) = role {
                pcrs.update(role, bytes);
            }
            digest.write_all(bytes)
        })?;
        let Section { kind, offset, size } = *section;
        let digest = digest.digest();
        sections.push(SectionDigest { kind, offset, size, digest, measured: role.is_some() });
    }
    let (found, computed) = (file.header.checksum, checksum.finalize());
    if found != computed {
        return Err(Damage::Checksum { found, computed }.into());
    }
    Ok(Pass { sections, pcrs, digest: whole.digest() })
}

/// How a section is measured; `None` if it is not.
fn role(section: &Section, ramdisks: &mut usize) -> Option<Role> {
    match section.kind {
        Kind::Kernel | Kind::CommandLine => Some(Role::System),
        Kind::Ramdisk => {
            *ramdisks += 1;
            Some(if *ramdisks == 1 { Role::System } else { Role::Application })
        }
        Kind::Metadata | Kind::Signature => None,
    }
}

fn stream(
    file: &Eif,
    start: u64,
    length: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let mut position = 0;
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(BUFFER).min(BUFFER)];
    while position < length {
        let wanted = usize::try_from(length - position).unwrap_or(BUFFER).min(BUFFER);
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        file.read(part, start + position)?;
        take(part).map_err(|source| Error::Read { part: "the enclave image", source })?;
        position += wide(wanted);
    }
    Ok(())
}

fn command_line(file: &Eif) -> Result<String, Error> {
    let bytes = file.small(Kind::CommandLine)?.unwrap_or_default();
    // The vendor's tools read the command line from a file, including the newline at its end.
    let is_line = |text: &String| !text.trim_end_matches('\n').chars().any(char::is_control);
    let text = String::from_utf8(bytes).ok().filter(is_line);
    text.ok_or_else(|| Damage::CommandLine.into())
}

fn metadata(file: &Eif) -> Result<Option<Map<String, Value>>, Error> {
    let Some(bytes) = file.small(Kind::Metadata)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        _ => Err(Damage::Metadata.into()),
    }
}

fn details(certificate: &Certificate) -> SignatureDetails {
    let fingerprint = Sha384::digest(certificate.der());
    SignatureDetails {
        subject: certificate.subject().to_owned(),
        issuer: certificate.issuer().to_owned(),
        validity: certificate.validity(),
        fingerprint: fingerprint.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
    }
}
