//! Maps byte offsets of the source to lines and columns.
//!
//! Invariant: every byte offset has a place, even one past the end or inside a character.

use super::problem::Span;

/// The source, split into lines once.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    source: &'a str,
    /// The first byte of each line; the first line's is 0.
    starts: Vec<usize>,
}

/// A line and a column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        let after_breaks = source.match_indices('\n').map(|(at, _)| at.saturating_add(1));
        Self { source, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// The place of a byte. The end of the source is the place after its last character.
    pub(super) fn place(&self, byte: usize) -> Place {
        let byte = self.source.floor_char_boundary(byte);
        let line = self.starts.partition_point(|start| *start <= byte).max(1);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.source.get(start..byte).map_or(0, |before| before.chars().count());
        Place { line, column: column.saturating_add(1) }
    }

    /// A line without its line break, counted from 1.
    pub(super) fn line(&self, line: usize) -> &'a str {
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied();
        let rest = start.and_then(|start| self.source.get(start..)).unwrap_or("");
        rest.split('\n').next().unwrap_or("").trim_end_matches('\r')
    }

    /// The text of a span, rounded down to whole characters.
    pub(super) fn text(&self, span: Span) -> &'a str {
        let start = self.source.floor_char_boundary(span.start);
        let end = self.source.floor_char_boundary(span.end);
        self.source.get(start..end).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_place() {
        let lines = Lines::new("aé\nb");
        let places: Vec<_> = (0..7).map(|byte| lines.place(byte)).map(|p| (p.line, p.column)).collect();
        assert_eq!(places, [(1, 1), (1, 2), (1, 2), (1, 3), (2, 1), (2, 2), (2, 2)]);
        assert_eq!((lines.line(1), lines.line(2), lines.line(3), lines.line(0)), ("aé", "b", "", ""));
    }
}
