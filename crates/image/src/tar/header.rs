//! A header block of a tar.
//!
//! Invariant: fields are interpreted as documented in `tar(5)` and implemented in Go's `archive/tar`; an invalid field
//! is an error, not a zero.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Entry, Kind, TarError, text};

/// The size of a header, and the alignment of contents.
pub(super) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const PREFIX: Range<usize> = 345..500;
/// The prefix in Schily's `star` format, in which times follow it; recognized by [`STAR_MARK`].
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_MARK: Range<usize> = 508..512;
/// GNU's sparse map in the header itself.
const GNU_SPARSE: Range<usize> = 386..482;
const GNU_SPARSE_MORE: usize = 482;
const GNU_REAL_SIZE: Range<usize> = 483..495;

/// A header with a correct checksum.
#[derive(Clone, Debug)]
pub(super) struct Header([u8; BLOCK]);

impl Header {
    pub(super) fn new(block: &[u8; BLOCK]) -> Result<Self, TarError> {
        let header = Self(*block);
        let recorded = number(header.field(CHECKSUM)).ok_or(TarError::Checksum)?;
        // The checksum field itself counts as spaces. Old writers summed signed bytes.
        let blank = |index: usize, byte: u8| if CHECKSUM.contains(&index) { b' ' } else { byte };
        let bytes = || header.0.iter().enumerate().map(|(index, byte)| blank(index, *byte));
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if recorded == unsigned || recorded == signed { Ok(header) } else { Err(TarError::Checksum) }
    }

    pub(super) fn flag(&self) -> u8 {
        self.0.get(FLAG).copied().unwrap_or_default()
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        self.natural(SIZE, "size")
    }

    /// The entry as this header alone describes it.
    pub(super) fn entry(&self) -> Result<Entry, TarError> {
        let mode = self.natural(MODE, "mode")? & 0o7777;
        Ok(Entry {
            name: self.name(),
            link: text(self.field(LINK).to_vec()),
            kind: self.kind(),
            mode: u32::try_from(mode).map_err(|_| TarError::Number("mode"))?,
            uid: self.natural(UID, "owner")?,
            gid: self.natural(GID, "group")?,
            mtime: number(self.field(MTIME)).ok_or(TarError::Number("time"))?,
            xattrs: BTreeMap::new(),
            size: self.size()?,
            sparse: None,
        })
    }

    /// Before there was a flag for directories, a trailing slash marked them.
    pub(super) fn is_v7_directory(&self, name: &[u8]) -> bool {
        self.flag() == 0 && name.ends_with(b"/")
    }

    /// The old GNU sparse map, the size of the whole file, and whether the map continues in further blocks.
    pub(super) fn gnu_sparse(&self) -> Option<(&[u8], &[u8], bool)> {
        let more = self.0.get(GNU_SPARSE_MORE).is_some_and(|byte| *byte != 0);
        (self.flag() == b'S').then(|| (self.field(GNU_SPARSE), self.field(GNU_REAL_SIZE), more))
    }

    fn kind(&self) -> Kind {
        match self.flag() {
            // `7` is a file for contiguous blocks, `S` one with GNU's sparse map.
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Unknown(other),
        }
    }

    fn name(&self) -> Vec<u8> {
        let name = text(self.field(NAME).to_vec());
        let prefix = if self.field(MAGIC) != b"ustar\x0000" {
            Vec::new()
        } else if self.field(STAR_MARK) == b"tar\0" {
            text(self.field(STAR_PREFIX).to_vec())
        } else {
            text(self.field(PREFIX).to_vec())
        };
        if prefix.is_empty() { name } else { [prefix.as_slice(), b"/", &name].concat() }
    }

    fn natural(&self, field: Range<usize>, what: &'static str) -> Result<u64, TarError> {
        natural(self.field(field)).ok_or(TarError::Number(what))
    }

    fn field(&self, range: Range<usize>) -> &[u8] {
        self.0.get(range).unwrap_or_default()
    }
}

/// A number field that cannot be negative.
pub(super) fn natural(field: &[u8]) -> Option<u64> {
    number(field).and_then(|value| u64::try_from(value).ok())
}

/// A number field: octal digits between spaces and zeros, or, with the first bit set, a big-endian two's complement.
fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => binary(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let filler = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !filler(byte)).unwrap_or(field.len());
    let digits = field.get(start..).unwrap_or_default();
    let end = digits.iter().position(|byte| *byte == 0).unwrap_or(digits.len());
    let digits = digits.get(..end).unwrap_or_default().trim_ascii_end();
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn binary(field: &[u8]) -> Option<i64> {
    let negative = field.first()? & 0x40 != 0;
    // The first bit is only the marker; the second bit is the sign, and is extended into the first.
    let first = if negative { field.first()? | 0x80 } else { field.first()? & 0x7f };
    let bytes = std::iter::once(first).chain(field.iter().skip(1).copied());
    let wide = bytes.fold(if negative { -1_i128 } else { 0 }, |value, byte| {
        // At most twelve bytes, which fit into sixteen.
        (value << 8) | i128::from(byte)
    });
    i64::try_from(wide).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        let cases: [(&[u8], Option<i64>); 9] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(0x2_0000_0000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"12x4567\0", None),
            (b"0000 44\0", None),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }
}
