//! Reads one table of an `SQLite` database, as far as a list of packages needs it.
//!
//! Invariant: a database is untrusted bytes in memory. No page is visited twice, and all rows together have no more
//! bytes than the file, since its cells do not overlap; damage ends the reading, not the build.
//!
//! Our own code, since the maintained crates bundle `SQLite`'s C library, which writes, locks and runs statements
//! contained in the file. Source: "Database File Format" (sqlite.org/fileformat2.html), whose section numbers are given
//! below.

use std::collections::HashSet;

/// The magic string of the file (1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The size of the header before the tree of the first page (1.3).
const FILE_HEADER: usize = 100;
/// Types of pages (1.6).
const INTERIOR: u8 = 0x05;
const LEAF: u8 = 0x0d;

/// Maximum number of rows of a table that are read: a full distribution has a few thousand packages.
const MAX_ROWS: usize = 100_000;
/// Maximum number of columns of a row that are read: the table of tables has five, that of packages two.
const MAX_COLUMNS: usize = 8;

/// A database in memory.
struct Database<'a> {
    bytes: &'a [u8],
    page_size: usize,
    /// Bytes of a page that `SQLite` uses: the rest is reserved for extensions.
    usable: usize,
    visited: HashSet<usize>,
    /// Bytes still available for rows.
    left: usize,
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
    /// Null, or a type that a list of packages does not use.
    Other,
}

/// The first text or blob column of each row of a table, in the order of the rows.
pub(super) fn column(bytes: &[u8], table: &str) -> Vec<Vec<u8>> {
    let Some(mut database) = Database::open(bytes) else { return Vec::new() };
    // The first page contains the table of tables: type, name, table, root page, statement (2.6).
    let root = database.rows(1).into_iter().find_map(|row| match row.as_slice() {
        [Value::Bytes(kind), Value::Bytes(name), _, Value::Number(root), ..]
            if kind == b"table" && name == table.as_bytes() =>
        {
            usize::try_from(*root).ok()
        }
        _ => None,
    });
    let rows = root.map(|root| database.rows(root)).unwrap_or_default();
    let first = |row: Vec<Value>| {
        row.into_iter().find_map(|value| match value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        })
    };
    rows.into_iter().filter_map(first).collect()
}

impl<'a> Database<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        // 1 encodes 65536, which does not fit into 16 bits.
        let page_size = match u16_at(bytes, 16)? {
            1 => 65536,
            size => usize::from(size),
        };
        let reserved = usize::from(*bytes.get(20)?);
        let usable = page_size.checked_sub(reserved).filter(|usable| *usable >= 480)?;
        Some(Self { bytes, page_size, usable, visited: HashSet::new(), left: bytes.len() })
    }

    /// A page by its number, from 1, unless it was visited before.
    fn page(&mut self, number: usize) -> Option<&'a [u8]> {
        if !self.visited.insert(number) {
            return None;
        }
        let start = number.checked_sub(1)?.checked_mul(self.page_size)?;
        self.bytes.get(start..start.checked_add(self.page_size)?)
    }

    /// The rows of the table whose tree begins at a page, as far as they can be read.
    fn rows(&mut self, root: usize) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        // Pages still to be visited, in reverse order.
        let mut pending = vec![root];
        while let Some(number) = pending.pop().filter(|_| rows.len() < MAX_ROWS) {
            let Some(page) = self.page(number) else { continue };
            let header = if number == 1 { FILE_HEADER } else { 0 };
            match page.get(header) {
                Some(&LEAF) => {
                    for cell in cells(page, header, 8).take(MAX_ROWS.saturating_sub(rows.len())) {
                        rows.extend(self.payload(page, cell).and_then(|payload| record(&payload)));
                    }
                }
                Some(&INTERIOR) => {
                    let last = header.checked_add(8).and_then(|at| pointer(page, at));
                    let children = cells(page, header, 12).filter_map(|cell| pointer(page, cell));
                    let children: Vec<usize> = children.chain(last).collect();
                    pending.extend(children.into_iter().rev());
                }
                _ => {}
            }
        }
        rows
    }

    /// The payload of a cell, including its overflow pages (1.6).
    fn payload(&mut self, page: &[u8], cell: usize) -> Option<Vec<u8>> {
        let mut at = cell;
        let length = usize::try_from(varint(page, &mut at)?).ok().filter(|length| *length <= self.left)?;
        self.left = self.left.saturating_sub(length);
        varint(page, &mut at)?;
        let local = self.local(length)?;
        let mut payload = page.get(at..at.checked_add(local)?)?.to_vec();
        let mut next = pointer(page, at.checked_add(local)?);
        while payload.len() < length {
            let page = self.page(next?)?;
            let left = length.saturating_sub(payload.len()).min(self.usable.checked_sub(4)?);
            payload.extend_from_slice(page.get(4..left.checked_add(4)?)?);
            next = pointer(page, 0);
        }
        Some(payload)
    }

    /// How many bytes of a payload are in its cell.
    fn local(&self, length: usize) -> Option<usize> {
        let most = self.usable.checked_sub(35)?;
        if length <= most {
            return Some(length);
        }
        let least = (self.usable.checked_sub(12)? * 32 / 255).checked_sub(23)?;
        let wanted = least + length.checked_sub(least)? % self.usable.checked_sub(4)?;
        Some(if wanted <= most { wanted } else { least })
    }
}

