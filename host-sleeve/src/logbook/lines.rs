//! Printing of log records.
//!
//! Invariant: a single service's output is printed byte for byte. With several services, each line is prefixed with the service's
//! name. A line end is inserted only if another service writes in the middle of a line, or if records are missing there.

use std::io::{self, Write};

use cloister_wire::logs::{Record, Stream};

use crate::output::printable;

/// What is printed, and in which format.
#[derive(Clone, Debug, Default)]
pub(crate) struct Format {
    /// Only this service.
    pub(crate) service: Option<String>,
    /// Whether each line is prefixed with its service's name.
    pub(crate) names: bool,
    /// Whether each line is prefixed with its time; if so, the host's time at the enclave's boot, in milliseconds since 1970.
    pub(crate) times: Option<u64>,
}

/// Writes records to two streams.
#[derive(Debug)]
pub(crate) struct Printer<O, E> {
    format: Format,
    out: O,
    err: E,
    /// The stream that wrote the current unfinished line, if there is one.
    open: Option<(String, Stream)>,
    /// Whether `out` is in the middle of a line.
    out_partial: bool,
    /// Whether `err` is.
    err_partial: bool,
    next: Option<u64>,
}

impl<O: Write, E: Write> Printer<O, E> {
    /// Prints services' standard output to `out`, and everything else to `err`.
    pub(crate) const fn new(format: Format, out: O, err: E) -> Self {
        Self { format, out, err, open: None, out_partial: false, err_partial: false, next: None }
    }

    /// Prints a record. An error is that of `out` or `err`.
    pub(crate) fn print(&mut self, record: &Record) -> io::Result<()> {
        match record {
            Record::Gap { first, count } => {
                self.next = Some(first.saturating_add(*count));
                self.lost(*count)
            }
            Record::Output { seq, time_ns, service, stream, bytes } => {
                let missing = self.next.map_or(0, |next| seq.saturating_sub(next));
                self.next = Some(seq.saturating_add(1));
                if missing > 0 {
                    self.lost(missing)?;
                }
                if self.format.service.as_ref().is_some_and(|wanted| wanted != service) {
                    return Ok(());
                }
                match stream {
                    Stream::Supervisor => self.about(service, bytes),
                    Stream::Stdout | Stream::Stderr => self.output(*time_ns, service, *stream, bytes),
                }
            }
        }
    }

    /// The next record has this number, and none is missing before it.
    pub(crate) const fn continue_at(&mut self, seq: u64) {
        self.next = Some(seq);
    }

    /// Writes all buffered output.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }

    fn output(&mut self, time_ns: u64, service: &str, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let prefix = self.prefix(time_ns, service);
        if prefix.is_empty() {
            self.side(stream).write_all(bytes)?;
            self.set_partial(stream, bytes);
            return Ok(());
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let continues = self.open.as_ref().is_some_and(|(who, which)| who == service && *which == stream);
            if !continues {
                self.close_line()?;
                self.side(stream).write_all(prefix.as_bytes())?;
            }
            self.side(stream).write_all(line)?;
            self.set_partial(stream, line);
            self.open = (!line.ends_with(b"\n")).then(|| (service.to_owned(), stream));
        }
        Ok(())
    }

    fn prefix(&self, time_ns: u64, service: &str) -> String {
        let mut prefix = String::new();
        if let Some(booted) = self.format.times {
            prefix.push_str(&clock(booted.saturating_add(time_ns / 1_000_000)));
            prefix.push(' ');
        }
        if self.format.names {
            prefix.push_str(service);
            prefix.push_str(" | ");
        }
        prefix
    }

    fn about(&mut self, service: &str, bytes: &[u8]) -> io::Result<()> {
        self.close_line()?;
        let text = String::from_utf8_lossy(bytes);
        let name = if service.is_empty() { String::new() } else { format!("{service}: ") };
        for line in text.lines() {
            writeln!(self.err, "cloister: {name}{}", printable(line))?;
        }
        Ok(())
    }

    fn lost(&mut self, count: u64) -> io::Result<()> {
        // The rest of an unfinished line may be missing: what follows is not its continuation.
        for stream in [Stream::Stdout, Stream::Stderr] {
            if std::mem::take(self.partial(stream)) {
                self.side(stream).write_all(b"\n")?;
            }
        }
        self.open = None;
        // Record numbers are shared by all services, so it is unknown whose records are missing.
        let of = if self.format.service.is_some() { " of this or other services" } else { "" };
        writeln!(self.err, "cloister: {count} log records{of} are missing here")
    }

