//! The machine's console: kept, and searched for the last words of init and of the kernel.
//!
//! Its law: it is only believed where the control channel has said nothing. Everything the guest prints is bounded.

use cloister_wire::control::State;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::backends::Console;
use crate::logbook::rotating::Rotating;
use crate::output::printable;

use super::life::Event;

/// What stands in front of init's last words.
const END: &str = "cloister: end ";

/// What stands in front of the kernel's.
const PANIC: &str = "Kernel panic - not syncing: ";

/// The longest line that is searched; last words hold an error's text.
const MAX_LINE: usize = 16 * 1024;

/// The longest kernel message that is shown.
const MAX_SHOWN: usize = 200;

/// Collects bytes to lines.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
}

/// Reads the console to its end. With `show` it is copied to standard error, a line at a time.
pub(crate) async fn run(mut console: Console, mut log: Rotating, show: bool, events: mpsc::Sender<Event>) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = console.read(&mut buffer).await {
        let piece = buffer.get(..count).unwrap_or_default();
        // A full disk costs the console's text and nothing else.
        drop(log.append(piece));
        for line in lines.push(piece) {
            if show {
                crate::output::note(&line);
            }
            if let Some(event) = meaning(&line) {
                // Whoever wanted to know has gone.
                drop(events.send(event).await);
            }
        }
    }
}

impl Lines {
    /// Takes bytes and gives the lines that they complete, as text.
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

/// What a line of the console tells, if anything.
fn meaning(line: &str) -> Option<Event> {
    if let Some((_, words)) = line.split_once(END) {
        // The kernel may have printed into the same line after it.
        let mut values = serde_json::Deserializer::from_str(words).into_iter::<State>();
        let state = values.next()?.ok()?;
        return state.is_final().then_some(Event::LastWords(state));
    }
    let (_, words) = line.split_once(PANIC)?;
    Some(Event::Panic(printable(words).chars().take(MAX_SHOWN).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_init_are_found_in_their_line() {
        let line = r#"[1.2] cloister: end {"state":"exited","service":"web","code":3} [1.3] reboot"#;
        let Some(Event::LastWords(state)) = meaning(line) else {
            panic!("not found");
        };
        assert_eq!(state, State::Exited { service: "web".into(), code: 3 });
    }

    #[test]
    fn a_kernel_panic_is_found_and_cannot_drive_the_terminal() {
        let line = "[1.2] Kernel panic - not syncing: Attempted to \x1b[2Jkill init! exitcode=0x0";
        let Some(Event::Panic(words)) = meaning(line) else {
            panic!("not found");
        };
        assert_eq!(words, "Attempted to \\u{1b}[2Jkill init! exitcode=0x0");
    }

    #[test]
    fn words_that_are_no_end_mean_nothing() {
        for line in ["", "cloister: end", "cloister: end {", r#"cloister: end {"state":"ready"}"#] {
            assert!(meaning(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_line_without_an_end_takes_bounded_memory() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            assert!(lines.push(&[b'x'; 1024]).is_empty());
        }
        assert_eq!(lines.push(b"\n").first().unwrap().len(), MAX_LINE);
    }
}
