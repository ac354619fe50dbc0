//! All histories: the only place where log records are created, and where the histories are merged into one log.
//!
//! Invariant: each stream has a history of its own, and so have the supervisor's lines about each service, about
//! ingress and about the enclave; the records' numbers define the order across them. Everything here happens between
//! two awaits of a single thread, so a reader never sees a record whose bytes have just been overwritten.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_manifest::model::{self, Service};
use cloister_wire::frame::{self, HOST_LIMIT};
use cloister_wire::logs::{OTHER_SHARES, Record, Stream};
use tokio::sync::watch;

use super::history::History;
use super::index::{Entry, INGRESS, NO_SERVICE};
use super::ring::{MAX_TEXT, Span};
use crate::clock::Moment;
use crate::launcher::Id;

/// The name under which init holds the supervisor's lines.
pub const OWN_LOG: &str = "log.supervisor";

/// The service name in records of the supervisor's lines about itself.
const OWN_NAME: &str = "supervisor";

/// Maximum length of a line of the supervisor, in bytes with its newline: it may quote an error of the system or of a
/// service.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "it is small, and try_from is not const"
)]
const MAX_LINE: usize = MAX_TEXT as usize;

/// One output stream of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The service.
    pub id: Id,
    /// [`Stream::Stdout`] or [`Stream::Stderr`].
    pub stream: Stream,
}

/// The memfds of all streams, which init holds.
#[derive(Debug)]
pub struct Memfds {
    /// The supervisor's own lines.
    pub own: OwnedFd,
    /// Stdout and stderr of each service; `None` if its output is discarded.
    pub outputs: Vec<Option<(OwnedFd, OwnedFd)>>,
}

/// The names under which init holds the memfds: the supervisor's, then two for each service whose output is stored,
/// then two for each servant.
#[must_use]
pub fn stash_names(services: &[Service], servants: usize) -> Vec<String> {
    let forwards = services.iter().map(|service| service.logs == model::Logs::Forward);
    let stored =
        (0..).zip(forwards.chain(std::iter::repeat_n(true, servants))).filter(|(_, forwards)| *forwards);
    let outputs = stored.flat_map(|(place, _)| output_names(place));
    std::iter::once(OWN_LOG.to_owned()).chain(outputs).collect()
}

/// The names of the histories of a service's stdout and stderr, by its position in the manifest; servants follow the
/// services. Init's names are as short as service names, and positions never change.
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
    outputs: Vec<Option<(History, History)>>,
    own: Own,
    /// The number of the next record.
    next: u64,
    head: watch::Sender<u64>,
}

/// The supervisor's own lines, in separately bounded shares of one memfd: first those of the enclave and of ingress,
/// then one for each service.
#[derive(Debug)]
struct Own {
    enclave: History,
    ingress: History,
    services: Vec<History>,
}

impl Own {
    fn resume(memfd: OwnedFd, services: usize) -> io::Result<Self> {
        let file = Arc::new(File::from(memfd));
        let share = |number| History::resume_share(Arc::clone(&file), number);
        let services = (OTHER_SHARES..).take(services).map(share).collect::<io::Result<_>>()?;
        Ok(Self { enclave: share(0)?, ingress: share(1)?, services })
    }

    fn get(&self, service: u16) -> Option<&History> {
        match service {
            NO_SERVICE => Some(&self.enclave),
            INGRESS => Some(&self.ingress),
            service => self.services.get(usize::from(service)),
        }
    }

    fn get_mut(&mut self, service: u16) -> Option<&mut History> {
        match service {
            NO_SERVICE => Some(&mut self.enclave),
            INGRESS => Some(&mut self.ingress),
            service => self.services.get_mut(usize::from(service)),
        }
    }

    fn all(&self) -> impl Iterator<Item = &History> {
        [&self.enclave, &self.ingress].into_iter().chain(&self.services)
    }
}

impl Shared {
    /// Shares `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// Locks the logs. The guard must not be held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line about a service, or about the supervisor itself. If the log cannot be written, the line is lost.
    pub fn log(&self, about: Option<Id>, line: &str) {
        self.lock().log(about, line, Moment::now()).unwrap_or_default();
    }

