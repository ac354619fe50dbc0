//! A service of the soak that numbers what it says, and notes beside it how far it came.
//!
//! Its law: a line is said in one write and noted after it, so a kill at any instruction leaves a note that is at most one
//! line behind. The next run reads the note and says it first, which is how the host knows what the run before must have
//! said.
//!
//! ```text
//! run 3 after 118        the note of run 2 was 118: its last line is 118 or 119
//! line 3 1
//! line 3 2
//! end 3 2                asked to end
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::guest::{MACHINE, say};

/// Where notes lie: a folder of the root that all services share, which outlives them.
const NOTES: &str = "/var";

/// A note's length in bytes: three numbers of twenty digits and what parts them, written at once.
const NOTE: usize = 64;

/// What a service noted of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The number of its run, from 1 on.
    pub(super) run: u64,
    /// The process of that run.
    pub(super) pid: u64,
    /// The last line that this run has said for certain.
    pub(super) said: u64,
}

/// The voice of one run.
#[derive(Debug)]
pub(super) struct Voice {
    file: File,
    note: Note,
}

impl Note {
    /// What the service of this name noted last.
    pub(super) fn of(name: &str) -> Self {
        std::fs::read_to_string(format!("{NOTES}/{name}")).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &str) -> Self {
        let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        Self { run: next(), pid: next(), said: next() }
    }

    fn text(self) -> String {
        format!("{:<NOTE$}", format!("{} {} {}", self.run, self.pid, self.said))
    }
}

/// This process's number for the warden, who is in another namespace.
fn own_number() -> io::Result<u64> {
    let number = std::fs::read_link(format!("{MACHINE}/self"))?;
    number.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl Voice {
    /// Begins a run of the service `name`: says so, then notes it.
    pub(super) fn begin(name: &str) -> io::Result<Self> {
        let before = Note::of(name);
        let file =
            File::options().create(true).write(true).truncate(false).open(format!("{NOTES}/{name}"))?;
        let note = Note { run: before.run.saturating_add(1), pid: own_number()?, said: 0 };
        say(format!("run {} after {}\n", note.run, before.said).as_bytes())?;
        let voice = Self { file, note };
        voice.keep()?;
        Ok(voice)
    }

    /// Says the next line, then notes it.
    pub(super) fn line(&mut self) -> io::Result<()> {
        let number = self.note.said.saturating_add(1);
        say(format!("line {} {number}\n", self.note.run).as_bytes())?;
        self.note.said = number;
        self.keep()
    }

    /// Says that this run ends by itself.
    pub(super) fn end(self) -> io::Result<()> {
        say(format!("end {} {}\n", self.note.run, self.note.said).as_bytes())
    }

    fn keep(&self) -> io::Result<()> {
        self.file.write_all_at(self.note.text().as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_read_back_is_the_note_written() {
        let note = Note { run: u64::MAX, pid: 7, said: 118 };
        assert_eq!(Note::parse(&note.text()), note);
        assert_eq!(note.text().len(), NOTE);
        assert_eq!(Note::parse(""), Note::default());
    }
}
