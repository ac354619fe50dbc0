//! The event log: in memory that init holds, so that it outlives this process.
//!
//! Invariant: an event is written there before a register is extended with it, and nothing follows it before the register
//! contains it. So after a crash at any moment, at most the last event is missing in the register, and the successor extends it
//! then. What has been shown to a client is never removed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use cloister_binding::eventlog::{Digests, EVENTS_LIMIT, Event, LOCKED, LOG_LIMIT, Log, LogError};
use tokio::sync::watch;

/// The part of the log that services may fill together: the rest remains for Cloister's own events.
const SHARE: (usize, usize) = (EVENTS_LIMIT / 4 * 3, LOG_LIMIT / 4 * 3);

/// The log of this enclave.
#[derive(Debug)]
pub(crate) struct Events {
    file: File,
    /// The encoded log. Snapshots share it.
    bytes: Arc<Mutex<Vec<u8>>>,
    /// The length that other threads see.
    published: Arc<watch::Sender<usize>>,
    length: usize,
    count: usize,
    digests: Digests,
    /// The last event, and what the log came to without it.
    last: Option<(Event, Digests)>,
    locked_by: Option<String>,
    /// Events and bytes of each service.
    used: BTreeMap<String, (usize, usize)>,
    /// How many services may record events: each has an equal part.
    services: usize,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum DamagedLog {
    /// The memory could not be read or written.
    #[error("cannot access the memory of the event log")]
    Memory(#[from] io::Error),
    /// It does not contain a log.
    #[error("the memory of the event log is damaged")]
    Contents(#[from] LogError),
}

/// Why an event was not recorded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unrecorded {
    /// It is outside the limits.
    #[error("{0}")]
    Event(#[from] LogError),
    /// Nothing more is recorded.
    #[error("no more events are recorded: service {0} has locked the log")]
    Locked(String),
    /// The service has used its part of the log.
    #[error(
        "service {0} has used its part of the event log ({1} events, {2} bytes); record the digest of many things as one event"
    )]
    Full(String, usize, usize),
    /// The memory could not be written.
    #[error("cannot write the event log: {0}")]
    Memory(String),
}

/// The log as it was at one moment, to be sent without a copy.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    bytes: Arc<Mutex<Vec<u8>>>,
    length: usize,
}

/// The log for other threads than the one that writes it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    bytes: Arc<Mutex<Vec<u8>>>,
    length: Arc<watch::Sender<usize>>,
}

impl Published {
    /// The log as it was last published.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { bytes: Arc::clone(&self.bytes), length: *self.length.borrow() }
    }

    /// The length of the log, which changes when more of it is published.
    pub(crate) fn length(&self) -> Arc<watch::Sender<usize>> {
        Arc::clone(&self.length)
    }
}

impl Events {
    /// The log in this memory, which is empty the first time: then the boot is recorded. `services` is how many services may
    /// record events.
    pub(crate) fn open(memory: OwnedFd, services: usize) -> Result<Self, DamagedLog> {
        let file = File::from(memory);
        let log = Log::parse_written(&contents(&file)?)?;
        let mut events = Self {
            file,
            bytes: Arc::default(),
            published: Arc::default(),
            length: 0,
            count: 0,
            digests: Digests::default(),
            last: None,
            locked_by: None,
            used: BTreeMap::new(),
            services: services.max(1),
        };
        for event in log.events() {
            events.add(event);
        }
        if log.events().is_empty() {
            for event in Log::booted().events() {
                events.append(event)?;
            }
        }
        events.publish();
        Ok(events)
    }

    /// What the log comes to.
    pub(crate) fn digests(&self) -> &Digests {
        &self.digests
    }

    /// The last event, and what its register contains without it.
    pub(crate) fn last(&self) -> Option<(&Event, [u8; 48])> {
        let (event, before) = self.last.as_ref()?;
        Some((event, before.nitro_register(event.register())))
    }

    /// Whether a service has ended the recording.
    pub(crate) fn is_locked(&self) -> bool {
        self.locked_by.is_some()
    }

