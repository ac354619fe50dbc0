//! Reads the structure of a file: the locations of its sections.
//!
//! Invariant: in an [`Eif`], each section is inside the file, follows the one before it, has the same size in its
//! header and in the table, is in measurement order, and is within the limits of its kind. Contents have not been
//! checked.

use super::format::{
    Arch, HEADER, HEADER_BYTES, Header, Kind, SECTION_HEADER, SECTION_HEADER_BYTES, Slot, decode_section,
};
use super::{Damage, Error};
use crate::tree::Content;

/// A file with a valid structure.
#[derive(Clone, Debug)]
pub struct Eif {
    source: Content,
    pub(crate) header: Header,
    sections: Vec<Section>,
}

/// A section of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its type.
    pub kind: Kind,
    /// Where its content begins, in bytes from the start of the file.
    pub offset: u64,
    /// Bytes of content.
    pub size: u64,
}

impl Eif {
    /// Reads header, table and section headers.
    pub fn open(source: Content) -> Result<Self, Error> {
        if source.len() < HEADER_BYTES {
            return Err(Damage::Short.into());
        }
        let mut bytes = [0; HEADER];
        read(&source, &mut bytes, 0)?;
        let header = Header::decode(&bytes)?;
        let sections = sections(&source, &header)?;
        check_kinds(&sections)?;
        Ok(Self { source, header, sections })
    }

    /// The processor it is for.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.header.arch
    }

    /// Its sections in their order.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The content of a section, without copying it if the file is spooled.
    pub fn content(&self, section: &Section) -> Result<Content, Error> {
        match &self.source {
            Content::Spooled { file, offset, .. } => {
                let offset = offset.checked_add(section.offset).ok_or(Damage::Short)?;
                Ok(Content::Spooled { file: file.clone(), offset, length: section.size })
            }
            Content::Bytes(_) => {
                let mut bytes = vec![0; usize::try_from(section.size).map_err(|_| Damage::Short)?];
                self.read(&mut bytes, section.offset)?;
                Ok(Content::Bytes(bytes.into()))
            }
        }
    }

    /// The bytes of the section of this kind, which must have a small limit.
    pub(crate) fn small(&self, kind: Kind) -> Result<Option<Vec<u8>>, Error> {
        let Some(section) = self.sections.iter().find(|section| section.kind == kind) else {
            return Ok(None);
        };
        let mut bytes = vec![0; usize::try_from(section.size.min(kind.limit())).unwrap_or_default()];
        self.read(&mut bytes, section.offset)?;
        Ok(Some(bytes))
    }

    pub(crate) fn read(&self, buffer: &mut [u8], position: u64) -> Result<(), Error> {
        read(&self.source, buffer, position)
    }

    /// Bytes of the whole file.
    pub(crate) fn length(&self) -> u64 {
        self.source.len()
    }
}

fn read(source: &Content, buffer: &mut [u8], position: u64) -> Result<(), Error> {
    let read = source.read_exact_at(buffer, position);
    read.map_err(|source| Error::Read { part: "the enclave image", source })
}

/// The sections in the table; each begins where the previous one ends, and the last ends with the file.
fn sections(source: &Content, header: &Header) -> Result<Vec<Section>, Error> {
    let mut expected = HEADER_BYTES;
    let mut sections = Vec::new();
    for (number, slot) in header.slots.iter().enumerate() {
        if slot.offset != expected {
            return Err(Damage::Place(number).into());
        }
        let section = section(source, number, *slot)?;
        expected = section.offset.checked_add(section.size).ok_or(Damage::End(number))?;
        if expected > source.len() {
            return Err(Damage::End(number).into());
        }
        sections.push(section);
    }
    match source.len() - expected {
        0 => Ok(sections),
        behind => Err(Damage::Trailing(behind).into()),
    }
}

fn section(source: &Content, number: usize, slot: Slot) -> Result<Section, Error> {
    let offset = slot.offset.checked_add(SECTION_HEADER_BYTES).filter(|offset| *offset <= source.len());
    let offset = offset.ok_or(Damage::End(number))?;
    let mut bytes = [0; SECTION_HEADER];
    read(source, &mut bytes, slot.offset)?;
    let (kind, size) = decode_section(number, bytes)?;
    if size != slot.size {
        return Err(Damage::Disagreement(number).into());
    }
    if size > kind.limit() {
        return Err(Damage::TooLong { kind, size, limit: kind.limit() }.into());
    }
    Ok(Section { kind, offset, size })
}

/// Checks that each kind occurs as often as allowed, with kernel and command line before the ramdisks and the signature
/// last.
fn check_kinds(sections: &[Section]) -> Result<(), Damage> {
    let count = |kind| sections.iter().filter(|section| section.kind == kind).count();
    for kind in [Kind::Kernel, Kind::CommandLine, Kind::Metadata, Kind::Signature] {
        if count(kind) > 1 {
            return Err(Damage::Duplicate(kind));
        }
    }
    for kind in [Kind::Kernel, Kind::CommandLine, Kind::Ramdisk] {
        if count(kind) == 0 {
            return Err(Damage::Missing(kind));
        }
    }
    let measured: Vec<Kind> = sections.iter().map(|section| section.kind).filter(is_measured).collect();
    let in_order = [Kind::Kernel, Kind::CommandLine];
    for (found, expected) in measured.iter().zip(in_order) {
        if *found != expected {
            return Err(Damage::Order(expected));
        }
    }
    let last = sections.last().map(|section| section.kind);
    if count(Kind::Signature) == 1 && last != Some(Kind::Signature) {
        return Err(Damage::Order(Kind::Signature));
    }
    Ok(())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that `filter` expects")]
fn is_measured(kind: &Kind) -> bool {
    matches!(kind, Kind::Kernel | Kind::CommandLine | Kind::Ramdisk)
}