    fn close_line(&mut self) -> io::Result<()> {
        match self.open.take() {
            Some((_, stream)) => {
                self.side(stream).write_all(b"\n")?;
                self.set_partial(stream, b"\n");
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn set_partial(&mut self, stream: Stream, written: &[u8]) {
        if let Some(last) = written.last() {
            *self.partial(stream) = *last != b'\n';
        }
    }

    fn partial(&mut self, stream: Stream) -> &mut bool {
        if stream == Stream::Stdout { &mut self.out_partial } else { &mut self.err_partial }
    }

    fn side(&mut self, stream: Stream) -> &mut dyn Write {
        if stream == Stream::Stdout { &mut self.out } else { &mut self.err }
    }
}

/// A time in milliseconds since 1970 as RFC 3339 in UTC, with milliseconds.
pub(crate) fn clock(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// The Gregorian date of a day since 1970, computed in eras of 400 years that begin in March, so that a leap day is the last
/// day of a year.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097; // days in 400 years
    let shifted = days.saturating_add(719_468); // days from 0000-03-01 to 1970-01-01
    let (era, of_era) = (shifted / ERA, shifted % ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(seq: u64, service: &str, stream: Stream, bytes: &[u8]) -> Record {
        Record::Output { seq, time_ns: 1_500_000_000, service: service.into(), stream, bytes: bytes.to_vec() }
    }

    fn printed(format: Format, records: &[Record]) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = Printer::new(format, &mut out, &mut err);
        for record in records {
            printer.print(record).unwrap();
        }
        (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
    }

    #[test]
    fn the_output_of_a_single_service_is_printed_byte_for_byte() {
        let mut out = Vec::new();
        let mut printer = Printer::new(Format::default(), &mut out, io::sink());
        printer.print(&output(1, "web", Stream::Stdout, b"a\xff\0")).unwrap();
        printer.print(&output(2, "web", Stream::Stdout, b"b")).unwrap();
        assert_eq!(out, b"a\xff\0b");
    }

    #[test]
    fn lines_of_several_services_begin_with_their_names() {
        let format = Format { names: true, ..Format::default() };
        let records = [
            output(1, "web", Stream::Stdout, b"one\ntw"),
            output(2, "web", Stream::Stdout, b"o\n"),
            output(3, "db", Stream::Stdout, b"half"),
            output(4, "web", Stream::Stdout, b"three\n"),
            output(5, "db", Stream::Stdout, b" line\n"),
        ];
        assert_eq!(printed(format, &records).0, "web | one\nweb | two\ndb | half\nweb | three\ndb |  line\n");
    }

    #[test]
    fn a_gap_is_reported_whether_the_enclave_or_the_host_lost_the_records() {
        let records = [
            output(1, "web", Stream::Stdout, b"a\n"),
            Record::Gap { first: 2, count: 3 },
            output(5, "web", Stream::Stdout, b"b\n"),
            output(8, "web", Stream::Stdout, b"c\n"),
        ];
        let (out, err) = printed(Format::default(), &records);
        assert_eq!(out, "a\nb\nc\n");
        assert_eq!(
            err,
            "cloister: 3 log records are missing here\ncloister: 2 log records are missing here\n"
        );
    }

    #[test]
    fn a_line_before_a_gap_is_not_joined_with_the_one_after_it() {
        let records = [
            output(1, "web", Stream::Stdout, b"whole\nhal"),
            output(5, "web", Stream::Stdout, b"lf\n"),
            output(9, "web", Stream::Stdout, b"b\n"),
        ];
        assert_eq!(printed(Format::default(), &records).0, "whole\nhal\nlf\nb\n");
        let format = Format { names: true, ..Format::default() };
        assert_eq!(printed(format, &records).0, "web | whole\nweb | hal\nweb | lf\nweb | b\n");
    }

    #[test]
    fn a_gap_in_one_services_log_may_belong_to_another_service() {
        let format = Format { service: Some("web".into()), ..Format::default() };
        let records = [output(1, "web", Stream::Stdout, b"a\n"), Record::Gap { first: 2, count: 3 }];
        let (_, err) = printed(format, &records);
        assert_eq!(err, "cloister: 3 log records of this or other services are missing here\n");
    }

    #[test]
    fn messages_of_the_supervisor_go_to_standard_error() {
        let (out, err) = printed(Format::default(), &[output(1, "web", Stream::Supervisor, b"restarted\n")]);
        assert_eq!((out.as_str(), err.as_str()), ("", "cloister: web: restarted\n"));
    }

    #[test]
    fn records_of_other_services_are_skipped_without_a_gap() {
        let format = Format { service: Some("web".into()), ..Format::default() };
        let records = [
            output(1, "web", Stream::Stdout, b"a\n"),
            output(2, "db", Stream::Stdout, b"b\n"),
            output(3, "web", Stream::Stdout, b"c\n"),
        ];
        assert_eq!(printed(format, &records), ("a\nc\n".into(), String::new()));
    }

    #[test]
    fn times_are_in_the_hosts_clock() {
        assert_eq!(clock(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(clock(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(clock(1_798_761_599_999), "2026-12-31T23:59:59.999Z");
        let format = Format { times: Some(951_827_695_289), ..Format::default() };
        let records = [output(1, "web", Stream::Stdout, b"a\n")];
        assert_eq!(printed(format, &records).0, "2000-02-29T12:34:56.789Z a\n");
    }
}
