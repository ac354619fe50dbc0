//! Hexadecimal digits, as measurements are written.
//!
//! Invariant: a value has one text, in lower case, and no other text is read as that value, except from Intel's service.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::bytes::Text;

/// The digits of these bytes.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

/// The bytes that these digits denote.
#[must_use]
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? * 16 + digit(*low)?)).collect()
}

/// The same for digits of either case, in which Intel's service writes.
#[cfg(feature = "tdx")]
pub(crate) fn bytes_of_any_case(text: &str) -> Option<Vec<u8>> {
    bytes(&text.to_ascii_lowercase())
}

/// Requires a value to be the expected one. The error contains the digits of both.
pub(crate) fn expect(found: &[u8], expected: &[u8]) -> Result<(), Text> {
    if found == expected {
        return Ok(());
    }
    Err(format!("expected {}, found {}", text(expected), text(found)).into())
}

fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_is_written_and_in_no_other_form() {
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes(&text(&every)), Some(every));
        for other in ["0", "0A", "g0", "0x", " 0", "+1", "é"] {
            assert_eq!(bytes(other), None, "{other}");
        }
    }

    #[cfg(feature = "tdx")]
    #[test]
    fn digits_of_either_case_are_read_from_intels_service() {
        assert_eq!(bytes_of_any_case("0aFF"), Some(Vec::from([0x0a, 0xff])));
        assert_eq!(bytes_of_any_case("0g"), None);
    }
}
