//! The one place that prints.
//!
//! Invariant: data goes to standard output, messages go to standard error; a reader that has closed its end of the pipe ends
//! the printing and is not an error.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use serde::Serialize;

use crate::error::{Error, ErrorContext, Result};

/// Receives messages.
type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// Receives messages in place of standard error, if set.
static SINK: Mutex<Option<Sink>> = Mutex::new(None);

/// Sends all further messages to `sink` instead of standard error.
pub(crate) fn divert(sink: impl FnMut(&[u8]) + Send + 'static) {
    *SINK.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(sink));
}

/// Maximum number of lines in the queue to the printing thread: several screens full; with the longest lines a few megabytes.
const MAX_QUEUED: usize = 256;

/// Writes messages in a thread of its own until it is dropped: a stopped terminal or a pipe that is not read blocks that
/// thread and nothing else. Lines that do not fit into its queue are dropped and counted.
#[derive(Debug)]
pub(crate) struct MessageThread(Option<JoinHandle<()>>);

impl MessageThread {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (lines, written) = mpsc::sync_channel::<Vec<u8>>(MAX_QUEUED);
        let write = move || written.into_iter().for_each(|line| drop(io::stderr().lock().write_all(&line)));
        let thread = thread::Builder::new().name("messages".to_owned()).spawn(write)?;
        let mut dropped: u64 = 0;
        divert(move |line| {
            let mut text = Vec::new();
            if dropped > 0 {
                text =
                    format!("cloister: {dropped} lines dropped: standard error was not read\n").into_bytes();
            }
            text.extend_from_slice(line);
            dropped = if lines.try_send(text).is_ok() { 0 } else { dropped.saturating_add(1) };
        });
        Ok(Self(Some(thread)))
    }
}

impl Drop for MessageThread {
    fn drop(&mut self) {
        *SINK.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // A panic in the thread was already printed by the panic hook.
        drop(self.0.take().map(JoinHandle::join));
    }
}

/// Prints data as text, with a final newline added if it is missing.
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
        .map_err(|e| Error::internal("a result cannot be represented as JSON").because(e))?;
    data(&text)
}

/// Prints a message to standard error.
pub(crate) fn note(text: &str) {
    let line = format!("{}\n", printable(text));
    if let Some(sink) = SINK.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        return sink(line.as_bytes());
    }
    // If standard error is closed, there is nowhere to report that.
    drop(io::stderr().lock().write_all(line.as_bytes()));
}

/// Prints an error: what failed, why, and what to try.
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
    if let Some(hint) = &error.details().hint {
        text.push_str("\nhint: ");
        text.push_str(hint);
    }
    text
}

/// `text` with control characters other than newline and tab escaped.
///
/// Messages contain text from the enclave and from files, which must not control the terminal (move the cursor, set a title).
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

/// `text` on one line, its own lines separated by semicolons: each row of a table must be a single line, also for programs
/// that count or cut lines.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ").replace('\t', " ")
}

/// `text` truncated to `max` characters, with `…` appended if it was longer.
pub(crate) fn truncate(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default().trim_end()),
        None => text.to_owned(),
    }
}

/// Treats a broken pipe as success: the reader has read what it wanted.
pub(crate) fn quiet_if_gone(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context(|| "cannot write to standard output".to_owned()),
    }
}

/// A table, each column as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this header.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a row. A cell of several lines becomes one line.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&one_line(&cell))).collect());
    }

    /// The text, with two spaces between columns and none at the end of a line.
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
    use crate::error::ErrorDocument;

    #[test]
    fn an_error_states_what_failed_why_and_what_to_try() {
        let error = Error::operator("no enclave is named web")
            .because(io::Error::other("no such directory"))
            .hint("host-sleeve ps lists them");
        assert_eq!(
            render(&error),
            "error: no enclave is named web\nbecause: no such directory\nhint: host-sleeve ps lists them"
        );
    }

    #[test]
    fn an_error_of_another_process_is_printed_unchanged() {
        let cause = Error::host("cannot open /y").because(std::io::Error::other("no"));
        let error = Error::timed_out("late").because(cause).hint("wait");
        let again = Error::from(ErrorDocument::from(&error));
        assert_eq!(render(&again), render(&error));
        assert_eq!(again.run_code(), 124);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\x1b[2Jb\nc\td"), "a\\u{1b}[2Jb\nc\td");
    }

    #[test]
    fn a_row_is_one_line_regardless_of_its_cells() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["web".into(), "failed: QEMU ended with code 1\nqemu: no\tdevice\r\n\n  at all\n".into()]);
        let text = table.render();
        assert_eq!(text, "NAME  STATE\nweb   failed: QEMU ended with code 1; qemu: no device; at all");
    }

    #[test]
    fn truncation_is_marked_and_keeps_characters_whole() {
        assert_eq!(truncate("né", 2), "né");
        assert_eq!(truncate("né ée", 3), "né…");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["web".into(), "ready".into()]);
        table.row(["a-long-name".into(), String::new()]);
        assert_eq!(table.render(), "NAME         STATE\nweb          ready\na-long-name");
    }
}