    /// The number of events.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The log as it is now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { bytes: Arc::clone(&self.bytes), length: self.length }
    }

    /// The log for other threads, as far as it is [published](Self::publish).
    pub(crate) fn published(&self) -> Published {
        Published { bytes: Arc::clone(&self.bytes), length: Arc::clone(&self.published) }
    }

    /// Shows other threads what is in the log now. None of it is removed later.
    pub(crate) fn publish(&self) {
        self.published.send_if_modified(|length| std::mem::replace(length, self.length) != *length);
    }

    /// Writes an event of a service to the log. The caller extends the register with it, or [removes](Self::remove_last) it.
    pub(crate) fn record(&mut self, service: &str, label: &str, data: &[u8]) -> Result<Event, Unrecorded> {
        let event = Event::of_service(service, label, data)?;
        self.write(service, event)
    }

    /// Writes the event that ends the recording.
    pub(crate) fn record_lock(&mut self, service: &str) -> Result<Event, Unrecorded> {
        self.write(service, Event::locked(service)?)
    }

    fn write(&mut self, service: &str, event: Event) -> Result<Event, Unrecorded> {
        if let Some(by) = &self.locked_by {
            return Err(Unrecorded::Locked(by.clone()));
        }
        let (most, bytes) = (SHARE.0 / self.services, SHARE.1 / self.services);
        let (count, used) = self.used.get(service).copied().unwrap_or_default();
        // The end of the recording always has space in the part that services do not fill.
        if event.kind() != LOCKED && (count >= most || used.saturating_add(event.entry().len()) > bytes) {
            return Err(Unrecorded::Full(service.to_owned(), most, bytes));
        }
        self.append(&event).map_err(|error| Unrecorded::Memory(error.to_string()))?;
        Ok(event)
    }

    /// Removes the last event, which the module has refused: no snapshot contains it.
    pub(crate) fn remove_last(&mut self) {
        let Some((event, before)) = self.last.take() else { return };
        let entry = event.entry().len();
        self.length = self.length.saturating_sub(entry);
        self.count = self.count.saturating_sub(1);
        self.digests = before;
        self.locked_by = None;
        self.bytes().truncate(self.length);
        if let Some((count, bytes)) = event.service().and_then(|name| self.used.get_mut(name)) {
            *count = count.saturating_sub(1);
            *bytes = bytes.saturating_sub(entry);
        }
        // If this fails, the next event overwrites it; a successor would extend it, which the module refuses again.
        self.truncate().unwrap_or_default();
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        // Whatever an incomplete write has left is gone before the next one.
        self.truncate()?;
        let offset = u64::try_from(self.length).unwrap_or(u64::MAX);
        self.file.write_all_at(&event.entry(), offset)?;
        self.add(event);
        Ok(())
    }

    fn truncate(&self) -> io::Result<()> {
        self.file.set_len(u64::try_from(self.length).unwrap_or(u64::MAX))
    }

    fn add(&mut self, event: &Event) {
        let entry = event.entry();
        let before = self.digests.clone();
        self.digests.add(event);
        self.length = self.length.saturating_add(entry.len());
        self.count = self.count.saturating_add(1);
        if let Some(name) = event.service() {
            let used = self.used.entry(name.to_owned()).or_default();
            *used = (used.0.saturating_add(1), used.1.saturating_add(entry.len()));
        }
        if event.kind() == LOCKED {
            self.locked_by = Some(String::from_utf8_lossy(event.data()).into_owned());
        }
        self.bytes().extend_from_slice(&entry);
        self.last = Some((event.clone(), before));
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the memory contains, as far as a log can be.
fn contents(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; LOG_LIMIT];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, u64::try_from(length).unwrap_or(u64::MAX))? {
            0 => break,
            count => length = length.saturating_add(count),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

impl Snapshot {
    /// The number of its bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// At most `limit` bytes from this position on.
    pub(crate) fn piece(&self, position: usize, limit: usize) -> Vec<u8> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let end = position.saturating_add(limit).min(self.length);
        bytes.get(position..end).unwrap_or_default().to_vec()
    }
}

#[cfg(test)]
mod tests;
