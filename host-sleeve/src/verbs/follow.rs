//! Printing an enclave's log, up to its end or while it grows.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use cloister_wire::frame::{Decoder, HOST_LIMIT};
use cloister_wire::logs::{Record, Stream};
use serde::Serialize;

use crate::logbook::SERVICES;
use crate::logbook::lines::{Format, Printer, clock};
use crate::logbook::reader::{Reader, Wake};
use crate::output;
use crate::state::{Dir, EnclaveDir};

/// Receives records one by one.
pub(crate) trait Sink {
    /// Receives a record. An error ends the reading.
    fn take(&mut self, record: &Record) -> io::Result<()>;
    /// The next record has this number, and none is missing before it.
    fn continue_at(&mut self, seq: u64);
    /// Writes all buffered output: the reader is about to wait.
    fn flush(&mut self) -> io::Result<()>;
}

impl<O: Write, E: Write> Sink for Printer<O, E> {
    fn take(&mut self, record: &Record) -> io::Result<()> {
        self.print(record)
    }

    fn continue_at(&mut self, seq: u64) {
        Self::continue_at(self, seq);
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::flush(self)
    }
}

/// Writes records as lines of JSON.
#[derive(Debug)]
pub(crate) struct JsonLines<O> {
    format: Format,
    out: O,
    /// The number after the last record.
    next: Option<u64>,
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    since_boot_ns: u64,
    service: &'a str,
    stream: Stream,
    /// The text, with invalid UTF-8 replaced.
    text: String,
}

#[derive(Serialize)]
struct Gap {
    first_lost: u64,
    lost: u64,
}

impl<O: Write> JsonLines<O> {
    /// A writer of lines to `out`.
    pub(crate) const fn new(format: Format, out: O) -> Self {
        Self { format, out, next: None }
    }

    fn gap(&mut self, first_lost: u64, lost: u64) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &Gap { first_lost, lost })?;
        self.out.write_all(b"\n")
    }
}

impl<O: Write> Sink for JsonLines<O> {
    fn take(&mut self, record: &Record) -> io::Result<()> {
        match record {
            Record::Gap { first, count } => {
                self.next = Some(first.saturating_add(*count));
                self.gap(*first, *count)
            }
            Record::Output { seq, time_ns, service, stream, bytes } => {
                if let Some(next) = self.next.replace(seq.saturating_add(1)).filter(|next| next < seq) {
                    self.gap(next, seq.saturating_sub(next))?;
                }
                if self.format.service.as_ref().is_some_and(|wanted| wanted != service) {
                    return Ok(());
                }
                let time = self.format.times.map(|booted| clock(booted.saturating_add(time_ns / 1_000_000)));
                let text = String::from_utf8_lossy(bytes).into_owned();
                let line = Line { seq: *seq, time, since_boot_ns: *time_ns, service, stream: *stream, text };
                serde_json::to_writer(&mut self.out, &line)?;
                self.out.write_all(b"\n")
            }
        }
    }

