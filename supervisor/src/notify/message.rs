//! The messages of `sd_notify(3)` that Cloister supports.
//!
//! Invariant: unknown messages are ignored, as the protocol requires; a long text is truncated, never refused.

use cloister_wire::control::{MAX_STATUS_TEXT, bounded};

/// One notification of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// `READY=1`.
    Ready,
    /// `STOPPING=1`.
    Stopping,
    /// `WATCHDOG=1`.
    Alive,
    /// `WATCHDOG=trigger`: it requests to be treated as dead.
    Dead,
    /// `STATUS=`, at most [`MAX_STATUS_TEXT`] bytes.
    Text(String),
}

/// The notifications in a datagram, in order.
#[must_use]
pub fn read(datagram: &[u8]) -> Vec<Note> {
    let lines = datagram.split(|byte| *byte == b'\n');
    lines.filter_map(|line| note(&String::from_utf8_lossy(line))).collect()
}

fn note(line: &str) -> Option<Note> {
    match line.split_once('=')? {
        ("READY", "1") => Some(Note::Ready),
        ("STOPPING", "1") => Some(Note::Stopping),
        ("WATCHDOG", "1") => Some(Note::Alive),
        ("WATCHDOG", "trigger") => Some(Note::Dead),
        ("STATUS", text) => Some(Note::Text(cut(text))),
        _ => None,
    }
}

/// The text without control characters, truncated to [`MAX_STATUS_TEXT`] bytes as JSON.
fn cut(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    bounded(&plain, MAX_STATUS_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_datagram_may_contain_several_messages() {
        let notes = read(b"STATUS=serving\nREADY=1\nMAINPID=7\nFDSTORE=1\nWATCHDOG=1\nSTOPPING=1\n");
        assert_eq!(notes, [Note::Text("serving".into()), Note::Ready, Note::Alive, Note::Stopping]);
        assert_eq!(read(b"WATCHDOG=trigger"), [Note::Dead]);
        assert_eq!(read(b"READY=0\nREADY"), []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_accepted_and_texts_are_bounded(bytes: Vec<u8>) {
            for note in read(&[b"STATUS=".as_slice(), &bytes].concat()) {
                if let Note::Text(text) = note {
                    prop_assert!(text.len() <= MAX_STATUS_TEXT);
                }
            }
        }
    }
}
