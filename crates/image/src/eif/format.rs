//! The header, its table and the kinds of sections.
//!
//! Invariant: a decoded header has a known version and no undefined bit set.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Damage;

/// `.eif`.
const MAGIC: [u8; 4] = *b".eif";
/// The version with metadata, written by every tool since 2022.
const VERSION: u16 = 4;
/// The number of table entries (`MAX_NUM_SECTIONS`).
pub(crate) const SECTIONS_MAX: usize = 32;
/// Bytes of the header.
pub(crate) const HEADER: usize = 548;
/// [`HEADER`] for positions.
pub(crate) const HEADER_BYTES: u64 = 548;
/// Bytes of the header before the checksum, which is its last field.
pub(crate) const SUMMED: usize = HEADER - 4;
/// Bytes of a section's header.
pub(crate) const SECTION_HEADER: usize = 12;
/// [`SECTION_HEADER`] for positions.
pub(crate) const SECTION_HEADER_BYTES: u64 = 12;
/// The flag of aarch64; x86-64 has none (`EIF_HDR_ARCH_ARM64`).
const ARM64: u16 = 1;

/// Maximum length of a command line: both architectures' kernels accept 2048 bytes including the zero at the end
/// (`COMMAND_LINE_SIZE`).
pub(crate) const COMMAND_LINE_MAX: u64 = 2047;
/// Maximum size of the metadata: enough for a container image's whole configuration.
pub(crate) const METADATA_MAX: u64 = 1 << 20;
/// Maximum size of a signature section: a certificate of 10 kB, each byte encoded as up to two, and a signature.
pub(crate) const SIGNATURE_MAX: u64 = 32 << 10;

/// The processor an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arch {
    /// 64-bit Intel and AMD.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm: Graviton.
    #[serde(rename = "aarch64")]
    Aarch64,
}

/// The kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The kernel.
    Kernel,
    /// The kernel's command line.
    CommandLine,
    /// A ramdisk.
    Ramdisk,
    /// A signature of PCR0 and its certificate.
    Signature,
    /// A JSON document that describes the image.
    Metadata,
}

/// The location of a section: the position of its header, and the size of its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// The header of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) arch: Arch,
    pub(crate) default_memory: u64,
    pub(crate) default_cpus: u64,
    pub(crate) slots: Vec<Slot>,
    pub(crate) checksum: u32,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Kernel, Self::CommandLine, Self::Ramdisk, Self::Signature, Self::Metadata];

    fn code(self) -> u16 {
        match self {
            Self::Kernel => 1,
            Self::CommandLine => 2,
            Self::Ramdisk => 3,
            Self::Signature => 4,
            Self::Metadata => 5,
        }
    }

    /// Maximum size of a section of this kind in bytes.
    pub(crate) fn limit(self) -> u64 {
        match self {
            Self::Kernel | Self::Ramdisk => u64::MAX,
            Self::CommandLine => COMMAND_LINE_MAX,
            Self::Metadata => METADATA_MAX,
            Self::Signature => SIGNATURE_MAX,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::CommandLine => "command line",
            Self::Ramdisk => "ramdisk",
            Self::Signature => "signature",
            Self::Metadata => "metadata",
        })
    }
}

/// A section's header. Section flags have no meaning and are 0.
pub(crate) fn section_header(kind: Kind, size: u64) -> [u8; SECTION_HEADER] {
    let ([k0, k1], [s0, s1, s2, s3, s4, s5, s6, s7]) = (kind.code().to_be_bytes(), size.to_be_bytes());
    [k0, k1, 0, 0, s0, s1, s2, s3, s4, s5, s6, s7]
}

/// The kind and the size in the header of section `number`.
pub(crate) fn decode_section(number: usize, bytes: [u8; SECTION_HEADER]) -> Result<(Kind, u64), Damage> {
    let mut fields = Fields(&bytes);
    let (code, flags, size) = (fields.u16(), fields.u16(), fields.u64());
    if flags != 0 {
        return Err(Damage::Reserved("flags of a section"));
    }
    let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code);
    kind.map(|kind| (kind, size)).ok_or(Damage::Kind { section: number, kind: code })
}

impl Header {
    /// The header's bytes. There are at most [`SECTIONS_MAX`] slots.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(match self.arch {
            Arch::X86_64 => [0, 0],
            Arch::Aarch64 => ARM64.to_be_bytes(),
        });
        bytes.extend(self.default_memory.to_be_bytes());
        bytes.extend(self.default_cpus.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(u16::try_from(self.slots.len()).unwrap_or_default().to_be_bytes());
        let unused = std::iter::repeat(Slot::default());
        let slots = || self.slots.iter().copied().chain(unused.clone()).take(SECTIONS_MAX);
        slots().for_each(|slot| bytes.extend(slot.offset.to_be_bytes()));
        slots().for_each(|slot| bytes.extend(slot.size.to_be_bytes()));
        bytes.extend([0; 4]);
        bytes.extend(self.checksum.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, Damage> {
        let mut fields = Fields(bytes);
        if fields.array() != MAGIC {
            return Err(Damage::Magic);
        }
        let version = fields.u16();
        if version != VERSION {
            return Err(Damage::Version(version));
        }
        let arch = match fields.u16() {
            0 => Arch::X86_64,
            ARM64 => Arch::Aarch64,
            _ => return Err(Damage::Reserved("flags of the header")),
        };
        let (default_memory, default_cpus) = (fields.u64(), fields.u64());
        let (reserved, count) = (fields.u16(), fields.u16());
        // Booting requires at least a kernel, a command line and a ramdisk.
        if !(3..=SECTIONS_MAX).contains(&usize::from(count)) {
            return Err(Damage::SectionCount(count));
        }
        let slots = decode_slots(&mut fields, count.into())?;
        if reserved != 0 || fields.u32() != 0 {
            return Err(Damage::Reserved("reserved fields of the header"));
        }
        Ok(Self { arch, default_memory, default_cpus, slots, checksum: fields.u32() })
    }
}

fn decode_slots(fields: &mut Fields<'_>, count: usize) -> Result<Vec<Slot>, Damage> {
    let offsets: Vec<u64> = (0..SECTIONS_MAX).map(|_| fields.u64()).collect();
    let sizes: Vec<u64> = (0..SECTIONS_MAX).map(|_| fields.u64()).collect();
    let mut slots: Vec<Slot> =
        offsets.into_iter().zip(sizes).map(|(offset, size)| Slot { offset, size }).collect();
    let unused = slots.split_off(count);
    if unused.iter().any(|slot| *slot != Slot::default()) {
        return Err(Damage::Reserved("table entries after the last section"));
    }
    Ok(slots)
}

/// Reads numbers from the front of a slice. Past its end they are 0: callers pass slices of the right length.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let Some((taken, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *taken
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }
}
