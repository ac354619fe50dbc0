//! Writes a file: each part is read once and passes through the checksum and the registers into the file.
//!
//! Invariant: the bytes depend on the parts alone. The signature covers the registers computed while writing, with a
//! nonce derived from key and message (RFC 6979), so that signing twice gives the same bytes.

use std::io::{Read, Seek, SeekFrom, Write};

use crc32fast::Hasher;

use super::format::{
    COMMAND_LINE_MAX, HEADER_BYTES, Header, Kind, METADATA_MAX, SECTION_HEADER_BYTES, SECTIONS_MAX, SUMMED,
    Slot, section_header,
};
use super::{Error, Parts};
use crate::measure::{NitroPcrs, Pcr, PcrHasher, Role};
use crate::tree::Content;
use crate::wide;

/// Bytes that are copied at once.
const BUFFER: usize = 256 << 10;
/// Maximum number of ramdisks: the table's entries less kernel, command line, metadata and signature.
const RAMDISKS_MAX: usize = SECTIONS_MAX - 4;

/// A written file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the file.
    pub length: u64,
    /// The registers that the hardware will report.
    pub pcrs: NitroPcrs,
}

/// Writes an enclave image file at the current position of `out`, and leaves the position after it.
///
/// On an error `out` contains an incomplete file without a header.
pub fn write(parts: &Parts<'_>, out: &mut (impl Write + Seek)) -> Result<Summary, Error> {
    check(parts)?;
    let metadata = serde_json::to_vec(&parts.metadata)
        .map_err(|_| Error::Parts("the metadata cannot be encoded as JSON"))?;
    if wide(metadata.len()) > METADATA_MAX {
        return Err(Error::Parts("the metadata is longer than 1 MiB"));
    }
    let start = out.stream_position().map_err(Error::Write)?;
    let mut body = Body::begin(out)?;
    body.part(Kind::Kernel, &parts.kernel, Role::System)?;
    body.bytes(Kind::CommandLine, parts.command_line.as_bytes(), Some(Role::System))?;
    body.bytes(Kind::Metadata, &metadata, None)?;
    for (number, ramdisk) in parts.ramdisks.iter().enumerate() {
        let role = if number == 0 { Role::System } else { Role::Application };
        body.part(Kind::Ramdisk, ramdisk, role)?;
    }
    let mut pcrs = body.pcrs.clone().finish(None);
    if let Some((section, certificate)) = parts.signing.section(&pcrs.pcr0)? {
        body.bytes(Kind::Signature, &section, None)?;
        pcrs.pcr8 = Some(Pcr::of(certificate.der()));
    }
    let length = body.finish(parts, start)?;
    Ok(Summary { length, pcrs })
}

fn check(parts: &Parts<'_>) -> Result<(), Error> {
    let line = parts.command_line;
    if wide(line.len()) > COMMAND_LINE_MAX || line.chars().any(char::is_control) {
        return Err(Error::Parts("the command line is longer than 2047 bytes or has control characters"));
    }
    if parts.ramdisks.is_empty() || parts.ramdisks.len() > RAMDISKS_MAX {
        return Err(Error::Parts("the number of ramdisks is not from 1 to 28"));
    }
    if parts.kernel.is_empty() {
        return Err(Error::Parts("the kernel is empty"));
    }
    Ok(())
}

/// Everything after the header.
struct Body<'o, W> {
    out: &'o mut W,
    checksum: Hasher,
    pcrs: PcrHasher,
    slots: Vec<Slot>,
    /// Where the next section begins.
    end: u64,
}

impl<'o, W: Write + Seek> Body<'o, W> {
    /// Reserves space for the header.
    fn begin(out: &'o mut W) -> Result<Self, Error> {
        out.write_all(&[0; super::format::HEADER]).map_err(Error::Write)?;
        let checksum = Hasher::new();
        Ok(Self { out, checksum, pcrs: PcrHasher::default(), slots: Vec::new(), end: HEADER_BYTES })
    }

    /// A section with a content that is streamed.
    fn part(&mut self, kind: Kind, content: &Content, role: Role) -> Result<(), Error> {
        self.header(kind, content.len())?;
        let mut reader = content.reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = reader.read(&mut buffer);
            let count = read.map_err(|source| Error::Read { part: part_name(kind), source })?;
            if count == 0 {
                return Ok(());
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            self.pcrs.update(role, bytes);
            self.write(bytes)?;
        }
    }

    /// A section from memory.
    fn bytes(&mut self, kind: Kind, bytes: &[u8], role: Option<Role>) -> Result<(), Error> {
        self.header(kind, wide(bytes.len()))?;
        if let Some(role) = role {
            self.pcrs.update(role, bytes);
        }
        self.write(bytes)
    }

    fn header(&mut self, kind: Kind, size: u64) -> Result<(), Error> {
        self.slots.push(Slot { offset: self.end, size });
        let end = self.end.checked_add(SECTION_HEADER_BYTES).and_then(|end| end.checked_add(size));
        self.end = end.ok_or(Error::Parts("the file would be too long"))?;
        self.write(&section_header(kind, size))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.checksum.update(bytes);
        self.out.write_all(bytes).map_err(Error::Write)
    }

    /// Writes the header, which comes first in the checksum but is complete only now.
    fn finish(self, parts: &Parts<'_>, start: u64) -> Result<u64, Error> {
        let mut header = Header {
            arch: parts.arch,
            default_memory: parts.default_memory,
            default_cpus: parts.default_cpus,
            slots: self.slots,
            checksum: 0,
        };
        let mut checksum = Hasher::new();
        checksum.update(header.encode().get(..SUMMED).unwrap_or_default());
        checksum.combine(&self.checksum);
        header.checksum = checksum.finalize();
        let end = start.checked_add(self.end).ok_or(Error::Parts("the file would be too long"))?;
        self.out.seek(SeekFrom::Start(start)).map_err(Error::Write)?;
        self.out.write_all(&header.encode()).map_err(Error::Write)?;
        self.out.seek(SeekFrom::Start(end)).map_err(Error::Write)?;
        Ok(self.end)
    }
}

fn part_name(kind: Kind) -> &'static str {
    if kind == Kind::Kernel { "the kernel" } else { "a ramdisk" }
}
