//! All rings and their index: the one place where a log record is made.
//!
//! Its law: everything here happens between two awaits of a single thread, so a reader never sees a record whose bytes
//! have just been overwritten.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_manifest::model::{self, Service};
use cloister_wire::frame::{self, HOST_LIMIT};
use cloister_wire::logs::{MAX_OUTPUT, Record, Stream};
use tokio::sync::watch;

use super::index::{Entry, Index, NO_SERVICE};
use super::ring::{Ring, Span};
use crate::clock::Moment;
use crate::launcher::Id;

/// The name under which init keeps the index.
pub const INDEX: &str = "log.index";

/// The name under which init keeps what the supervisor says.
pub const OWN_LOG: &str = "log.supervisor";

/// The name under which the supervisor speaks about itself.
const OWN_NAME: &str = "supervisor";

/// The longest line the supervisor writes, in bytes: it may quote an error of the system or of a service.
const MAX_LINE: usize = 4096;

/// [`MAX_OUTPUT`] as a length in a ring.
#[expect(clippy::as_conversions, reason = "usize has at most 64 bits, and try_from is not const")]
const MAX_OUTPUT_BYTES: u64 = MAX_OUTPUT as u64;

/// One output stream of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The service.
    pub id: Id,
    /// [`Stream::Stdout`] or [`Stream::Stderr`].
    pub stream: Stream,
}

/// The memfds of all streams, as init keeps them.
#[derive(Debug)]
pub struct Memfds {
    /// The index.
    pub index: OwnedFd,
    /// What the supervisor itself says.
    pub own: OwnedFd,
    /// Stdout and stderr of each service; `None` where its output is thrown away.
    pub outputs: Vec<Option<(OwnedFd, OwnedFd)>>,
}

/// The names under which init keeps the memfds: the index, the supervisor's, then two for each service whose output is
/// kept.
#[must_use]
pub fn stash_names(services: &[Service]) -> Vec<String> {
    let kept = (0..).zip(services).filter(|(_, service)| service.logs == model::Logs::Forward);
    let outputs = kept.flat_map(|(place, _)| output_names(place));
    [INDEX.to_owned(), OWN_LOG.to_owned()].into_iter().chain(outputs).collect()
}

/// The names of the rings of a service's stdout and stderr, by its place in the manifest: init's names are as short as a
/// service's own, and the place never changes.
#[must_use]
pub fn output_names(place: usize) -> [String; 2] {
    ["out", "err"].map(|end| format!("log.{place}.{end}"))
}

/// The logs, shared by the tasks that write and read them.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Store>>);

/// The logs.
#[derive(Debug)]
pub struct Store {
    names: Vec<String>,
    outputs: Vec<Option<(Ring, Ring)>>,
    own: Ring,
    index: Index,
    head: watch::Sender<u64>,
}

impl Shared {
    /// Shares `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// The logs, until the guard is dropped; never across an await.
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line about a service, or about the supervisor itself. A log that cannot be written is no reason to stop:
    /// the line is lost.
    pub fn say(&self, about: Option<Id>, line: &str) {
        self.lock().say(about, line, Moment::now()).unwrap_or_default();
    }
}

impl Store {
    /// Goes on with the logs in `memfds`, which are empty at first. What arrived in a ring and was not noted before a
    /// crash is noted now.
    pub fn resume(names: Vec<String>, memfds: Memfds, now: Moment) -> io::Result<Self> {
        let mut ends = vec![0; memfds.outputs.len().saturating_mul(2).saturating_add(1)];
        let own_slot = ends.len().saturating_sub(1);
        let index = Index::resume(memfds.index, |entry| {
            let end = entry.span.at.saturating_add(entry.span.len);
            if let Some(slot) = ends.get_mut(slot(entry.service, entry.stream, own_slot)) {
                *slot = end.max(*slot);
            }
        })?;
        for (end, noted) in ends.iter_mut().zip(index.noted_ends()?) {
            *end = noted.max(*end);
        }
        let mut missed = Vec::new();
        let mut ring = |memfd: OwnedFd, service: u16, stream: Stream| -> io::Result<Ring> {
            let noted = ends.get(slot(service, stream, own_slot)).copied().unwrap_or_default();
            let (ring, gap) = Ring::resume(memfd, noted)?;
            missed.push((gap, service, stream));
            Ok(ring)
        };
        let own = ring(memfds.own, NO_SERVICE, Stream::Supervisor)?;
        let mut outputs = Vec::with_capacity(memfds.outputs.len());
        for (service, pair) in (0u16..).zip(memfds.outputs) {
            outputs.push(match pair {
                Some((out, err)) => {
                    Some((ring(out, service, Stream::Stdout)?, ring(err, service, Stream::Stderr)?))
                }
                None => None,
            });
        }
        let mut store = Self { names, outputs, own, head: watch::Sender::new(0), index };
        for (gap, service, stream) in missed {
            store.append(gap, service, stream, now)?;
        }
        store.index.note_ends(&store.ends())?;
        store.head.send_replace(store.index.next());
        Ok(store)
    }

    /// Moves what lies in a service's pipe into its ring and notes it. An empty span is the end of the stream,
    /// `WouldBlock` an empty pipe. A stream that is thrown away has no ring and no end here.
    pub fn take<P: AsFd>(&mut self, output: Output, pipe: P, now: Moment) -> io::Result<Span> {
        let ring = self.ring_mut(output).ok_or(io::ErrorKind::NotFound)?;
        let span = ring.take(pipe)?;
        self.note(span, output.id.0, output.stream, now)?;
        Ok(span)
    }

