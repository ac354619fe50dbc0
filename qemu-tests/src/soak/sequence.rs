//! Checks the numbered lines of one service for completeness.
//!
//! Invariant: every deviation is reported. Runs are numbered without gaps, so are the lines within a run, and a run has at most
//! one line more than its note states.

/// The numbered lines of one service, checked as they arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    /// Runs that have begun.
    pub(super) runs: u64,
    /// Lines of all runs.
    pub(super) lines: u64,
    /// Whether the last run printed its final line.
    pub(super) ended: bool,
    /// Deviations; the first few are enough.
    pub(super) deviations: Vec<String>,
    printed: u64,
    partial: Vec<u8>,
}

/// Deviations stored: what follows the first is mostly its consequence.
const MAX_DEVIATIONS: usize = 5;

impl Sequence {
    /// Reads the next part of the service's output, which may be split anywhere.
    pub(super) fn take(&mut self, piece: &[u8]) {
        self.partial.extend_from_slice(piece);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Err(deviation) = self.read(line.trim_end()) {
                self.deviation(deviation);
            }
        }
    }

    /// Checks the end of the output.
    pub(super) fn close(&mut self) {
        if !self.partial.is_empty() {
            self.deviation(format!(
                "the output ends in the middle of a line: {:?}",
                String::from_utf8_lossy(&self.partial)
            ));
        }
        if !self.ended {
            self.deviation(format!("run {} was stopped, and its last line is missing", self.runs));
        }
    }

    fn deviation(&mut self, deviation: String) {
        if self.deviations.len() < MAX_DEVIATIONS {
            self.deviations.push(deviation);
        }
    }

    fn read(&mut self, line: &str) -> Result<(), String> {
        let mut fields = line.split(' ');
        let kind = fields.next().unwrap_or_default();
        let numbers: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        match (kind, numbers.as_slice()) {
            ("run", [run, noted]) => self.begin(*run, *noted),
            ("line", [run, number]) => self.line(*run, *number),
            ("end", [run, number]) => self.end(*run, *number),
            _ => Err(format!("an unexpected line: {line:?}")),
        }
    }

    fn begin(&mut self, run: u64, noted: u64) -> Result<(), String> {
        let (before, printed) = (self.runs, self.printed);
        (self.runs, self.printed, self.ended) = (run, 0, false);
        if run != before.saturating_add(1) {
            return Err(format!("run {run} follows run {before}"));
        }
        if printed != noted && printed != noted.saturating_add(1) {
            return Err(format!("run {before} noted {noted} lines, but {printed} arrived"));
        }
        Ok(())
    }

    fn line(&mut self, run: u64, number: u64) -> Result<(), String> {
        let (before, expected) = (self.runs, self.printed.saturating_add(1));
        self.printed = number;
        self.lines = self.lines.saturating_add(1);
        if (run, number) == (before, expected) {
            Ok(())
        } else {
            Err(format!("expected line {expected} of run {before}, saw line {number} of run {run}"))
        }
    }

    fn end(&mut self, run: u64, number: u64) -> Result<(), String> {
        self.ended = true;
        if (run, number) == (self.runs, self.printed) {
            Ok(())
        } else {
            Err(format!(
                "run {run} ended with {number} lines, but {} of run {} arrived",
                self.printed, self.runs
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(pieces: &[&str]) -> Sequence {
        let mut sequence = Sequence::default();
        for piece in pieces {
            sequence.take(piece.as_bytes());
        }
        sequence.close();
        sequence
    }

    #[test]
    fn complete_runs_pass_however_the_output_is_split() {
        let sequence =
            sequence(&["run 1 after 0\nline 1 1\nli", "ne 1 2\nrun 2 after 1\n", "line 2 1\nend 2 1\n"]);
        assert_eq!((sequence.runs, sequence.lines), (2, 3));
        assert_eq!(sequence.deviations, Vec::<String>::new());
    }

    #[test]
    fn each_missing_part_is_reported() {
        for (what, expected) in [
            ("run 1 after 0\nline 1 2\nend 1 2\n", "expected line 1 of run 1, saw line 2 of run 1"),
            ("run 1 after 0\nrun 2 after 2\nend 2 0\n", "run 1 noted 2 lines, but 0 arrived"),
            ("run 2 after 0\nend 2 0\n", "run 2 follows run 0"),
            ("run 1 after 0\nline 1 1\nline 1 1\nend 1 1\n", "expected line 2 of run 1, saw line 1 of run 1"),
            ("run 1 after 0\n", "run 1 was stopped, and its last line is missing"),
            ("run 1 after 0\nend 1 0\nru", "the output ends in the middle of a line: \"ru\""),
            ("hello\nrun 1 after 0\nend 1 0\n", "an unexpected line: \"hello\""),
        ] {
            assert_eq!(sequence(&[what]).deviations, [expected], "{what:?}");
        }
    }
}
