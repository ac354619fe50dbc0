//! The human-readable form of a report: each problem with its line of the source, carets under the text, and a hint.
//!
//! Invariant: only printable characters of the source reach the terminal, and excerpts fit the width of a screen.

use std::fmt;

use super::lines::Lines;
use super::problem::{Problem, Report, Span};

/// The maximum number of characters shown of a source line: with the line number they fit a terminal of 100 columns.
const WIDTH: usize = 88;

/// Characters shown before the carets when a line is cut.
const LEAD: usize = 30;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = Lines::new(&self.source);
        let gutter = self
            .problems()
            .iter()
            .map(|problem| last_line(&lines, problem))
            .max()
            .unwrap_or(1)
            .to_string()
            .len();
        for problem in self.problems() {
            Printer { lines: &lines, file: &self.file, gutter, out: f }.problem(problem)?;
        }
        let total = self.problems().len().saturating_add(self.dropped());
        let noun = if total == 1 { "error" } else { "errors" };
        write!(f, "{} has {total} {noun}", self.file)?;
        if self.dropped() > 0 {
            write!(f, "; only the first {} are shown", self.problems().len())?;
        }
        Ok(())
    }
}

/// The output, and what is needed to format each part of it.
struct Printer<'a, 'f> {
    lines: &'a Lines<'a>,
    file: &'a str,
    /// Digits of the largest line number.
    gutter: usize,
    out: &'a mut fmt::Formatter<'f>,
}

impl Printer<'_, '_> {
    fn problem(&mut self, problem: &Problem) -> fmt::Result {
        writeln!(self.out, "error: {}", printable(&problem.what))?;
        let place = self.lines.place(problem.at.start);
        writeln!(self.out, "{:>1$}--> {2}:{3}:{4}", "", self.gutter, self.file, place.line, place.column)?;
        writeln!(self.out, "{:>1$} |", "", self.gutter)?;
        self.snippets(problem)?;
        if let Some(hint) = &problem.hint {
            writeln!(self.out, "{:>1$} = hint: {2}", "", self.gutter, printable(hint))?;
        }
        writeln!(self.out)
    }

    /// The problem's line and the related one, in the order of the file; if they are the same, it is shown once.
    fn snippets(&mut self, problem: &Problem) -> fmt::Result {
        let main = Mark { span: problem.at, sign: '^', label: &problem.label };
        let Some((at, label)) = &problem.related else {
            self.line(main.span)?;
            return self.mark(&main);
        };
        let other = Mark { span: *at, sign: '-', label };
        let (first, second) = if at.start < problem.at.start { (other, main) } else { (main, other) };
        self.line(first.span)?;
        self.mark(&first)?;
        let lines = [first.span, second.span].map(|span| self.lines.place(span.start).line);
        let gap = lines[1].saturating_sub(lines[0]);
        // If the line is cut, the second mark may need another part of it.
        if gap > 0 || window(self.lines.line(lines[0]), 0).0.contains('…') {
            if gap > 1 {
                writeln!(self.out, "{:>1$}...", "", self.gutter)?;
            }
            self.line(second.span)?;
        }
        self.mark(&second)
    }

    /// The line of the source in which a span starts.
    fn line(&mut self, span: Span) -> fmt::Result {
        let place = self.lines.place(span.start);
        let (shown, _) = window(self.lines.line(place.line), place.column.saturating_sub(1));
        let space = if shown.is_empty() { "" } else { " " };
        writeln!(self.out, "{:>1$} |{space}{shown}", place.line, self.gutter)
    }

    /// Carets or dashes under a span, and its label.
    fn mark(&mut self, mark: &Mark<'_>) -> fmt::Result {
        let place = self.lines.place(mark.span.start);
        let line = self.lines.line(place.line);
        let column = place.column.saturating_sub(1);
        let width = marked(self.lines, mark.span, line.chars().count().saturating_sub(column));
        let (_, column) = window(line, column);
        let width = width.min(WIDTH.saturating_sub(column)).max(1);
        let signs: String = std::iter::repeat_n(mark.sign, width).collect();
        let space = if mark.label.is_empty() { "" } else { " " };
        let label = printable(mark.label);
        writeln!(self.out, "{0:>1$} | {0:>2$}{signs}{space}{label}", "", self.gutter, column)
    }
}

/// A marked span under a line.
struct Mark<'a> {
    span: Span,
    sign: char,
    label: &'a str,
}

/// The number of characters that a span covers in its first line.
fn marked(lines: &Lines<'_>, span: Span, rest_of_line: usize) -> usize {
    let first = lines.text(span).split('\n').next().unwrap_or("").trim_end();
    first.chars().count().min(rest_of_line)
}

/// The visible part of a line, and the column's position in it.
fn window(line: &str, column: usize) -> (String, usize) {
    if line.chars().count() <= WIDTH {
        return (printable(line), column);
    }
    let skipped = column.saturating_sub(LEAD);
    let cut: String = line.chars().skip(skipped).take(WIDTH).collect();
    let (lead, column) =
        if skipped > 0 { ("…", column.saturating_sub(skipped).saturating_add(1)) } else { ("", column) };
    let tail = if line.chars().count() > skipped.saturating_add(WIDTH) { "…" } else { "" };
    (format!("{lead}{}{tail}", printable(&cut)), column)
}

/// Keeps one column per character: a control character, which could control the terminal, is replaced by a visible one, and
/// so is a character that changes the direction of the text.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => out.push(' '),
            c if c.is_control() || is_direction(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Bidirectional controls (Unicode Standard Annex 9) and the line separators.
fn is_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn last_line(lines: &Lines<'_>, problem: &Problem) -> usize {
    let related = problem.related.as_ref().map_or(0, |(at, _)| lines.place(at.start).line);
    lines.place(problem.at.start).line.max(related)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(printable("a\u{1b}[31mb\tc\u{202e}d"), "a\u{fffd}[31mb c\u{fffd}d");
    }

    #[test]
    fn a_long_line_is_cut_around_its_mark() {
        let line = "x".repeat(300);
        let (shown, column) = window(&line, 200);
        assert_eq!((shown.chars().count(), column), (WIDTH + 2, LEAD + 1));
        let (shown, column) = window(&line, 3);
        assert_eq!((shown.chars().count(), column), (WIDTH + 1, 3));
    }
}
