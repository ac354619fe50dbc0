//! A service of the soak that prints numbered lines, and notes in a file how far it came.
//!
//! Invariant: a line is printed in one write and noted after it, so a kill at any instruction leaves a note that is at most one
//! line behind. The next run reads the note and prints it first, which is how the host knows what the previous run must have
//! printed.
//!
//! ```text
//! run 3 after 118        the note of run 2 was 118: its last line is 118 or 119
//! line 3 1
//! line 3 2
//! end 3 2                stopped by SIGTERM
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::guest::{MACHINE, print};

/// The directory of the notes: in the root that all services share, which outlives them.
const NOTES: &str = "/var";

/// A note's length in bytes: three numbers of twenty digits and their separators, written at once.
const NOTE: usize = 64;

/// What a service noted about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The number of its run, from 1 on.
    pub(super) run: u64,
    /// The process of that run.
    pub(super) pid: u64,
    /// The last line that this run has certainly printed.
    pub(super) printed: u64,
}

/// The output of one run.
#[derive(Debug)]
pub(super) struct NumberedOutput {
    file: File,
    note: Note,
}

impl Note {
    /// The last note of the service of this name.
    pub(super) fn of(name: &str) -> Self {
        std::fs::read_to_string(format!("{NOTES}/{name}")).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &str) -> Self {
        let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        Self { run: next(), pid: next(), printed: next() }
    }

    fn text(self) -> String {
        format!("{:<NOTE$}", format!("{} {} {}", self.run, self.pid, self.printed))
    }
}

/// This process's number as the killer sees it, in another namespace.
fn own_number() -> io::Result<u64> {
    let number = std::fs::read_link(format!("{MACHINE}/self"))?;
    number.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl NumberedOutput {
    /// Begins a run of the service `name`: prints that, then notes it.
    pub(super) fn begin(name: &str) -> io::Result<Self> {
        let before = Note::of(name);
        let file =
            File::options().create(true).write(true).truncate(false).open(format!("{NOTES}/{name}"))?;
        let note = Note { run: before.run.saturating_add(1), pid: own_number()?, printed: 0 };
        print(format!("run {} after {}\n", note.run, before.printed).as_bytes())?;
        let output = Self { file, note };
        output.write_note()?;
        Ok(output)
    }

    /// Prints the next line, then notes it.
    pub(super) fn line(&mut self) -> io::Result<()> {
        let number = self.note.printed.saturating_add(1);
        print(format!("line {} {number}\n", self.note.run).as_bytes())?;
        self.note.printed = number;
        self.write_note()
    }

    /// Prints that this run ends by itself.
    pub(super) fn end(self) -> io::Result<()> {
        print(format!("end {} {}\n", self.note.run, self.note.printed).as_bytes())
    }

    fn write_note(&self) -> io::Result<()> {
        self.file.write_all_at(self.note.text().as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_as_written() {
        let note = Note { run: u64::MAX, pid: 7, printed: 118 };
        assert_eq!(Note::parse(&note.text()), note);
        assert_eq!(note.text().len(), NOTE);
        assert_eq!(Note::parse(""), Note::default());
    }
}
