//! What a service writes reaches the host as it was written, whatever it writes and however fast.

use std::io::Write;
use std::process::ExitCode;

use crate::guest::say;
use crate::story::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE], restart: never}}}";

/// The length of the long line in bytes.
const LONG_LINE: usize = 10 * 1024 * 1024;

/// What the flooding service writes in all, in bytes: far more than any ring holds.
const FLOOD: usize = 400 * 1024 * 1024;

/// Bytes that are no text.
const NOT_TEXT: &[u8] = b"before \xff\xfe\x00\x80 after\n";

/// The story of one very long line.
pub(super) const ONE_LONG_LINE: Scenario = Scenario {
    name: "ten_megabytes_on_one_line_neither_block_nor_break_anything",
    host: long_line_host,
    guest: long_line_guest,
};

/// The story of bytes that are not UTF-8.
pub(super) const RAW_BYTES: Scenario =
    Scenario { name: "log_bytes_that_are_not_utf8_arrive_unchanged", host: raw_host, guest: raw_guest };

/// The story of a service that nobody can keep up with.
pub(super) const FLOODING: Scenario =
    Scenario { name: "a_flood_of_output_never_blocks_the_service", host: flood_host, guest: flood_guest };

fn long_line_host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(MANIFEST, &[])?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    expect_in(&ended.stdout, "after the long line", "the output after the long line")
}

fn long_line_guest(_words: &[String]) -> ExitCode {
    let mut line = vec![b'x'; LONG_LINE];
    line.extend_from_slice(b"\nafter the long line\n");
    if say(&line).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn raw_host(lab: &mut Lab) -> Outcome {
    let image = lab.image(MANIFEST)?;
    let output =
        lab.sleeve(&["run", crate::lab::path_str(&image)?, "--name", "web"]).into_command().output()?;
    expect_eq(&output.status.code(), &Some(0), "the exit code")?;
    let found = output.stdout.windows(NOT_TEXT.len()).any(|window| window == NOT_TEXT);
    expect(found, format_args!("the bytes did not arrive: {:?}", String::from_utf8_lossy(&output.stdout)))
}

fn raw_guest(_words: &[String]) -> ExitCode {
    if say(NOT_TEXT).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn flood_host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(MANIFEST, &[])?;
    let ended = web.finish()?;
    ended.expect_code(7)?;
    expect_in(&ended.stdout, "the flood is over", "the last line")
}

fn flood_guest(_words: &[String]) -> ExitCode {
    let line = [b"0123456789abcdef".repeat(63).as_slice(), b"\n"].concat();
    let mut written = 0usize;
    let mut out = std::io::stdout();
    while written < FLOOD {
        if out.write_all(&line).is_err() {
            return ExitCode::from(1);
        }
        written = written.saturating_add(line.len());
    }
    if say(b"the flood is over\n").is_ok() { ExitCode::from(7) } else { ExitCode::from(1) }
}
