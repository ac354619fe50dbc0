//! The certificate table that an SNP host passes along with a report: `auxblob` of configfs-tsm, and the data of an extended report of
//! `/dev/sev-guest` (GHCB specification 2.03, section 4.1.8.1, `MSG_REPORT_REQ`).
//!
//! Invariant: every byte is the host's and hostile. Only the ranges are checked here; whether a certificate is genuine is decided by
//! the party that verifies the report.
//!
//! The table begins with entries of 24 bytes (GUID, offset from the table's start, length; little-endian), and the last one is all
//! zeros. The certificates follow, in DER.

use alloc::vec::Vec;
use core::fmt;

/// Maximum length of a table in bytes: that of an `auxblob`. The kernel's own buffer for hosts has 16 KiB (`SEV_FW_BLOB_MAX_SIZE`).
pub const TABLE_LIMIT: usize = 32 * 1024;

/// Maximum number of certificates: there are five kinds.
pub const CERTIFICATES_LIMIT: usize = 16;

/// Length of an entry in bytes.
const ENTRY: usize = 24;

/// A kind of certificate: 16 bytes in the order in which they are printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The processor's own key (VCEK).
    pub const VCEK: Self = Self(*b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd");
    /// The key that AMD lends to a cloud provider (VLEK).
    pub const VLEK: Self = Self(*b"\xa8\x07\x4b\xc2\xa2\x5a\x48\x3e\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1");
    /// AMD's signing key (ASK).
    pub const ASK: Self = Self(*b"\x4a\xb7\xb3\x79\xbb\xac\x4f\xe4\xa0\x2f\x05\xae\xf3\x27\xc7\x82");
    /// AMD's root key (ARK).
    pub const ARK: Self = Self(*b"\xc0\xb4\x06\xa4\xa8\x03\x49\x52\x97\x43\x3f\xb6\x01\x4c\xd0\xae");
    /// Revoked certificates (CRL).
    pub const CRL: Self = Self(*b"\x92\xf8\x1b\xc3\x58\x11\x4d\x3d\x97\xff\xd1\x9f\x88\xdc\x67\xea");
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// Its kind, as stated by the host. Unknown ones are kept.
    pub guid: Guid,
    /// Its bytes, at least one.
    pub bytes: &'a [u8],
}

/// Why a table is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// It is longer than [`TABLE_LIMIT`].
    TooLong(usize),
    /// It has more than [`CERTIFICATES_LIMIT`] entries.
    TooMany,
    /// It ends before the entry of zeros.
    Unterminated,
    /// The range of this entry is empty, begins within the entries, or ends outside of the table.
    Range(usize),
    /// This entry has the GUID of an earlier one, so that it would depend on the reader which one is used.
    Repeated(usize),
}

/// The certificates of a table, in its order. A table without bytes, and one of zeros, has none: the host passes none.
pub fn certificates(table: &[u8]) -> Result<Vec<Certificate<'_>>, TableError> {
    if table.len() > TABLE_LIMIT {
        return Err(TableError::TooLong(table.len()));
    }
    let mut entries = Vec::new();
    let (chunks, _) = table.as_chunks::<ENTRY>();
    let terminated = chunks.iter().take_while(|entry| **entry != [0; ENTRY]).try_fold((), |(), entry| {
        if entries.len() >= CERTIFICATES_LIMIT {
            return Err(TableError::TooMany);
        }
        entries.push(entry);
        Ok(())
    });
    terminated?;
    if table.is_empty() {
        return Ok(Vec::new());
    }
    if entries.len() == chunks.len() {
        return Err(TableError::Unterminated);
    }
    let first = entries.len().saturating_add(1).saturating_mul(ENTRY);
    let mut found: Vec<Certificate<'_>> = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let certificate = certificate(table, entry, first).ok_or(TableError::Range(index))?;
        if found.iter().any(|earlier| earlier.guid == certificate.guid) {
            return Err(TableError::Repeated(index));
        }
        found.push(certificate);
    }
    Ok(found)
}

/// The chain in a table, as [`super::Evidence::chain`] takes it: VCEK or else VLEK, ASK or ASVK, ARK, as far as they are there. Nothing
/// in it is authentic before it is verified.
pub fn chain(table: &[u8]) -> Result<Vec<Vec<u8>>, TableError> {
    let table = certificates(table)?;
    let of = |kind: Guid| table.iter().find(|found| found.guid == kind).map(|found| found.bytes.to_vec());
    let own = of(Guid::VCEK).or_else(|| of(Guid::VLEK));
    Ok(own.into_iter().chain(of(Guid::ASK)).chain(of(Guid::ARK)).collect())
}

