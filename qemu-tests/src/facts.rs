//! Facts that the guest half of a scenario prints on the console and its host half reads there.
//!
//! Invariant: a fact is a line `trial: NAME: VALUE`, so that other lines of the console, and other facts, are never taken for it.

use std::io;

use crate::Failure;
use crate::guest::print;

/// Prints a fact. A value that is longer than a line of the console, some thousand characters, is printed in several of the same
/// name, which [`pieces`] reads.
pub fn print_fact(name: &str, value: &str) -> io::Result<()> {
    print(format!("trial: {name}: {value}\n").as_bytes())
}

/// The first value of this fact on the console.
pub fn fact<'a>(console: &'a str, name: &str) -> Result<&'a str, Failure> {
    let absent = || Failure::failed(format!("no fact {name:?} in:\n{console}"));
    values(console, name).next().ok_or_else(absent)
}

/// All values of this fact, one after the other; nothing if there is none.
#[must_use]
pub fn pieces(console: &str, name: &str) -> String {
    values(console, name).collect()
}

fn values<'a>(console: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("trial: {name}:");
    let values = console.lines().filter_map(move |line| line.trim_end().split_once(&start));
    values.map(|(_, value)| value.trim())
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str =
        "[    1.0] trial: report: first\r\ntrial: report at level 3: other\ntrial: report: second\n";

    #[test]
    fn a_fact_is_found_by_its_whole_name() {
        assert_eq!(fact(CONSOLE, "report").ok(), Some("first"));
        assert_eq!(fact(CONSOLE, "report at level 3").ok(), Some("other"));
        assert!(fact(CONSOLE, "port").is_err());
    }

    #[test]
    fn a_value_in_pieces_is_joined() {
        assert_eq!(pieces(CONSOLE, "report"), "firstsecond");
        assert_eq!(pieces(CONSOLE, "none"), "");
    }

    #[test]
    fn bytes_have_two_digits_each() {
        assert_eq!(hex(&[0, 0x0f, 0xf0]), "000ff0");
    }
}
