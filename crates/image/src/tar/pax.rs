//! PAX extension records: `LENGTH KEY=VALUE\n`, one after the other.
//!
//! Invariant: values are bytes. Only the record's own length determines where it ends.

use std::collections::BTreeMap;

use super::{Entry, TarError};

/// The key prefix of extended attributes (`SCHILY.xattr.security.capability`).
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records before one entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

/// Parses all records of one extension entry.
pub(super) fn parse(mut bytes: &[u8]) -> Result<Records, TarError> {
    let mut records = Records::default();
    let mut map: Vec<Vec<u8>> = Vec::new();
    while !bytes.is_empty() {
        let (key, value, rest) = record(bytes).ok_or(TarError::Pax)?;
        bytes = rest;
        match key {
            // The oldest form of sparse map: pairs of records with repeated keys.
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let expected: &[u8] =
                    if map.len().is_multiple_of(2) { b"GNU.sparse.offset" } else { b"GNU.sparse.numbytes" };
                if key != expected || value.contains(&b',') {
                    return Err(TarError::Sparse);
                }
                map.push(value.to_vec());
            }
            _ => drop(records.0.insert(key.to_vec(), value.to_vec())),
        }
    }
    if !map.is_empty() {
        records.0.insert(b"GNU.sparse.map".to_vec(), map.join(&b','));
    }
    Ok(records)
}

/// The first record: key, value, and the rest of the bytes.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
    let (line, rest) = bytes.split_at_checked(length)?;
    let line = line.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (line.get(..equals)?, line.get(equals + 1..)?);
    // A zero would end the name for some readers and not for others. Only attributes are binary.
    let valid = !key.is_empty() && !key.contains(&0) && (key.starts_with(XATTR) || !value.contains(&0));
    valid.then_some((key, value, rest))
}

/// Decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let digit = |value: u64, digit: &u8| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, digit) }
}

/// Seconds with an optional fraction and sign, rounded down.
fn seconds(text: &[u8]) -> Option<i64> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let below = negative && fraction.iter().any(|digit| *digit != b'0');
    Some(if negative { -whole - i64::from(below) } else { whole })
}

impl Records {
    /// A record's value; an empty one counts as absent, as POSIX requires.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// A record that must be a number if present.
    pub(super) fn number(&self, key: &[u8], what: &'static str) -> Result<Option<u64>, TarError> {
        self.get(key).map(|value| decimal(value).ok_or(TarError::Number(what))).transpose()
    }

    /// Overrides the header's fields with the records.
    pub(super) fn apply(&self, entry: &mut Entry) -> Result<(), TarError> {
        if let Some(path) = self.get(b"path") {
            entry.name = path.to_vec();
        }
        if let Some(link) = self.get(b"linkpath") {
            entry.link = link.to_vec();
        }
        entry.size = self.number(b"size", "size")?.unwrap_or(entry.size);
        entry.uid = self.number(b"uid", "owner")?.unwrap_or(entry.uid);
        entry.gid = self.number(b"gid", "group")?.unwrap_or(entry.gid);
        if let Some(time) = self.get(b"mtime") {
            entry.mtime = seconds(time).ok_or(TarError::Number("time"))?;
        }
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(XATTR) {
                entry.xattrs.insert(name.to_vec(), value.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_contain_newlines_and_equals_signs() {
        let records = parse(b"32 SCHILY.xattr.user.a=x=1\n2\n\0z\n12 path=a/b\n").unwrap();
        assert_eq!(records.get(b"SCHILY.xattr.user.a"), Some(&b"x=1\n2\n\0z"[..]));
        assert_eq!(records.get(b"path"), Some(&b"a/b"[..]));
    }

    #[test]
    fn malformed_records_are_refused() {
        let cases: [&[u8]; 8] = [
            b"12 path=a/b",
            b"99 path=a/b\n",
            b"2 path=a/b\n",
            b"x path=a\n",
            b"12 pathxa/b\n",
            b"7 =abc\n",
            b"12 path=a\0b\n",
            b"18446744073709551617 path=a\n",
        ];
        for bytes in cases {
            assert!(parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn times_are_rounded_down() {
        let cases = [("12", 12), ("12.9", 12), ("-1.5", -2), ("-1.0", -1), ("0.999999999", 0)];
        for (text, expected) in cases {
            assert_eq!(seconds(text.as_bytes()), Some(expected), "{text}");
        }
        assert_eq!(seconds(b"1e3"), None);
    }
}
