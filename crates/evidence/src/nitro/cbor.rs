//! The structure of CBOR, checked before any of it is interpreted.
//!
//! Invariant: what passed has one meaning for every reader: no key appears twice, nothing follows it, strings are in
//! one piece, and nesting is bounded. The typed readers rely on that and need not repeat it.

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use minicbor::data::{Int, Type};
use minicbor::decode::{Decoder, Error as DecodeError};

/// Why bytes were refused.
pub(crate) type Refusal = Cow<'static, str>;

/// Maximum nesting: a document has a map, in it a map or an array, and values in those.
const DEPTH_LIMIT: u8 = 4;

/// Maximum entries of a map: the largest has 32, one for each register.
const ENTRIES_LIMIT: usize = 64;

/// Whether maps may have an indefinite length: the module of AWS Nitro has written its documents so since 2025.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maps {
    /// Only of a definite length.
    Definite,
    /// Of either.
    Any,
}

/// A key of a map.
#[derive(PartialEq, Eq)]
enum Key<'a> {
    Number(Int),
    Text(&'a str),
}

/// Checks that the bytes are exactly one item.
pub(super) fn check(bytes: &[u8], maps: Maps) -> Result<(), Refusal> {
    let mut read = Decoder::new(bytes);
    item(&mut read, maps, DEPTH_LIMIT)?;
    match bytes.len().saturating_sub(read.position()) {
        0 => Ok(()),
        rest => Err(format!("{rest} bytes follow its CBOR").into()),
    }
}

/// What minicbor reports of bytes that are not the expected item.
#[expect(clippy::needless_pass_by_value, reason = "the form that `map_err` takes")]
pub(super) fn malformed(error: DecodeError) -> Refusal {
    if error.is_end_of_input() {
        "its CBOR is truncated".into()
    } else {
        format!("malformed CBOR: {error}").into()
    }
}

/// The entries of a map of either length, one call for each key.
pub(super) fn entries<'a>(
    read: &mut Decoder<'a>,
    mut entry: impl FnMut(&mut Decoder<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut left = read.map().map_err(malformed)?;
    loop {
        match &mut left {
            Some(0) => return Ok(()),
            Some(left) => *left = left.saturating_sub(1),
            None if read.datatype().map_err(malformed)? == Type::Break => {
                read.set_position(read.position().saturating_add(1));
                return Ok(());
            }
            None => {}
        }
        entry(read)?;
    }
}

fn item(read: &mut Decoder<'_>, maps: Maps, depth: u8) -> Result<(), Refusal> {
    let deeper = || depth.checked_sub(1).ok_or_else(|| Refusal::from("its CBOR is nested too deeply"));
    match read.datatype().map_err(malformed)? {
        Type::Bytes => read.bytes().map(drop).map_err(malformed),
        Type::String => read.str().map(drop).map_err(malformed),
        Type::Null => read.null().map_err(malformed),
        Type::Bool => read.bool().map(drop).map_err(malformed),
        Type::Array => {
            let depth = deeper()?;
            let count = read.array().map_err(malformed)?.unwrap_or_default();
            (0..count).try_for_each(|_| item(read, maps, depth))
        }
        Type::Map => map(read, maps, deeper()?),
        Type::MapIndef if maps == Maps::Any => map(read, maps, deeper()?),
        kind if is_integer(kind) => read.int().map(drop).map_err(malformed),
        kind @ (Type::BytesIndef | Type::StringIndef | Type::ArrayIndef | Type::MapIndef) => {
            Err(format!("its CBOR has {kind}, which is not allowed here").into())
        }
        kind => Err(format!("its CBOR has an item of type {kind}, which is not allowed").into()),
    }
}

fn map<'a>(read: &mut Decoder<'a>, maps: Maps, depth: u8) -> Result<(), Refusal> {
    let mut keys: Vec<Key<'a>> = Vec::new();
    entries(read, |read| {
        let key = match read.datatype().map_err(malformed)? {
            Type::String => Key::Text(read.str().map_err(malformed)?),
            kind if is_integer(kind) => Key::Number(read.int().map_err(malformed)?),
            kind => return Err(format!("its CBOR has a key of type {kind}, which is not allowed").into()),
        };
        if keys.contains(&key) {
            return Err("its CBOR has the same key twice in one map".into());
        }
        if keys.len() >= ENTRIES_LIMIT {
            return Err("its CBOR has a map with more than 64 entries".into());
        }
        keys.push(key);
        item(read, maps, depth)
    })
}