    fn continue_at(&mut self, seq: u64) {
        self.next = Some(seq);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Retains only the last lines.
#[derive(Debug)]
pub(crate) struct Tail {
    wanted: usize,
    kept: VecDeque<Record>,
    /// Number of line ends in the retained records.
    ends: usize,
    service: Option<String>,
    /// The number after the last record, of any service.
    next: Option<u64>,
}

impl Tail {
    /// Retains the last `wanted` lines, of `service` only if given.
    pub(crate) const fn new(wanted: usize, service: Option<String>) -> Self {
        Self { wanted, kept: VecDeque::new(), ends: 0, service, next: None }
    }

    /// Writes the retained lines to `sink`, from the beginning of a line.
    pub(crate) fn write_to(self, sink: &mut dyn Sink) -> io::Result<()> {
        let last = self.kept.iter().rfind(|record| matches!(record, Record::Output { .. }));
        let open = last.is_some_and(|record| !output(record).ends_with(b"\n"));
        let mut skip = self.ends.saturating_add(usize::from(open)).saturating_sub(self.wanted);
        for mut record in self.kept {
            if let Record::Output { bytes, .. } = &mut record {
                let ends = line_ends(bytes);
                let cut =
                    skip.checked_sub(1).map_or(0, |nth| ends.get(nth).map_or(bytes.len(), |end| end + 1));
                bytes.drain(..cut);
                skip = skip.saturating_sub(ends.len());
            }
            match &record {
                Record::Output { bytes, .. } if bytes.is_empty() => {}
                Record::Gap { .. } if skip > 0 => {}
                Record::Gap { .. } => sink.take(&record)?,
                Record::Output { seq, .. } => {
                    sink.continue_at(*seq);
                    sink.take(&record)?;
                }
            }
        }
        if let Some(next) = self.next {
            sink.continue_at(next);
        }
        Ok(())
    }
}

impl Sink for Tail {
    fn take(&mut self, record: &Record) -> io::Result<()> {
        let (first, service) = match record {
            Record::Output { seq, service, .. } => (*seq, service),
            Record::Gap { first, count } => {
                self.next = Some(first.saturating_add(*count));
                self.kept.push_back(record.clone());
                return Ok(());
            }
        };
        if let Some(next) = self.next.replace(first.saturating_add(1)).filter(|next| *next < first) {
            self.kept.push_back(Record::Gap { first: next, count: first.saturating_sub(next) });
        }
        if self.service.as_ref().is_some_and(|wanted| wanted != service) {
            return Ok(());
        }
        self.ends = self.ends.saturating_add(line_ends(output(record)).len());
        self.kept.push_back(record.clone());
        // One line more than wanted is retained: the first may have begun in a discarded record.
        while let Some(first) = self.kept.front().map(|first| line_ends(output(first)).len()) {
            if self.ends.saturating_sub(first) <= self.wanted {
                break;
            }
            self.ends -= first;
            self.kept.pop_front();
        }
        Ok(())
    }

    fn continue_at(&mut self, seq: u64) {
        self.next = Some(seq);
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn output(record: &Record) -> &[u8] {
    match record {
        Record::Output { bytes, .. } => bytes,
        Record::Gap { .. } => &[],
    }
}

/// The positions of line ends.
fn line_ends(bytes: &[u8]) -> Vec<usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect()
}

/// The records of a log, in order.
#[derive(Debug)]
pub(crate) struct Records {
    reader: Reader,
    decoder: Decoder,
    /// Whether the rest of this file is malformed.
    damaged: bool,
    /// The number after the last record. While a disk is full, records can be both in a file and in the retained ends of
    /// streams; they are delivered once.
    next: u64,
}

impl Records {
    /// The records of the log of this name in `dir`.
    pub(crate) fn open(dir: &Dir, name: &'static str) -> Self {
        Self { reader: Reader::open(dir, name), decoder: Decoder::new(HOST_LIMIT), damaged: false, next: 0 }
    }

    /// Continues with the log of this name in `dir`, after all records that were read.
    fn continue_in(self, dir: &Dir, name: &'static str) -> Self {
        Self { next: self.next, ..Self::open(dir, name) }
    }

    /// Delivers all available records to `sink`.
    pub(crate) fn drain(&mut self, sink: &mut dyn Sink) -> io::Result<()> {
        loop {
            let (piece, fresh) = self.reader.next_piece()?;
            if fresh {
                self.decoder = Decoder::new(HOST_LIMIT);
                self.damaged = false;
            }
            if piece.is_empty() {
                return sink.flush();
            }
            if self.damaged {
                continue;
            }
            self.decoder.push(piece);
            self.damaged = Self::deliver(&mut self.decoder, &mut self.next, sink)?;
        }
    }

    /// Delivers the decoded records. Returns whether the bytes are malformed.
    fn deliver(decoder: &mut Decoder, next: &mut u64, sink: &mut dyn Sink) -> io::Result<bool> {
        loop {
            match decoder.next_frame() {
                Ok(None) => return Ok(false),
                Ok(Some(body)) => match Record::from_bytes(body) {
                    Ok(record) if is_new(&record, next) => sink.take(&record)?,
                    Ok(_) => {}
                    Err(_) => return Ok(true),
                },
                Err(_) => return Ok(true),
            }
        }
    }
}

/// Whether a record's number is higher than all before it.
const fn is_new(record: &Record, next: &mut u64) -> bool {
    let (first, after) = match record {
        Record::Output { seq, .. } => (*seq, seq.saturating_add(1)),
        Record::Gap { first, count } => (*first, first.saturating_add(*count)),
    };
    let new = first >= *next;
    if new {
        *next = after;
    }
    new
}

/// Delivers the services' log in `dir` to `sink` until `sleeve` is closed by the peer, and then the rest.
pub(crate) fn follow(dir: &Dir, sleeve: UnixStream, sink: &mut dyn Sink) -> io::Result<()> {
    drain_until(&mut Records::open(dir, SERVICES), Wake::new(dir, Some(sleeve))?, sink)
}

/// Delivers records to `sink` until `wake` reports the end, and then the rest.
fn drain_until(records: &mut Records, mut wake: Wake, sink: &mut dyn Sink) -> io::Result<()> {
    records.drain(sink)?;
    while wake.wait()? {
        records.drain(sink)?;
    }
    records.drain(sink)
}

/// Prints the log in a thread of its own: a slow reader of standard output may delay it, but not the sleeve.
#[derive(Debug)]
pub(crate) struct Follower {
    thread: std::thread::JoinHandle<()>,
    /// The directory that it reads, or will read after the ones before it.
    dir: Dir,
    /// Closed when the log in that directory is complete.
    end: UnixStream,
    moves: mpsc::Sender<(Dir, UnixStream)>,
}

impl Follower {
    /// Prints the services' log of an enclave to standard output and standard error.
    pub(crate) fn start(directory: &EnclaveDir, format: Format) -> io::Result<Self> {
        let (dir, name) = (directory.dir().clone(), directory.name().to_owned());
        let (end, theirs) = UnixStream::pair()?;
        let (moves, places) = mpsc::channel();
        let first = dir.clone();
        let print = move || -> io::Result<()> {
            let mut printer = Printer::new(format, io::BufWriter::new(io::stdout()), io::stderr());
            let mut records = Records::open(&first, SERVICES);
            drain_until(&mut records, Wake::new(&first, Some(theirs))?, &mut printer)?;
            for (dir, end) in places {
                records = records.continue_in(&dir, SERVICES);
                drain_until(&mut records, Wake::new(&dir, Some(end))?, &mut printer)?;
            }
            Ok(())
        };
        let follow_log = move || {
            let result = print();
            if let Some(text) = not_shown(&result, &name) {
                output::note(&text);
            }
        };
        let thread = std::thread::Builder::new().name("follower".to_owned()).spawn(follow_log)?;
        Ok(Self { thread, dir, end, moves })
    }

    /// Continues in `dir` after the rest in the current directory was printed; does not wait for that.
    pub(crate) fn move_to(&mut self, dir: &Dir) -> io::Result<()> {
        if self.dir.is(dir) {
            return Ok(());
        }
        let (end, theirs) = UnixStream::pair()?;
        // A follower that has ended has no reader any more.
        drop(self.moves.send((dir.clone(), theirs)));
        self.dir = dir.clone();
        self.end = end;
        Ok(())
    }

    /// Waits until the rest is printed.
    pub(crate) fn finish(self) {
        drop((self.end, self.moves));
        // A panic in the thread was already printed by the panic hook.
        drop(self.thread.join());
    }
}

/// The message that the enclave's output is no longer printed. A reader that is gone needs none.
fn not_shown(printed: &io::Result<()>, name: &str) -> Option<String> {
    let error = printed.as_ref().err().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)?;
    Some(format!(
        "warning: the output of {name} is no longer printed: {error}\nhint: `host-sleeve logs {name}` shows it"
    ))
}

#[cfg(test)]
mod tests;