    /// Writes a line about connections from outside.
    pub fn log_ingress(&self, line: &str) {
        self.lock().write(INGRESS, line, Moment::now()).unwrap_or_default();
    }
}

impl Store {
    /// Continues the logs in `memfds`, which are empty at first. Bytes that arrived in a ring and were not indexed
    /// before a crash are indexed now.
    pub fn resume(names: Vec<String>, memfds: Memfds, now: Moment) -> io::Result<Self> {
        let mut missed = Vec::new();
        let mut history = |memfd: OwnedFd, service: u16, stream: Stream| -> io::Result<History> {
            let (history, gap) = History::resume(memfd)?;
            missed.push((gap, service, stream));
            Ok(history)
        };
        let mut outputs = Vec::with_capacity(memfds.outputs.len());
        for (service, pair) in (0u16..).zip(memfds.outputs) {
            outputs.push(match pair {
                Some((out, err)) => {
                    Some((history(out, service, Stream::Stdout)?, history(err, service, Stream::Stderr)?))
                }
                None => None,
            });
        }
        let own = Own::resume(memfds.own, names.len())?;
        let mut store = Self { names, outputs, own, next: 0, head: watch::Sender::new(0) };
        store.next = store.histories().map(|(_, history)| history.next()).max().unwrap_or(0);
        for (gap, service, stream) in missed {
            store.append(gap, service, stream, now)?;
        }
        store.head.send_replace(store.next);
        Ok(store)
    }

    /// Moves the contents of a service's pipe into its ring and indexes them. An empty span means the end of the
    /// stream, `WouldBlock` an empty pipe. A discarded stream has no ring, and no end here.
    pub fn take<P: AsFd>(&mut self, output: Output, pipe: P, now: Moment) -> io::Result<Span> {
        let history = self.history_mut(output.id.0, output.stream).ok_or(io::ErrorKind::NotFound)?;
        let span = history.take(pipe)?;
        self.note(span, output.id.0, output.stream, now)?;
        Ok(span)
    }

    /// Writes a line of the supervisor about a service, or about the supervisor itself.
    pub fn log(&mut self, about: Option<Id>, line: &str, now: Moment) -> io::Result<()> {
        self.write(about.map_or(NO_SERVICE, |id| id.0), line, now)
    }

    fn write(&mut self, service: u16, line: &str, now: Moment) -> io::Result<()> {
        let end = MAX_LINE.saturating_sub(1).min(line.len());
        let mut text = line.as_bytes().get(..end).unwrap_or_default().to_vec();
        text.push(b'\n');
        let span = self.own.get_mut(service).ok_or(io::ErrorKind::NotFound)?.write(&text)?;
        self.note(span, service, Stream::Supervisor, now)
    }

    /// The number of the next record, and its changes.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Appends frames from record `from` on to `out` until it holds `limit` bytes or nothing is left, and returns the
    /// number to continue from. The last frame may exceed `limit` by one record.
    pub fn frames(&self, from: u64, limit: usize, out: &mut Vec<u8>) -> io::Result<u64> {
        let (entries, end) = self.since(from)?;
        let (mut next, mut missing) = (from, 0u64);
        for (stream, entry) in entries {
            if out.len() >= limit {
                push_gap(&mut missing, next, out);
                return Ok(next);
            }
            // Each number was assigned to a record: one that is missing was overwritten in its history.
            missing = missing.saturating_add(entry.seq.saturating_sub(next));
            match self.record(stream, entry)? {
                None => missing = missing.saturating_add(1),
                Some(record) => {
                    push_gap(&mut missing, entry.seq, out);
                    push(&record, out);
                }
            }
            next = entry.seq.saturating_add(1);
        }
        let end = end.max(next);
        missing = missing.saturating_add(end.saturating_sub(next));
        push_gap(&mut missing, end, out);
        Ok(end)
    }

    /// The bytes of `span` of a service's stream, if they are still here.
    pub fn read(&self, output: Output, span: Span, into: &mut Vec<u8>) -> io::Result<()> {
        self.history(output.id.0, output.stream).map_or(Ok(false), |history| history.read(span, into))?;
        Ok(())
    }