fn is_integer(kind: Type) -> bool {
    matches!(
        kind,
        Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::I8
            | Type::I16
            | Type::I32
            | Type::I64
            | Type::Int
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> Refusal {
        assert_eq!(check(bytes, Maps::Definite), check(bytes, Maps::Any), "{bytes:02x?}");
        check(bytes, Maps::Any).unwrap_err()
    }

    #[test]
    fn plain_items_are_accepted() {
        let items: [&[u8]; 7] =
            [b"\x00", b"\x38\x22", b"\x41a", b"\x61a", b"\xf6", b"\x82\x01\x02", b"\xa2\x01\x02\x61a\xf5"];
        for bytes in items {
            assert_eq!(check(bytes, Maps::Definite), Ok(()), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_key_that_appears_twice_is_refused_in_any_encoding() {
        let twice: [&[u8]; 4] = [
            b"\xa2\x01\x00\x01\x00",
            b"\xa2\x01\x00\x18\x01\x00",
            b"\xa2\x61a\x00\x61a\x00",
            b"\xa2\x61a\x00\x78\x01a\x00",
        ];
        for bytes in twice {
            assert_eq!(refused(bytes), "its CBOR has the same key twice in one map", "{bytes:02x?}");
        }
        assert_eq!(check(b"\xa2\x01\x00\x20\x00", Maps::Any), Ok(()));
    }

    #[test]
    fn truncated_bytes_and_trailing_bytes_are_refused() {
        for bytes in [b"".as_slice(), b"\x18", b"\x42a", b"\x82\x01", b"\xa1\x01", b"\xbf\x01\x02"] {
            assert!(check(bytes, Maps::Any).unwrap_err().contains("truncated"), "{bytes:02x?}");
        }
        assert_eq!(refused(b"\x01\x02\x03"), "2 bytes follow its CBOR");
    }

    #[test]
    fn indefinite_lengths_are_refused_except_for_maps_where_they_are_allowed() {
        for bytes in [b"\x5f\x41a\xff".as_slice(), b"\x7f\x61a\xff", b"\x9f\x01\xff"] {
            assert!(refused(bytes).contains("which is not allowed here"), "{bytes:02x?}");
        }
        let map = b"\xbf\x01\x02\x61a\xbf\xff\xff";
        assert_eq!(check(map, Maps::Any), Ok(()));
        assert!(check(map, Maps::Definite).unwrap_err().contains("indefinite map"));
        assert!(check(b"\xbf\x01\x02\x01\x02\xff", Maps::Any).unwrap_err().contains("same key twice"));
        // A break in the place of a value, and one without a map.
        assert!(check(b"\xbf\x01\xff", Maps::Any).is_err());
        assert!(check(b"\xff", Maps::Any).is_err());
    }

    #[test]
    fn nesting_and_entries_are_bounded() {
        assert_eq!(check(b"\x81\x81\x81\x81\x01", Maps::Any), Ok(()));
        assert_eq!(refused(b"\x81\x81\x81\x81\x81\x01"), "its CBOR is nested too deeply");
        assert_eq!(refused(&alloc::vec![0x81; 100_000]), "its CBOR is nested too deeply");
        // An announced length without its elements.
        assert_eq!(refused(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"), "its CBOR is truncated");
        let mut many = Vec::from(*b"\xb8\x41");
        many.extend((0..65).flat_map(|key: u8| [0x18, key.wrapping_add(100), 0]));
        assert_eq!(refused(&many), "its CBOR has a map with more than 64 entries");
    }

    #[test]
    fn other_types_are_refused() {
        for bytes in
            [b"\xc1\x01".as_slice(), b"\xf9\x00\x00", b"\xf7", b"\xe0", b"\xa1\xf5\x01", b"\xa1\x41a\x01"]
        {
            assert!(refused(bytes).contains("not allowed"), "{bytes:02x?}");
        }
        assert!(check(b"\x61\xff", Maps::Any).is_err());
    }
}
