//! The enclave image file of AWS Nitro, version 4: written, read and explained.
//!
//! Its law: what is measured is kernel, command line and ramdisks, byte for byte and in this order. Files that two readers
//! could understand differently are refused: sections stand behind each other in the order of the table, and the headers
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

/// What an enclave image is made of.
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
    /// What the file says of itself; nothing of it is measured.
    pub metadata: Metadata,
    /// Bytes of memory the enclave gets unless it is told otherwise.
    pub default_memory: u64,
    /// Processors the enclave gets unless it is told otherwise.
    pub default_cpus: u64,
    /// Whether it is signed, and by whom.
    pub signing: Signing<'a>,
}

/// What stands in the signature section.
#[derive(Clone, Copy, Debug)]
pub enum Signing<'a> {
    /// There is none.
    Unsigned,
    /// A signature that is made with this key.
    By(&'a Signer),
    /// A section that was made for the same parts before ([`Signer::sign`]).
    Made(&'a [u8]),
}

/// What the vendor's tools show of a file. They refuse one that lacks a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// A name for people.
    pub image_name: String,
    /// A version for people.
    pub image_version: String,
    /// How it was built.
    pub build_metadata: BuildMetadata,
    /// What the container image said of itself. Empty: the build record has it.
    pub docker_info: BTreeMap<String, String>,
    /// Anything else, by name.
    pub custom_metadata: BTreeMap<String, String>,
}

/// How an image was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildMetadata {
    /// When, in the form of RFC 3339. The same for every build of the same inputs: [`FIXED_TIME`] unless the caller has a
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

/// How many times its file's length an enclave's memory must be at least: AWS's tools refuse less
/// (aws-nitro-enclaves-cli, pull request 198), since file, ramdisks and what is unpacked of them lie in it side by side.
pub const MEMORY_FACTOR: u64 = 4;

/// The time of builds that have none: the vendor's tools want one, and the real one would change the bytes.
pub const FIXED_TIME: &str = "1970-01-01T00:00:00+00:00";

/// Why a file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The parts do not make an enclave image: our caller's fault, or the manifest's.
    #[error("an enclave image cannot be made of this: {0}")]
    Parts(&'static str),
    /// A part or the file could not be read.
    #[error("{part} cannot be read")]
    Read {
        /// What was read.
        part: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The file could not be written: a full disk, most likely.
    #[error("the enclave image cannot be written")]
    Write(#[source] io::Error),
    /// Whoever made the file made it wrong, or it was altered since.
    #[error("this is not a sound enclave image: {0}")]
    Damaged(Damage),
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Shorter than a header.
    #[error("it is shorter than its header")]
    Short,
    /// Other first bytes.
    #[error("it does not begin with `.eif`")]
    Magic,
    /// Another version of the format.
    #[error("its format is version {0}, and only version 4 is known")]
    Version(u16),
    /// Flags or reserved fields that mean nothing yet.
    #[error("it sets flags or fields that have no meaning: {0}")]
    Reserved(&'static str),
    /// A number of sections that no image has.
    #[error("it says it has {0} sections; from 3 to 32 are possible")]
    SectionCount(u16),
    /// A section that is not where the one before it ends.
    #[error("section {0} overlaps another or leaves a gap")]
    Place(usize),
    /// A section that reaches past the end, or bytes behind the last one.
    #[error("section {0} does not end where the file says")]
    End(usize),
    /// Bytes behind the last section.
    #[error("{0} bytes follow the last section")]
    Trailing(u64),
    /// A section whose own header disagrees with the table.
    #[error("section {0} has another size in its header than in the table")]
    Disagreement(usize),
    /// A kind of section that is not known.
    #[error("section {section} is of the unknown kind {kind}")]
    Kind {
        /// Which.
        section: usize,
        /// Its number.
        kind: u16,
    },
    /// A section that may be there once, twice.
    #[error("it has more than one {0}")]
    Duplicate(Kind),
    /// A section that must be there.
    #[error("it has no {0}")]
    Missing(Kind),
    /// Sections in an order that would be measured differently from how it is loaded.
    #[error("its {0} stands in the wrong place")]
    Order(Kind),
    /// A section longer than any real one.
    #[error("its {kind} is {size} bytes long; the limit is {limit}")]
    TooLong {
        /// Which kind.
        kind: Kind,
        /// How long it is.
        size: u64,
        /// How long it may be.
        limit: u64,
    },
    /// A checksum that is not that of the bytes.
    #[error("its checksum is {found:08x}, but its bytes have {computed:08x}")]
    Checksum {
        /// What the header says.
        found: u32,
        /// What the bytes have.
        computed: u32,
    },
    /// A command line that the kernel would not get as it stands there.
    #[error("its command line is not text without control characters")]
    CommandLine,
    /// Metadata that are no JSON object.
    #[error("its metadata are not a JSON object")]
    Metadata,
    /// A signature that does not hold.
    #[error("its signature section lies: {0}")]
    Signature(&'static str),
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}
