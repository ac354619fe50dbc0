//! Reads the values of a Berkeley DB hash, as far as a list of packages needs it.
//!
//! Invariant: a database is untrusted bytes in memory. No page is visited twice, and all values together have no more
//! bytes than the file; damage ends reading of its bucket, not the build.
//!
//! Our own code, since Berkeley DB is a C library that recovers, locks and writes. Sources: its `dbinc/db_page.h` and
//! `hash/hash.h` (`BS_TO_PAGE`), and RPM's own reader, `lib/backend/bdb_ro.cc`.

use std::collections::HashSet;

/// The magic number at [`MAGIC_AT`] of the first page; its byte order is that of the whole file.
const MAGIC: u32 = 0x0006_1561;
/// Versions of hashes from Berkeley DB 4.1 to 6.2, which have the same page format.
const VERSIONS: std::ops::RangeInclusive<u32> = 8..=10;

/// Fields of the first page (`DBMETA`, `HMETA`).
const MAGIC_AT: usize = 12;
const VERSION_AT: usize = 16;
const PAGE_SIZE_AT: usize = 20;
const ENCRYPTION_AT: usize = 24;
const FLAGS_AT: usize = 26;
const MAX_BUCKET_AT: usize = 72;
const SPARES_AT: usize = 96;
/// The flag of a database whose pages have a checksum, and therefore a longer header: RPM's have none.
const CHECKSUMS: u8 = 0x01;
/// Page sizes (`DB_MIN_PGSIZE`, `DB_MAX_PGSIZE`).
const PAGE_SIZES: std::ops::RangeInclusive<usize> = 512..=65536;

/// Fields of every other page (`PAGE`).
const NUMBER_AT: usize = 8;
const NEXT_AT: usize = 16;
const ENTRIES_AT: usize = 20;
/// On an overflow page: the number of bytes in it.
const HELD_AT: usize = 22;
const TYPE_AT: usize = 25;
const PAGE_HEADER: usize = 26;

/// Page types: unsorted and sorted hashes, and overflow pages for long values.
const HASHES: [u8; 2] = [2, 13];
const OVERFLOW: u8 = 7;
/// Types of items on a page: inline bytes, and a reference to an overflow page (`H_KEYDATA`, `H_OFFPAGE`).
const INLINE: u8 = 1;
const OFF_PAGE: u8 = 3;

/// Maximum number of values that are read: a full distribution has a few thousand packages.
const MAX_VALUES: usize = 100_000;

/// A database in memory.
struct Database<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    page_size: usize,
    visited: HashSet<usize>,
    /// Bytes still available for values.
    left: usize,
}

/// Every value of a hash, in the order of its buckets.
pub(super) fn values(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let Some(mut database) = Database::open(bytes) else { return values };
    let pages = bytes.len() / database.page_size;
    let last = database.word(bytes, MAX_BUCKET_AT).unwrap_or(0).min(pages);
    for bucket in 0..=last {
        let mut next = database.first_page(bucket);
        while let Some(page) = next.and_then(|number| database.page(number)) {
            if !page.get(TYPE_AT).is_some_and(|kind| HASHES.contains(kind)) {
                break;
            }
            database.read(page, &mut values);
            next = database.word(page, NEXT_AT);
        }
    }
    values
}

