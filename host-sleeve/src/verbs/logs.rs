//! `logs`: the log of an enclave's services, or its console.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::Logs;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::logbook::lines::{Format, Printer};
use crate::logbook::reader::{Reader, Wake};
use crate::logbook::{CONSOLE, SERVICES};
use crate::output::quiet_if_gone;
use crate::state::record::Seen;
use crate::state::{EnclaveDir, Root};

use super::DONE;
use super::follow::{JsonLines, Records, Sink, Tail, follow};

/// Maximum length of a console line in one JSON document, in bytes; a longer line is split.
const MAX_LINE: usize = 16 * 1024;

/// Prints a log.
pub(crate) fn logs(args: &Logs, json: bool) -> Result<u8> {
    let directory = Root::open()?.find(&args.name)?;
    let seen = directory.must_see()?;
    if let Some(service) = &args.service {
        known(&seen, service)?;
    }
    let printed = if args.console {
        console(&directory, args.follow, json)
    } else {
        services(&directory, &seen, args, json)
    };
    quiet_if_gone(printed)?;
    Ok(DONE)
}

fn known(seen: &Seen, service: &str) -> Result<()> {
    let all = seen.record.status.iter().flat_map(|status| status.services.iter().chain(&status.servants));
    let names: Vec<&str> = all.map(|service| service.name.as_str()).collect();
    if names.is_empty() || names.contains(&service) {
        return Ok(());
    }
    Err(Error::operator(format!("{} has no service {service}", seen.record.name))
        .hint(format!("its services: {}", names.join(", "))))
}

fn services(directory: &EnclaveDir, seen: &Seen, args: &Logs, json: bool) -> io::Result<()> {
    let count = seen.record.status.as_ref().map_or(0, |status| status.services.len());
    let format = Format {
        service: args.service.clone(),
        names: count > 1 && args.service.is_none(),
        times: seen.record.booted_ms.filter(|_| args.timestamps || json),
    };
    let out = io::BufWriter::new(io::stdout());
    let mut sink: Box<dyn Sink> = if json {
        Box::new(JsonLines::new(format, out))
    } else {
        Box::new(Printer::new(format, out, io::stderr()))
    };
    let sleeve = Client::connect(directory).ok().flatten().filter(|_| args.follow);
    match (args.tail, sleeve) {
        (None, Some(sleeve)) => follow(directory.dir(), sleeve.into_stream(), sink.as_mut()),
        (None, None) => Records::open(directory.dir(), SERVICES).drain(sink.as_mut()),
        (Some(wanted), sleeve) => {
            let mut records = Records::open(directory.dir(), SERVICES);
            let mut tail = Tail::new(wanted, args.service.clone());
            let wake =
                sleeve.map(|sleeve| Wake::new(directory.dir(), Some(sleeve.into_stream()))).transpose()?;
            records.drain(&mut tail)?;
            tail.write_to(sink.as_mut())?;
            records.drain(sink.as_mut())?;
            let Some(mut wake) = wake else { return Ok(()) };
            while wake.wait()? {
                records.drain(sink.as_mut())?;
            }
            records.drain(sink.as_mut())
        }
    }
}

fn console(directory: &EnclaveDir, follow: bool, json: bool) -> io::Result<()> {
    let sleeve = Client::connect(directory).ok().flatten().filter(|_| follow);
    let mut wake = sleeve.map(|sleeve| Wake::new(directory.dir(), Some(sleeve.into_stream()))).transpose()?;
    let mut reader = Reader::open(directory.dir(), CONSOLE);
    let mut lines = ConsoleLines { out: io::BufWriter::new(io::stdout()), line: Vec::new() };
    let mut plain = io::stdout();
    let out: &mut dyn Write = if json { &mut lines } else { &mut plain };
    copy(&mut reader, out)?;
    if let Some(wake) = wake.as_mut() {
        while wake.wait()? {
            copy(&mut reader, out)?;
        }
        copy(&mut reader, out)?;
    }
    lines.finish()
}

fn copy(reader: &mut Reader, out: &mut dyn Write) -> io::Result<()> {
    loop {
        let (piece, _) = reader.next_piece()?;
        if piece.is_empty() {
            return out.flush();
        }
        out.write_all(piece)?;
    }
}

/// Writes each line of the console as a JSON document.
struct ConsoleLines<O: Write> {
    out: O,
    /// The beginning of a line whose end has not been read yet.
    line: Vec<u8>,
}

/// A line of the console, in the form of a service's record, but without number, time and service.
#[derive(Serialize)]
struct ConsoleLine<'a> {
    stream: &'static str,
    /// The text, with invalid UTF-8 replaced.
    text: &'a str,
}

impl<O: Write> ConsoleLines<O> {
    fn write_line(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.line);
        serde_json::to_writer(&mut self.out, &ConsoleLine { stream: "console", text: &text })?;
        self.line.clear();
        self.out.write_all(b"\n")
    }

    /// Also writes a last line without an end.
    fn finish(&mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            self.write_line()?;
        }
        self.out.flush()
    }
}

impl<O: Write> Write for ConsoleLines<O> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.line.push(*byte);
            if *byte == b'\n' || self.line.len() >= MAX_LINE {
                self.write_line()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_console_line_is_one_document() {
        let mut lines = ConsoleLines { out: Vec::new(), line: Vec::new() };
        for piece in [b"[0.0] Linux\r\n[0.1]".as_slice(), b" \x1b[0m\xff\n", b"half"] {
            lines.write_all(piece).unwrap();
        }
        lines.finish().unwrap();
        let text = String::from_utf8(lines.out).unwrap();
        let texts: Vec<String> = text
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(value["stream"], "console");
                value["text"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(texts, ["[0.0] Linux\r\n", "[0.1] \u{1b}[0m\u{fffd}\n", "half"]);
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let mut lines = ConsoleLines { out: Vec::new(), line: Vec::new() };
        lines.write_all(&vec![b'x'; 3 * MAX_LINE + 1]).unwrap();
        assert_eq!(lines.line.len(), 1);
        assert_eq!(lines.out.split(|byte| *byte == b'\n').count(), 4);
    }
}
