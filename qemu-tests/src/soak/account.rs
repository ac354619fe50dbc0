//! What one service said, held against what it must have said.
//!
//! Its law: nothing is forgiven. Runs follow each other without a hole, lines within a run too, and a run is at most one line
//! longer than its note.

/// The account of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Runs that have begun.
    pub(super) runs: u64,
    /// Lines of all runs.
    pub(super) lines: u64,
    /// Whether the last run said that it ended.
    pub(super) ended: bool,
    /// What does not add up; the first few are enough.
    pub(super) faults: Vec<String>,
    said: u64,
    open: Vec<u8>,
}

/// Faults kept: what follows the first is mostly its consequence.
const MAX_FAULTS: usize = 5;

impl Account {
    /// Takes the next piece of the service's output, cut anywhere.
    pub(super) fn take(&mut self, piece: &[u8]) {
        self.open.extend_from_slice(piece);
        while let Some(end) = self.open.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.open.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Err(fault) = self.read(line.trim_end()) {
                self.fault(fault);
            }
        }
    }

    /// Nothing follows.
    pub(super) fn close(&mut self) {
        if !self.open.is_empty() {
            self.fault(format!("the output ends within a line: {:?}", String::from_utf8_lossy(&self.open)));
        }
        if !self.ended {
            self.fault(format!("run {} was asked to end and its last line is missing", self.runs));
        }
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }

    fn read(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        match (kind, numbers.as_slice()) {
            ("run", [run, noted]) => self.begin(*run, *noted),
            ("line", [run, number]) => self.line(*run, *number),
            ("end", [run, number]) => self.end(*run, *number),
            _ => Err(format!("a line that nobody says: {line:?}")),
        }
    }

    fn begin(&mut self, run: u64, noted: u64) -> Result<(), String> {
        let (before, said) = (self.runs, self.said);
        (self.runs, self.said, self.ended) = (run, 0, false);
        if run != before.saturating_add(1) {
            return Err(format!("run {run} follows run {before}"));
        }
        if said != noted && said != noted.saturating_add(1) {
            return Err(format!("run {before} noted {noted} lines, and {said} arrived"));
        }
        Ok(())
    }

    fn line(&mut self, run: u64, number: u64) -> Result<(), String> {
        let (before, expected) = (self.runs, self.said.saturating_add(1));
        self.said = number;
        self.lines = self.lines.saturating_add(1);
        if (run, number) == (before, expected) {
            Ok(())
        } else {
            Err(format!("line {number} of run {run} stands where line {expected} of run {before} should"))
        }
    }

    fn end(&mut self, run: u64, number: u64) -> Result<(), String> {
        self.ended = true;
        if (run, number) == (self.runs, self.said) {
            Ok(())
        } else {
            Err(format!(
                "run {run} ended with {number} lines, and {} of run {} arrived",
                self.said, self.runs
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(pieces: &[&str]) -> Account {
        let mut account = Account::default();
        for piece in pieces {
            account.take(piece.as_bytes());
        }
        account.close();
        account
    }

    #[test]
    fn whole_runs_add_up_however_they_are_cut() {
        let account =
            account(&["run 1 after 0\nline 1 1\nli", "ne 1 2\nrun 2 after 1\n", "line 2 1\nend 2 1\n"]);
        assert_eq!((account.runs, account.lines), (2, 3));
        assert_eq!(account.faults, Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_can_be_missing_is_told() {
        for (what, expected) in [
            ("run 1 after 0\nline 1 2\nend 1 2\n", "line 2 of run 1 stands where line 1 of run 1 should"),
            ("run 1 after 0\nrun 2 after 2\nend 2 0\n", "run 1 noted 2 lines, and 0 arrived"),
            ("run 2 after 0\nend 2 0\n", "run 2 follows run 0"),
            (
                "run 1 after 0\nline 1 1\nline 1 1\nend 1 1\n",
                "line 1 of run 1 stands where line 2 of run 1 should",
            ),
            ("run 1 after 0\n", "run 1 was asked to end and its last line is missing"),
            ("run 1 after 0\nend 1 0\nru", "the output ends within a line: \"ru\""),
            ("hello\nrun 1 after 0\nend 1 0\n", "a line that nobody says: \"hello\""),
        ] {
            assert_eq!(account(&[what]).faults, [expected], "{what:?}");
        }
    }
}