impl<'a> Database<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let magic = *bytes.get(MAGIC_AT..)?.first_chunk()?;
        let big_endian = u32::from_be_bytes(magic) == MAGIC;
        if !big_endian && u32::from_le_bytes(magic) != MAGIC {
            return None;
        }
        let mut database =
            Self { bytes, big_endian, page_size: 0, visited: HashSet::new(), left: bytes.len() };
        database.page_size = database.word(bytes, PAGE_SIZE_AT).filter(|size| PAGE_SIZES.contains(size))?;
        let version = database.word(bytes, VERSION_AT).and_then(|version| u32::try_from(version).ok())?;
        let plain = *bytes.get(ENCRYPTION_AT)? == 0 && *bytes.get(FLAGS_AT)? & CHECKSUMS == 0;
        (VERSIONS.contains(&version) && plain).then_some(database)
    }

    /// Buckets are in groups, each as large as all groups before it together; a group's spare is the number of other
    /// pages before it.
    fn first_page(&self, bucket: usize) -> Option<usize> {
        let group = usize::try_from(usize::BITS.checked_sub(bucket.leading_zeros())?).ok()?;
        let spare = self.word(self.bytes, SPARES_AT.checked_add(group.checked_mul(4)?)?)?;
        bucket.checked_add(spare)
    }

    /// A page by its number, unless it was visited before. The first page is not a hash page.
    fn page(&mut self, number: usize) -> Option<&'a [u8]> {
        let start = number.checked_mul(self.page_size).filter(|start| *start > 0)?;
        let page = self.bytes.get(start..start.checked_add(self.page_size)?)?;
        (self.word(page, NUMBER_AT) == Some(number) && self.visited.insert(number)).then_some(page)
    }

    /// The values of a page: every second item. Items fill the page from its end.
    fn read(&mut self, page: &'a [u8], values: &mut Vec<Vec<u8>>) {
        let count = self.half(page, ENTRIES_AT).unwrap_or(0);
        let places: Vec<usize> =
            (0..count).map_while(|item| self.half(page, PAGE_HEADER.saturating_add(item * 2))).collect();
        for pair in places.chunks_exact(2).take(MAX_VALUES.saturating_sub(values.len())) {
            let [key, value] = pair else { continue };
            values.extend(page.get(*value..*key).and_then(|item| self.value(item)));
        }
    }

    fn value(&mut self, item: &'a [u8]) -> Option<Vec<u8>> {
        let (kind, bytes) = item.split_first()?;
        match *kind {
            INLINE => {
                self.left = self.left.checked_sub(bytes.len())?;
                Some(bytes.to_vec())
            }
            OFF_PAGE => self.overflow(self.word(item, 4)?, self.word(item, 8)?),
            _ => None,
        }
    }

    /// The bytes of a chain of overflow pages.
    fn overflow(&mut self, first: usize, length: usize) -> Option<Vec<u8>> {
        self.left = self.left.checked_sub(length)?;
        let (mut bytes, mut next) = (Vec::new(), first);
        while bytes.len() < length {
            let page = self.page(next).filter(|page| page.get(TYPE_AT) == Some(&OVERFLOW))?;
            let held = self.half(page, HELD_AT).filter(|held| *held <= length.saturating_sub(bytes.len()))?;
            bytes.extend_from_slice(page.get(PAGE_HEADER..PAGE_HEADER.checked_add(held)?)?);
            next = self.word(page, NEXT_AT)?;
        }
        Some(bytes)
    }

    fn word(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let chunk = *bytes.get(at..)?.first_chunk()?;
        let word = if self.big_endian { u32::from_be_bytes(chunk) } else { u32::from_le_bytes(chunk) };
        usize::try_from(word).ok()
    }

    fn half(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let chunk = *bytes.get(at..)?.first_chunk()?;
        let half = if self.big_endian { u16::from_be_bytes(chunk) } else { u16::from_le_bytes(chunk) };
        Some(usize::from(half))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: &[u8] = include_bytes!("../../testdata/rpm.Packages");

    /// Writes a little-endian word.
    fn put(bytes: &mut [u8], at: usize, word: u32) {
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    #[test]
    fn an_unsupported_database_has_no_values() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = DATABASE.to_vec();
            bytes[at] = byte;
            values(&bytes).len()
        };
        assert_eq!((values(b"").len(), values(&DATABASE[..16]).len(), values(DATABASE).len()), (0, 0, 8));
        assert_eq!(changed(MAGIC_AT, 0x62), 0, "a B-tree");
        assert_eq!(changed(VERSION_AT, 7), 0, "an old version");
        assert_eq!(changed(PAGE_SIZE_AT + 1, 0), 0, "empty pages");
        assert_eq!(changed(ENCRYPTION_AT, 1), 0, "encrypted");
        assert_eq!(changed(FLAGS_AT, CHECKSUMS), 0, "with checksums");
    }

    #[test]
    fn pages_in_a_cycle_are_visited_once() {
        for (at, byte) in (512..DATABASE.len()).step_by(512).zip(1_u32..) {
            let mut round = DATABASE.to_vec();
            put(&mut round, at + NEXT_AT, byte);
            assert!(values(&round).len() <= 8, "page {byte} is its own successor");
        }
    }

    #[test]
    fn a_page_that_repeats_one_value_gives_no_more_bytes_than_the_file_has() {
        let mut bytes = vec![0; 2 * 4096];
        put(&mut bytes, MAGIC_AT, MAGIC);
        put(&mut bytes, VERSION_AT, 9);
        put(&mut bytes, PAGE_SIZE_AT, 4096);
        put(&mut bytes, SPARES_AT, 1);
        let page = &mut bytes[4096..];
        put(page, NUMBER_AT, 1);
        page[ENTRIES_AT..ENTRIES_AT + 2].copy_from_slice(&1000_u16.to_le_bytes());
        page[TYPE_AT] = HASHES[0];
        for item in 0..500 {
            let at = PAGE_HEADER + item * 4;
            page[at..at + 4].copy_from_slice(&[0xe9, 0x0f, 0xd0, 0x0b]);
        }
        page[0x0bd0] = INLINE;
        let values = values(&bytes);
        assert_eq!((values.len(), values[0].len()), (7, 1048), "values of 1048 bytes in 8192");
    }
}
