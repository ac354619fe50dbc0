//! What init is told about a service that runs below a first process of ours: its main process's number, and its end.
//!
//! Its law: a note has [`Note::SIZE`] bytes and is written in one call, so it arrives whole. It goes over a socket pair, which
//! the service cannot get at through `/proc/1/fd`.

/// Where the program is in ramdisk 1.
pub const PROGRAM: &str = "/sbin/first";

/// The descriptor of the report's write end in the first process.
pub const REPORT_FD: i32 = 3;

/// What the first process writes on its descriptor 0, the pipe on which a start is told, once it is its program: a byte that is
/// no step's. Then it opens `/dev/null` there, which closes the pipe.
pub const RUNS: u8 = b'r';

/// One note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The main process's number in init's namespace. It says so itself, before it becomes its program, and sends a descriptor of
    /// itself along (`pidfd_open(2)`).
    Main(u32),
    /// The main process ended with this code.
    Code(u8),
    /// The main process was ended by this signal.
    Signal(u8),
}

impl Note {
    /// Bytes of each note: a kind and a number, big-endian.
    pub const SIZE: usize = 5;

    /// As it is written.
    #[must_use]
    pub const fn encode(self) -> [u8; Self::SIZE] {
        let (kind, [a, b, c, d]) = match self {
            Self::Main(pid) => (b'm', pid.to_be_bytes()),
            Self::Code(code) => (b'c', [0, 0, 0, code]),
            Self::Signal(signal) => (b's', [0, 0, 0, signal]),
        };
        [kind, a, b, c, d]
    }

    /// What these bytes say, if they are a note.
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
    fn bytes_that_are_no_note_are_refused() {
        for bytes in [*b"x\0\0\0\0", *b"c\0\0\x01\0", *b"s\x01\0\0\0"] {
            assert_eq!(Note::decode(bytes), None);
        }
    }
}