/// The certificate of an entry, which must not begin before `first`.
fn certificate<'a>(table: &'a [u8], entry: &[u8; ENTRY], first: usize) -> Option<Certificate<'a>> {
    let (guid, rest) = entry.split_first_chunk::<16>()?;
    let (offset, rest) = rest.split_first_chunk::<4>()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    let offset = usize::try_from(u32::from_le_bytes(*offset)).ok()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let bytes = table.get(offset..offset.checked_add(length)?)?;
    (offset >= first && !bytes.is_empty()).then_some(Certificate { guid: Guid(*guid), bytes })
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(length) => {
                write!(f, "the certificate table has {length} bytes, more than the limit of {TABLE_LIMIT}")
            }
            Self::TooMany => write!(f, "the certificate table has more than {CERTIFICATES_LIMIT} entries"),
            Self::Unterminated => f.write_str("the certificate table has no last entry"),
            Self::Range(index) => {
                write!(f, "entry {index} of the certificate table does not refer to bytes of the table")
            }
            Self::Repeated(index) => {
                write!(f, "entry {index} of the certificate table has the kind of an earlier one")
            }
        }
    }
}

impl core::error::Error for TableError {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use alloc::vec;

    use super::*;

    fn entry(guid: Guid, offset: u32, length: u32) -> Vec<u8> {
        [guid.0.as_slice(), &offset.to_le_bytes(), &length.to_le_bytes()].concat()
    }

    fn table(entries: &[Vec<u8>], rest: &[u8]) -> Vec<u8> {
        [entries.concat(), vec![0; ENTRY], rest.to_vec()].concat()
    }

    #[test]
    fn certificates_are_found_by_their_kind() {
        let bytes = table(&[entry(Guid::VCEK, 72, 4), entry(Guid::ASK, 76, 3)], b"vcekask");
        let found = certificates(&bytes).unwrap();
        let expected = [
            Certificate { guid: Guid::VCEK, bytes: b"vcek".as_slice() },
            Certificate { guid: Guid::ASK, bytes: b"ask" },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_certificates_of_a_host_are_taken_in_the_order_of_the_chain() {
        let rows = [entry(Guid::ARK, 96, 4), entry(Guid::VCEK, 100, 4), entry(Guid::ASK, 104, 3)];
        let all = chain(&table(&rows, b"rootvcekask")).unwrap();
        assert_eq!(all, [b"vcek".to_vec(), b"ask".to_vec(), b"root".to_vec()]);
        let rows = [entry(Guid::ASK, 72, 4), entry(Guid::VLEK, 76, 4)];
        let some = chain(&table(&rows, b"asvkvlek")).unwrap();
        assert_eq!(some, [b"vlek".to_vec(), b"asvk".to_vec()]);
        assert_eq!(chain(b""), Ok(Vec::new()));
    }

    #[test]
    fn a_host_without_certificates_passes_nothing_or_zeros() {
        assert_eq!(certificates(b""), Ok(Vec::new()));
        assert_eq!(certificates(&[0; 16384]), Ok(Vec::new()));
    }

    #[test]
    fn guids_are_printed_as_in_the_specification() {
        for (guid, text) in [
            (Guid::VCEK, "63da758d-e664-4564-adc5-f4b93be8accd"),
            (Guid::VLEK, "a8074bc2-a25a-483e-aae6-39c045a0b8a1"),
            (Guid::ASK, "4ab7b379-bbac-4fe4-a02f-05aef327c782"),
            (Guid::ARK, "c0b406a4-a803-4952-9743-3fb6014cd0ae"),
            (Guid::CRL, "92f81bc3-5811-4d3d-97ff-d19f88dc67ea"),
        ] {
            assert_eq!(guid.to_string(), text);
        }
    }

    #[test]
    fn ranges_outside_of_the_table_are_refused() {
        for (offset, length) in
            [(48, 0), (48, 5), (47, 1), (0, 4), (52, 1), (u32::MAX, u32::MAX), (49, u32::MAX)]
        {
            let bytes = table(&[entry(Guid::ARK, offset, length)], b"cert");
            assert_eq!(certificates(&bytes), Err(TableError::Range(0)), "{offset} {length}");
        }
        let bytes = table(&[entry(Guid::ARK, 48, 4)], b"cert");
        assert_eq!(certificates(&bytes).unwrap()[0].bytes, b"cert");
    }

    #[test]
    fn a_table_without_an_end_is_refused() {
        assert_eq!(certificates(&entry(Guid::ARK, 24, 1)), Err(TableError::Unterminated));
        assert_eq!(certificates(&[0; 23]), Err(TableError::Unterminated));
        assert_eq!(certificates(&[1; 23]), Err(TableError::Unterminated));
    }

    #[test]
    fn the_same_kind_twice_is_refused() {
        let bytes = table(&[entry(Guid::VCEK, 72, 1), entry(Guid::VCEK, 73, 1)], b"ab");
        assert_eq!(certificates(&bytes), Err(TableError::Repeated(1)));
    }

    #[test]
    fn the_size_of_a_table_is_bounded() {
        assert_eq!(certificates(&vec![0; TABLE_LIMIT + 1]), Err(TableError::TooLong(TABLE_LIMIT + 1)));
        let many = |count: u8| {
            let first = (u32::from(count) + 1) * 24;
            let entries: Vec<_> = (1..=count).map(|number| entry(Guid([number; 16]), first, 1)).collect();
            certificates(&table(&entries, b"x")).map(|found| found.len())
        };
        assert_eq!(many(16), Ok(16));
        assert_eq!(many(17), Err(TableError::TooMany));
    }
}