/// The positions of the cells of a page, whose header has `length` bytes.
fn cells(page: &[u8], header: usize, length: usize) -> impl Iterator<Item = usize> {
    let count = u16_at(page, header.saturating_add(3)).unwrap_or(0);
    let first = header.saturating_add(length);
    let places = (0..usize::from(count)).map(move |cell| first.saturating_add(cell.saturating_mul(2)));
    places.map_while(|place| u16_at(page, place)).map(usize::from)
}

/// The number of a page.
fn pointer(bytes: &[u8], at: usize) -> Option<usize> {
    let number = bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))?;
    usize::try_from(number).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

/// Big-endian, seven bits per byte, and all eight bits of a ninth one (1.6).
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..9 {
        let byte = *bytes.get(*at)?;
        *at = at.checked_add(1)?;
        if place == 8 {
            return Some(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            break;
        }
    }
    Some(value)
}

/// The values of a row (2.1).
fn record(payload: &[u8]) -> Option<Vec<Value>> {
    let mut at = 0;
    let mut body = usize::try_from(varint(payload, &mut at)?).ok()?;
    let header = body;
    let mut values = Vec::new();
    while at < header && values.len() < MAX_COLUMNS {
        let serial = varint(payload, &mut at)?;
        let length = usize::try_from(length_of(serial)?).ok()?;
        let end = body.checked_add(length)?;
        let bytes = payload.get(body..end)?;
        body = end;
        values.push(match serial {
            1..=6 => Value::Number(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))),
            8 => Value::Number(0),
            9 => Value::Number(1),
            12.. => Value::Bytes(bytes.to_vec()),
            _ => Value::Other,
        });
    }
    Some(values)
}

/// The size of a value of this serial type in bytes.
fn length_of(serial: u64) -> Option<u64> {
    match serial {
        0 | 8 | 9 => Some(0),
        1..=4 => Some(serial),
        5 => Some(6),
        6 | 7 => Some(8),
        10 | 11 => None,
        _ => Some(serial.saturating_sub(12) / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_sqlite_writes_them() {
        let read = |bytes: &[u8]| varint(bytes, &mut 0);
        assert_eq!((read(&[0x7f]), read(&[0x81, 0]), read(&[0x81])), (Some(127), Some(128), None));
        assert_eq!(read(&[0xff; 9]), Some(u64::MAX));
    }

    #[test]
    fn an_invalid_or_cyclic_database_has_no_rows() {
        assert_eq!(column(b"", "Packages"), Vec::<Vec<u8>>::new());
        assert_eq!(column(MAGIC, "Packages"), Vec::<Vec<u8>>::new());
        // A first page that is its own child.
        let mut round = vec![0; 512];
        round[..MAGIC.len()].copy_from_slice(MAGIC);
        round[16..18].copy_from_slice(&512_u16.to_be_bytes());
        round[100] = INTERIOR;
        round[111] = 1;
        assert_eq!(column(&round, "Packages"), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_page_that_repeats_one_cell_gives_no_more_bytes_than_the_file_has() {
        let mut page = vec![0; 4096];
        page[..MAGIC.len()].copy_from_slice(MAGIC);
        page[16..18].copy_from_slice(&4096_u16.to_be_bytes());
        page[100] = LEAF;
        page[103..105].copy_from_slice(&1000_u16.to_be_bytes());
        for cell in 0..1000 {
            page[108 + 2 * cell..110 + 2 * cell].copy_from_slice(&3000_u16.to_be_bytes());
        }
        // A payload of 900 bytes, row 1: a header of three bytes, one column of bytes.
        page[3000..3006].copy_from_slice(&[0x87, 0x04, 1, 3, 0x8e, 0x0e]);
        let rows = Database::open(&page).unwrap().rows(1);
        assert!(rows.len() == 4, "{} rows of 900 bytes in 4096", rows.len());
    }
}
