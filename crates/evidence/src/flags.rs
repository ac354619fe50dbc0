//! Bits that have names.
//!
//! Invariant: a bit without a name is written as a number, and is never left out.

use alloc::string::String;
use core::fmt::Write as _;

/// The names of all bits that are set in `bits`.
pub(crate) fn names(bits: u64, known: &[(u64, &str)]) -> String {
    let mut text = String::new();
    let mut rest = bits;
    for (bit, name) in known.iter().filter(|(bit, _)| bits & bit != 0) {
        rest &= !bit;
        append(&mut text, format_args!("{name}"));
    }
    if rest != 0 {
        append(&mut text, format_args!("{rest:#x}"));
    }
    text
}

/// The bit of this name.
pub(crate) fn of_name(name: &str, known: &[(u64, &str)]) -> Option<u64> {
    known.iter().find(|(_, known)| *known == name).map(|(bit, _)| *bit)
}

fn append(text: &mut String, part: core::fmt::Arguments<'_>) {
    if !text.is_empty() {
        text.push_str(", ");
    }
    // Writing to a string cannot fail.
    let written = text.write_fmt(part);
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(u64, &str); 2] = [(1, "LOW"), (1 << 63, "HIGH")];

    #[test]
    fn every_bit_is_written_and_each_name_is_read_back() {
        assert_eq!(names(1 << 63 | 6 | 1, &KNOWN), "LOW, HIGH, 0x6");
        assert_eq!(names(0, &KNOWN), "");
        assert_eq!(KNOWN.map(|(_, name)| of_name(name, &KNOWN)), [Some(1), Some(1 << 63)]);
        assert_eq!(of_name("low", &KNOWN), None);
    }
}
