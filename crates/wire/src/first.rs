//! Notes to init about a service that runs below Cloister's first process: the PID of its main process, and its exit.
//!
//! Invariant: a note has [`Note::SIZE`] bytes and is written in one call, so it arrives whole. It is sent over a socket
//! pair, which the service cannot open through `/proc/1/fd`.

/// Path of the program in ramdisk 1.
pub const PROGRAM: &str = "/sbin/first";

/// The descriptor in the first process on which notes are written.
pub const REPORT_FD: i32 = 3;

/// Written by the first process to its descriptor 0, the pipe that reports the progress of a start, once its program
/// runs: a byte that no step has. Then it opens `/dev/null` as that descriptor, which closes the pipe.
pub const RUNS: u8 = b'r';

/// One note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The main process's PID in init's namespace. The process sends it itself, before it executes its program,
    /// together with a descriptor of itself (`pidfd_open(2)`).
    Main(u32),
    /// The main process exited with this code.
    Code(u8),
    /// The main process was terminated by this signal.
    Signal(u8),
}

impl Note {
    /// Bytes of each note: a kind and a number, big-endian.
    pub const SIZE: usize = 5;

    /// The encoded note.
    #[must_use]
    pub const fn encode(self) -> [u8; Self::SIZE] {
        let (kind, [a, b, c, d]) = match self {
            Self::Main(pid) => (b'm', pid.to_be_bytes()),
            Self::Code(code) => (b'c', [0, 0, 0, code]),
            Self::Signal(signal) => (b's', [0, 0, 0, signal]),
        };
        [kind, a, b, c, d]
    }

    /// Decodes a note; `None` if the bytes are not a valid note.
    #[must_use]
    pub const fn decode(bytes: [u8; Self::SIZE]) -> Option<Self> {
        match bytes {
            [b'm', a, b, c, d] => Some(Self::Main(u32::from_be_bytes([a, b, c, d]))),
            [b'c', 0, 0, 0, code] => Some(Self::Code(code)),
            [b's', 0, 0, 0, signal] => Some(Self::Signal(signal)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_these_bytes() {
        for (note, bytes) in [
            (Note::Main(0x0001_0203), *b"m\0\x01\x02\x03"),
            (Note::Code(3), *b"c\0\0\0\x03"),
            (Note::Signal(15), *b"s\0\0\0\x0f"),
        ] {
            assert_eq!(note.encode(), bytes);
            assert_eq!(Note::decode(bytes), Some(note));
        }
    }

    #[test]
    fn invalid_notes_are_refused() {
        for bytes in [*b"x\0\0\0\0", *b"c\0\0\x01\0", *b"s\x01\0\0\0"] {
            assert_eq!(Note::decode(bytes), None);
        }
    }
}
