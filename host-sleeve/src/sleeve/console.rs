//! The machine's console: logged, and searched for the final state that init prints and for a kernel panic.
//!
//! Invariant: it is used only if the control channel has reported no final state. The size of everything read is bounded.

use cloister_wire::control::State;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::backends::Console;
use crate::logbook::rotating::Rotating;
use crate::output::printable;

use super::lifecycle::Event;

/// The text before the final state that init prints.
const END: &str = "cloister: end ";

/// The text before the reason for a kernel panic.
const PANIC: &str = "Kernel panic - not syncing: ";

/// Maximum length of a line that is searched: a final state contains an error text.
const MAX_LINE: usize = 16 * 1024;

/// Maximum length of a kernel message that is shown.
const MAX_SHOWN: usize = 200;

/// Splits a byte stream into lines.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
}

/// Reads the console until end of file. With `show`, each line is also printed on standard error.
pub(crate) async fn run(mut console: Console, mut log: Rotating, show: bool, events: mpsc::Sender<Event>) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = console.read(&mut buffer).await {
        let piece = buffer.get(..count).unwrap_or_default();
        // If the disk is full, only the console's text is lost.
        drop(log.append(piece));
        for line in lines.push(piece) {
            if show {
                crate::output::note(&line);
            }
            if let Some(event) = event_of(&line) {
                // The receiver is gone: the run is over.
                drop(events.send(event).await);
            }
        }
    }
}

impl Lines {
    /// Appends bytes and returns the lines that they complete, as text.
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut done = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    done.push(String::from_utf8_lossy(&self.line).trim_end().to_owned());
                    self.line.clear();
                }
                _ if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => {}
            }
        }
        done
    }
}

/// The event that a line of the console stands for, if any.
fn event_of(line: &str) -> Option<Event> {
    if let Some((_, text)) = line.split_once(END) {
        // The kernel may have printed more text after it in the same line.
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<State>();
        let state = values.next()?.ok()?;
        return state.is_final().then_some(Event::FinalState(state));
    }
    let (_, reason) = line.split_once(PANIC)?;
    Some(Event::Panic(printable(reason).chars().take(MAX_SHOWN).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_state_printed_by_init_is_found_within_its_line() {
        let line = r#"[1.2] cloister: end {"state":"exited","service":"web","code":3} [1.3] reboot"#;
        let Some(Event::FinalState(state)) = event_of(line) else {
            panic!("not found");
        };
        assert_eq!(state, State::Exited { service: "web".into(), code: 3 });
    }

    #[test]
    fn a_kernel_panic_is_found_and_its_control_characters_are_escaped() {
        let line = "[1.2] Kernel panic - not syncing: Attempted to \x1b[2Jkill init! exitcode=0x0";
        let Some(Event::Panic(reason)) = event_of(line) else {
            panic!("not found");
        };
        assert_eq!(reason, "Attempted to \\u{1b}[2Jkill init! exitcode=0x0");
    }

    #[test]
    fn a_line_without_a_final_state_is_ignored() {
        for line in ["", "cloister: end", "cloister: end {", r#"cloister: end {"state":"ready"}"#] {
            assert!(event_of(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_line_that_never_ends_takes_bounded_memory() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            assert!(lines.push(&[b'x'; 1024]).is_empty());
        }
        assert_eq!(lines.push(b"\n").first().unwrap().len(), MAX_LINE);
    }
}