    /// The spans of a service's stream written at `since` or later, oldest first.
    pub fn spans_since(&self, output: Output, since: Moment) -> io::Result<Vec<Span>> {
        let mut spans = Vec::new();
        let Some(history) = self.history(output.id.0, output.stream) else { return Ok(spans) };
        let (mut from, mut more) = (0, true);
        while more {
            let entries;
            (entries, more) = history.since(from)?;
            from = entries.last().map_or(u64::MAX, |last| last.seq.saturating_add(1));
            spans.extend(entries.iter().filter(|e| e.time_ns >= since.nanos()).map(|e| e.span));
        }
        Ok(spans)
    }

    /// The stored records from number `from` on, in order, up to a number that is returned too: as many
    /// as one block of each history allows. If none is left, that is the number of the next record.
    fn since(&self, from: u64) -> io::Result<(Vec<(Stream, Entry)>, u64)> {
        let (mut all, mut end) = (Vec::new(), self.next);
        for (stream, history) in self.histories() {
            let (entries, more) = history.since(from)?;
            if let Some(last) = entries.last().filter(|_| more) {
                end = end.min(last.seq.saturating_add(1));
            }
            all.extend(entries.into_iter().map(|entry| (stream, entry)));
        }
        all.retain(|(_, entry)| entry.seq < end);
        all.sort_unstable_by_key(|(_, entry)| entry.seq);
        Ok((all, end))
    }

    fn note(&mut self, span: Span, service: u16, stream: Stream, now: Moment) -> io::Result<()> {
        self.append(span, service, stream, now)?;
        self.head.send_replace(self.next);
        Ok(())
    }

    fn append(&mut self, span: Span, service: u16, stream: Stream, now: Moment) -> io::Result<()> {
        let next = self.next;
        let history = self.history_mut(service, stream).ok_or(io::ErrorKind::NotFound)?;
        self.next = history.note(span, service, next, now)?;
        Ok(())
    }

    fn record(&self, stream: Stream, entry: Entry) -> io::Result<Option<Record>> {
        let mut bytes = Vec::new();
        let here = self
            .history(entry.service, stream)
            .map_or(Ok(false), |history| history.read(entry.span, &mut bytes))?;
        let service = || self.names.get(usize::from(entry.service)).map_or(OWN_NAME, String::as_str);
        Ok(here.then(|| Record::Output {
            seq: entry.seq,
            time_ns: entry.time_ns,
            service: service().to_owned(),
            stream,
            bytes,
        }))
    }

    fn histories(&self) -> impl Iterator<Item = (Stream, &History)> {
        let pair = |(out, err)| [(Stream::Stdout, out), (Stream::Stderr, err)];
        let outputs = self.outputs.iter().flatten().map(|(out, err)| (out, err)).flat_map(pair);
        self.own.all().map(|history| (Stream::Supervisor, history)).chain(outputs)
    }

    fn history(&self, service: u16, stream: Stream) -> Option<&History> {
        let pair = || self.outputs.get(usize::from(service)).and_then(Option::as_ref);
        match stream {
            Stream::Stdout => pair().map(|(out, _)| out),
            Stream::Stderr => pair().map(|(_, err)| err),
            Stream::Supervisor => self.own.get(service),
        }
    }

    fn history_mut(&mut self, service: u16, stream: Stream) -> Option<&mut History> {
        match stream {
            Stream::Supervisor => return self.own.get_mut(service),
            Stream::Stdout | Stream::Stderr => {}
        }
        let (out, err) = self.outputs.get_mut(usize::from(service)).and_then(Option::as_mut)?;
        Some(if stream == Stream::Stdout { out } else { err })
    }
}

/// Appends a gap record for the missing records before number `next`.
fn push_gap(missing: &mut u64, next: u64, out: &mut Vec<u8>) {
    let count = std::mem::take(missing);
    if count > 0 {
        push(&Record::Gap { first: next.saturating_sub(count), count }, out);
    }
}

/// Appends a record as a frame. Names and lengths are bounded where records are created, so none is refused.
fn push(record: &Record, out: &mut Vec<u8>) {
    let frame = record.to_bytes().ok().and_then(|body| frame::encode_bytes(&body, HOST_LIMIT).ok());
    out.extend(frame.unwrap_or_default());
}

#[cfg(test)]
mod tests;