    /// Writes a line of the supervisor's.
    pub fn say(&mut self, about: Option<Id>, line: &str, now: Moment) -> io::Result<()> {
        let mut text = line.as_bytes().get(..MAX_LINE).unwrap_or(line.as_bytes()).to_vec();
        text.push(b'\n');
        let service = about.map_or(NO_SERVICE, |id| id.0);
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let span = self.own.write(rest)?;
            rest = rest.get(usize::try_from(span.len).unwrap_or(usize::MAX)..).unwrap_or_default();
            self.note(span, service, Stream::Supervisor, now)?;
        }
        Ok(())
    }

    /// The number the next record will have, now and whenever it changes.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Appends frames from record `from` on to `out` until it holds `limit` bytes or nothing is left, and returns the
    /// number to go on from. The last frame may go over `limit` by one record.
    pub fn frames(&self, from: u64, limit: usize, out: &mut Vec<u8>) -> io::Result<u64> {
        let mut next = from.max(self.index.oldest());
        let mut missing = next.saturating_sub(from);
        let page = if next < self.index.next() { self.index.page(next)? } else { Vec::new() };
        for entry in page {
            if out.len() >= limit {
                break;
            }
            match self.record(entry)? {
                None => missing = missing.saturating_add(1),
                Some(record) => {
                    push_gap(&mut missing, next, out);
                    push(&record, out);
                }
            }
            next = entry.seq.saturating_add(1);
        }
        push_gap(&mut missing, next, out);
        Ok(next)
    }

    /// The bytes of `span` of a service's stream, as far as they are still here.
    pub fn read(&self, output: Output, span: Span, into: &mut Vec<u8>) -> io::Result<()> {
        match self.ring(output.id.0, output.stream) {
            Some(ring) if ring.holds(span) => ring.read(span, into),
            _ => Ok(()),
        }
    }

    /// The spans of a service's stream written at `since` or later, oldest first.
    pub fn spans_since(&self, output: Output, since: Moment) -> io::Result<Vec<Span>> {
        let mut spans = Vec::new();
        let mut from = self.index.oldest();
        while from < self.index.next() {
            let page = self.index.page(from)?;
            from = page.last().map_or(u64::MAX, |last| last.seq.saturating_add(1));
            let wanted = |e: &&Entry| {
                e.service == output.id.0 && e.stream == output.stream && e.time_ns >= since.nanos()
            };
            spans.extend(page.iter().filter(wanted).map(|e| e.span));
        }
        Ok(spans)
    }

    fn note(&mut self, span: Span, service: u16, stream: Stream, now: Moment) -> io::Result<()> {
        if self.append(span, service, stream, now)? {
            self.index.note_ends(&self.ends())?;
        }
        self.head.send_replace(self.index.next());
        Ok(())
    }

    fn append(&mut self, span: Span, service: u16, stream: Stream, now: Moment) -> io::Result<bool> {
        let mut entries = Vec::new();
        let mut rest = span;
        while rest.len > 0 {
            let len = rest.len.min(MAX_OUTPUT_BYTES);
            let seq = self.index.next().saturating_add(u64::try_from(entries.len()).unwrap_or(0));
            let span = Span { at: rest.at, len };
            entries.push(Entry { seq, time_ns: now.nanos(), span, service, stream });
            rest = Span { at: rest.at.saturating_add(len), len: rest.len.saturating_sub(len) };
        }
        self.index.append(&entries)
    }

    fn ends(&self) -> Vec<u64> {
        let pair = |p: &Option<(Ring, Ring)>| p.as_ref().map_or([0, 0], |(a, b)| [a.end(), b.end()]);
        self.outputs.iter().flat_map(pair).chain([self.own.end()]).collect()
    }

    fn record(&self, entry: Entry) -> io::Result<Option<Record>> {
        let Some(ring) = self.ring(entry.service, entry.stream).filter(|r| r.holds(entry.span)) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        ring.read(entry.span, &mut bytes)?;
        let service = self.names.get(usize::from(entry.service)).map_or(OWN_NAME, String::as_str).to_owned();
        Ok(Some(Record::Output {
            seq: entry.seq,
            time_ns: entry.time_ns,
            service,
            stream: entry.stream,
            bytes,
        }))
    }

    fn ring(&self, service: u16, stream: Stream) -> Option<&Ring> {
        let pair = || self.outputs.get(usize::from(service)).and_then(Option::as_ref);
        match stream {
            Stream::Stdout => pair().map(|(out, _)| out),
            Stream::Stderr => pair().map(|(_, err)| err),
            Stream::Supervisor => Some(&self.own),
        }
    }

    fn ring_mut(&mut self, output: Output) -> Option<&mut Ring> {
        let pair = self.outputs.get_mut(output.id.index()).and_then(Option::as_mut);
        match output.stream {
            Stream::Stdout => pair.map(|(out, _)| out),
            Stream::Stderr => pair.map(|(_, err)| err),
            Stream::Supervisor => None,
        }
    }
}

/// The place of a stream among the noted ends.
fn slot(service: u16, stream: Stream, own: usize) -> usize {
    let first = usize::from(service).saturating_mul(2);
    match stream {
        Stream::Stdout => first,
        Stream::Stderr => first.saturating_add(1),
        Stream::Supervisor => own,
    }
}

/// Announces records that are missing before number `next`.
fn push_gap(missing: &mut u64, next: u64, out: &mut Vec<u8>) {
    let count = std::mem::take(missing);
    if count > 0 {
        push(&Record::Gap { first: next.saturating_sub(count), count }, out);
    }
}

/// Appends a record as a frame. Names and lengths are bounded where records are made, so none is refused.
fn push(record: &Record, out: &mut Vec<u8>) {
    let frame = record.to_bytes().ok().and_then(|body| frame::encode_bytes(&body, HOST_LIMIT).ok());
    out.extend(frame.unwrap_or_default());
}

#[cfg(test)]
mod tests;
