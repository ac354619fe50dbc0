//! The one place that prints.
//!
//! Its law: data goes to standard output, everything meant for people while work goes on to standard error; a reader that
//! has gone away ends the printing and is no error.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use serde::Serialize;

use crate::error::{Doing, Error, Result};

/// Takes what is meant for people.
type Ear = Box<dyn FnMut(&[u8]) + Send>;

/// Who takes it in place of standard error, in a process that has left its terminal.
static EAR: Mutex<Option<Ear>> = Mutex::new(None);

/// From now on gives what is meant for people to `ear`.
pub(crate) fn divert(ear: impl FnMut(&[u8]) + Send + 'static) {
    *EAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(ear));
}

/// Lines that may wait to be written aside: some screens full, and with the longest ones a few megabytes.
const ASIDE: usize = 256;

/// Writes what is meant for people in a thread of its own, until it is dropped: a terminal that was stopped or a pipe that
/// nobody reads holds up that thread, and nothing else. What waits too long is left out and counted.
#[derive(Debug)]
pub(crate) struct Aside(Option<JoinHandle<()>>);

impl Aside {
    /// Begins with it.
    pub(crate) fn start() -> io::Result<Self> {
        let (lines, written) = mpsc::sync_channel::<Vec<u8>>(ASIDE);
        let write = move || written.into_iter().for_each(|line| drop(io::stderr().lock().write_all(&line)));
        let thread = thread::Builder::new().name("notes".to_owned()).spawn(write)?;
        let mut left_out: u64 = 0;
        divert(move |line| {
            let mut text = Vec::new();
            if left_out > 0 {
                text = format!("cloister: {left_out} lines left out: standard error was not read\n")
                    .into_bytes();
            }
            text.extend_from_slice(line);
            left_out = if lines.try_send(text).is_ok() { 0 } else { left_out.saturating_add(1) };
        });
        Ok(Self(Some(thread)))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        *EAR.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // A thread that panicked has said so.
        drop(self.0.take().map(JoinHandle::join));
    }
}

/// Prints data as text; a newline is added where one is missing.
pub(crate) fn data(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let newline: &[u8] = if text.is_empty() || text.ends_with('\n') { b"" } else { b"\n" };
    quiet_if_gone(
        out.write_all(text.as_bytes()).and_then(|()| out.write_all(newline)).and_then(|()| out.flush()),
    )
}

/// Prints data as JSON, on one line.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|e| Error::internal("an answer has no form in JSON").because(e))?;
    data(&text)
}

/// Says something to the person in front of the terminal.
pub(crate) fn note(text: &str) {
    let line = format!("{}\n", printable(text));
    if let Some(ear) = EAR.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        return ear(line.as_bytes());
    }
    // Nobody reads standard error any more: there is nobody left to tell.
    drop(io::stderr().lock().write_all(line.as_bytes()));
}

/// Prints an error: what, why, and what to try.
pub(crate) fn error(error: &Error) {
    note(&render(error));
}

/// The text of an error.
pub(crate) fn render(error: &Error) -> String {
    let mut text = format!("error: {error}");
    for reason in error.reasons() {
        text.push_str("\nbecause: ");
        text.push_str(&reason);
    }
    if let Some(hint) = &error.told().hint {
        text.push_str("\nhint: ");
        text.push_str(hint);
    }
    text
}

/// `text` without what could drive a terminal: control characters but newline and tab are shown escaped.
///
/// Messages carry words of the enclave and of files: none of them may move the cursor or set a title.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// `text` on one line, its own lines separated by semicolons: a row of a table is one line for whoever reads it, and for
/// programs that count or cut lines.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ").replace('\t', " ")
}

/// The first `most` characters of `text`, with a sign that there was more.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default().trim_end()),
        None => text.to_owned(),
    }
}

/// A reader that closed its end has what it wants.
pub(crate) fn quiet_if_gone(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.doing(|| "cannot write to standard output".to_owned()),
    }
}

/// Lines of cells, each column as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head line.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a line. A cell of several lines becomes one line.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&one_line(&cell))).collect());
    }

    /// The text, with two spaces between columns and none at a line's end.
    pub(crate) fn render(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let lines = self.rows.iter().map(|row| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Words;

    #[test]
    fn an_error_says_what_why_and_what_to_try() {
        let error = Error::operator("no enclave is named web")
            .because(io::Error::other("no such folder"))
            .hint("host-sleeve ps lists them");
        assert_eq!(
            render(&error),
            "error: no enclave is named web\nbecause: no such folder\nhint: host-sleeve ps lists them"
        );
    }

    #[test]
    fn an_error_of_another_process_is_told_as_it_was_there() {
        let cause = Error::host("cannot open /y").because(std::io::Error::other("no"));
        let error = Error::timed_out("late").because(cause).hint("wait");
        let again = Error::from(Words::from(&error));
        assert_eq!(render(&again), render(&error));
        assert_eq!(again.run_code(), 124);
    }

    #[test]
    fn words_of_others_cannot_drive_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc\td"), "a\\u{1b}[2Jb\nc\td");
    }

    #[test]
    fn a_row_is_one_line_whatever_is_in_its_cells() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["web".into(), "failed: QEMU ended with code 1\nqemu: no\tdevice\r\n\n  at all\n".into()]);
        let text = table.render();
        assert_eq!(text, "NAME  STATE\nweb   failed: QEMU ended with code 1; qemu: no device; at all");
    }

    #[test]
    fn what_is_cut_says_so_and_is_cut_between_characters() {
        assert_eq!(cut("né", 2), "né");
        assert_eq!(cut("né ée", 3), "né…");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["web".into(), "ready".into()]);
        table.row(["a-long-name".into(), String::new()]);
        assert_eq!(table.render(), "NAME         STATE\nweb          ready\na-long-name");
    }
}
