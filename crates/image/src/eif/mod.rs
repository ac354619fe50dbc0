//! The enclave image file of AWS Nitro, version 4: written, read and explained.
//!
//! Invariant: kernel, command line and ramdisks are measured, byte for byte and in this order. Files that two readers
//! could interpret differently are refused: sections follow each other in the order of the table, and their headers
//! agree with it.
//!
//! ```text
//! header (548 bytes)   magic, version, flags, defaults, a table of 32 positions and sizes, CRC-32 of everything else
//! section              12 bytes: kind, flags, size; then its bytes
//! …                    kernel, command line, metadata, ramdisks, signature
//! ```
//!
//! All numbers are big-endian. Sources: `src/defs/mod.rs` and `src/utils/mod.rs` of the crate
//! `aws-nitro-enclaves-image-format` 0.8.1. Building the ramdisks is left to [`crate::ramdisk`].

mod certificate;
mod cose;
mod explain;
mod format;
mod read;
mod sign;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

pub use certificate::{Certificate, Validity};
pub use explain::{Explanation, SectionDigest, SignatureDetails, explain};
pub use format::{Arch, Kind};
pub use read::{Eif, Section};
pub use sign::{SignError, Signer};
pub use write::{Summary, write};

use crate::tree::Content;
#[cfg(test)]
use crate::wide;

/// The parts of an enclave image file.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// The processor it is for.
    pub arch: Arch,
    /// The kernel: a bzImage on x86-64, an Image on aarch64.
    pub kernel: Content,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// The ramdisks: first the operating system's, then the application's.
    pub ramdisks: Vec<Content>,
    /// The file's metadata, which is not measured.
    pub metadata: Metadata,
    /// Default memory of the enclave in bytes.
    pub default_memory: u64,
    /// Default number of processors of the enclave.
    pub default_cpus: u64,
    /// Whether and how it is signed.
    pub signing: Signing<'a>,
}

/// The signature section.
#[derive(Clone, Copy, Debug)]
pub enum Signing<'a> {
    /// No signature section.
    Unsigned,
    /// A new signature with this key.
    By(&'a Signer),
    /// A section that was created before for the same parts ([`Signer::sign`]).
    Made(&'a [u8]),
}

/// The metadata that the vendor's tools show. They refuse a file that lacks one of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// The image's name.
    pub image_name: String,
    /// The image's version.
    pub image_version: String,
    /// How it was built.
    pub build_metadata: BuildMetadata,
    /// The container image's own metadata. Empty: the build record contains it.
    pub docker_info: BTreeMap<String, String>,
    /// Anything else, by name.
    pub custom_metadata: BTreeMap<String, String>,
}

/// How an image was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildMetadata {
    /// The time, as in RFC 3339. The same for every build of the same inputs: [`FIXED_TIME`] unless the caller has a
    /// better one.
    pub build_time: String,
    /// The program that built it.
    pub build_tool: String,
    /// That program's version.
    pub build_tool_version: String,
    /// `Linux`.
    pub operating_system: String,
    /// The kernel's version.
    pub kernel_version: String,
}

/// Minimum ratio of an enclave's memory to the length of its file: AWS's tools refuse less (aws-nitro-enclaves-cli,
/// pull request 198), since the memory holds the file, the ramdisks and their unpacked content at the same time.
pub const MEMORY_FACTOR: u64 = 4;

/// The build time of every build: the vendor's tools require one, and the real one would change the bytes.
pub const FIXED_TIME: &str = "1970-01-01T00:00:00+00:00";

/// Why a file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The parts cannot form an enclave image file: a problem of the caller, or of the manifest.
    #[error("cannot create an enclave image file: {0}")]
    Parts(&'static str),
    /// A part or the file could not be read.
    #[error("{part} cannot be read")]
    Read {
        /// What was read.
        part: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The file could not be written: most likely, the disk is full.
    #[error("the enclave image file cannot be written")]
    Write(#[source] io::Error),
    /// The file was created incorrectly, or changed afterwards.
    #[error("this is not a valid enclave image file: {0}")]
    Damaged(Damage),
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Shorter than a header.
    #[error("it is shorter than its header")]
    Short,
    /// Wrong magic number.
    #[error("it does not begin with `.eif`")]
    Magic,
    /// An unsupported version of the format.
    #[error("its format version is {0}, and only version 4 is supported")]
    Version(u16),
    /// Undefined flags, or reserved fields that are not zero.
    #[error("it sets reserved bits: {0}")]
    Reserved(&'static str),
    /// An impossible number of sections.
    #[error("its header states {0} sections; 3 to 32 are possible")]
    SectionCount(u16),
    /// A section that does not begin where the one before it ends.
    #[error("section {0} overlaps another or leaves a gap")]
    Place(usize),
    /// A section that extends past the end of the file.
    #[error("section {0} extends past the end of the file")]
    End(usize),
    /// Bytes after the last section.
    #[error("{0} bytes follow the last section")]
    Trailing(u64),
    /// A section whose own header disagrees with the table.
    #[error("the size of section {0} differs between its header and the table")]
    Disagreement(usize),
    /// A section of an unknown kind.
    #[error("section {section} has the unknown kind {kind}")]
    Kind {
        /// The section's number.
        section: usize,
        /// The kind's number.
        kind: u16,
    },
    /// A second section of a kind that may occur once.
    #[error("it has more than one {0}")]
    Duplicate(Kind),
    /// A required section is missing.
    #[error("it has no {0}")]
    Missing(Kind),
    /// Sections in another order than the one in which they are measured.
    #[error("its {0} is in the wrong position")]
    Order(Kind),
    /// A section longer than its limit.
    #[error("its {kind} has {size} bytes; the limit is {limit}")]
    TooLong {
        /// The kind of the section.
        kind: Kind,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The checksum does not match.
    #[error("the checksum in its header is {found:08x}, but that of its content is {computed:08x}")]
    Checksum {
        /// The checksum in the header.
        found: u32,
        /// The checksum of the content.
        computed: u32,
    },
    /// A command line that the kernel would not receive unchanged.
    #[error("its command line is not UTF-8 or has control characters")]
    CommandLine,
    /// Metadata that is not a JSON object.
    #[error("its metadata is not a JSON object")]
    Metadata,
    /// An invalid signature.
    #[error("its signature section is invalid: {0}")]
    Signature(&'static str),
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}
