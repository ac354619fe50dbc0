//! The directory of one enclave.
//!
//! Invariant: only the holder of the lock writes here, unless the record names another running process: a lock file can be
//! removed, and a process that then locks a new one does not own the enclave. An `EnclaveDir` is the directory that was opened, even
//! if its path refers to another one meanwhile: everything in it is accessed through its descriptor, and before its path is
//! removed the two are compared.

mod claim;
mod lock;
mod restore;

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorContext, Result};

use super::dir::{Dir, Home};
use super::handle::Handle;
use super::process::ProcessId;
use super::record::{Record, Seen, Traces};
use super::write::{RECORD, RecordWriter};
pub(crate) use claim::Claim;
pub(crate) use lock::printing;

/// Maximum size of a record that is read: a status is one frame, and the rest is small.
const MAX_RECORD: u64 = 1024 * 1024;

/// How long a sleeve may take to print the remaining output after its enclave has ended: a terminal accepts megabytes in that
/// time, and a pipe that is not read accepts nothing.
const PRINT_LIMIT: Duration = Duration::from_secs(5);

/// The pause between two reads of the record while waiting for an enclave. The exit of its sleeve is noticed without polling.
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// The lock file.
const LOCK: &str = "lock";

/// The open directory of one enclave.
#[derive(Debug)]
pub(crate) struct EnclaveDir {
    name: String,
    path: PathBuf,
    dir: Dir,
    /// Where its logs are written; shared by all directories that one enclave has had.
    home: Home,
    lock: Option<File>,
}

impl EnclaveDir {
    /// Opens the directory without taking its lock.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::open_dir(path).context(|| format!("cannot open {}", path.display()))
    }

    fn open_dir(path: &Path) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let dir = Dir::open(path)?;
        Ok(Self { name, path: path.to_owned(), home: Home::new(dir.clone()), dir, lock: None })
    }

    /// The enclave's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The directory's path, for messages: another directory may be there now.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub(crate) const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Where the enclave's logs are written.
    pub(crate) const fn home(&self) -> &Home {
        &self.home
    }

    /// The writer of the record.
    pub(crate) fn writer(&self) -> RecordWriter {
        RecordWriter::new(self.dir.clone(), self.file(RECORD))
    }

    /// Whether the directory is still the one at its path, and contains the held lock and these files.
    pub(crate) fn is_in_place(&self, files: &[&str]) -> bool {
        self.dir.is_at(&self.path)
            && self.lock_is_in_place()
            && self.has(RECORD)
            && files.iter().all(|file| self.has(file))
    }

    /// Whether the directory contains something with this name.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.dir.at(file).exists()
    }

    /// The path of something in the directory, for messages and for programs that are started with it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A short path of a socket in the directory. It is valid in this process while the directory is open.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.dir.at(name)
    }

    /// The record, and whether its sleeve is alive. `None` while the name is being claimed or the enclave removed.
    pub(crate) fn seen(&self) -> Result<Option<Seen>> {
        // The lock is checked first: a sleeve that exits in between wrote the end before it released the lock.
        let locked = self.lock.is_some() || self.is_locked();
        let Some(bytes) = self.bytes()? else {
            return Ok(None);
        };
        let alive = locked || Traces::of(&bytes).sleeve().is_some();
        Ok(Some(Seen { record: Record::from_bytes(&bytes, &self.name)?, alive }))
    }

    /// Whether the enclave's sleeve is alive, according to the lock and to a record of any version.
    pub(crate) fn is_alive(&self) -> bool {
        self.lock.is_some() || self.is_locked() || self.sleeve().is_some()
    }

    /// Whether any process holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        let Ok(lock) = self.dir.open_file(LOCK) else {
            return false;
        };
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Whether the lock file in the directory is the one that is held, so that the record belongs to this process.
    pub(crate) fn lock_is_in_place(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| self.dir.has(lock, LOCK))
    }

    /// The sleeve's process, if the record names one that is running an enclave.
    pub(crate) fn sleeve(&self) -> Option<ProcessId> {
        self.traces().sleeve()
    }

    /// Whether the record states how the enclave ended. Its sleeve may still be printing the remaining output.
    pub(crate) fn has_ended(&self) -> bool {
        self.traces().ended
    }

    /// The backend's handle in a record of any version, also in a truncated one; at least the backend's name.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.traces().handle
    }

    /// [`Self::seen`], with an error if there is no record.
    pub(crate) fn must_see(&self) -> Result<Seen> {
        self.seen()?.ok_or_else(|| {
            Error::operator(format!("the enclave {} is being launched or removed", self.name))
                .hint("try again in a moment")
        })
    }

    /// The process that the record names as the enclave's sleeve, whether it is still running or not. To wait for an enclave or
    /// to end it, call this once and use only that process: a moment later the directory may belong to a successor.
    pub(crate) fn named(&self) -> Option<ProcessId> {
        self.traces().named
    }

    /// Waits until `sleeve` has exited, but no longer than [`PRINT_LIMIT`] after the end of its enclave, which may have ended
    /// already (`over`). If the record named no sleeve, the lock determines whether there is one. Returns the process if it is
    /// still running then.
    pub(crate) fn wait_end(&self, sleeve: Option<ProcessId>, over: bool) -> Option<ProcessId> {
        let mut deadline = over.then(|| Instant::now() + PRINT_LIMIT);
        loop {
            let traces = self.traces();
            let runs = sleeve.map_or_else(|| self.is_locked(), ProcessId::exists);
            if !runs || traces.named.is_some_and(|named| Some(named) != sleeve) {
                return None;
            }
            if traces.ended || traces.named.is_none() {
                deadline.get_or_insert_with(|| Instant::now() + PRINT_LIMIT);
            }
            if deadline.is_some_and(|limit| Instant::now() >= limit) {
                return sleeve;
            }
            match sleeve {
                Some(sleeve) => drop(sleeve.wait(POLL_PAUSE)),
                None => std::thread::park_timeout(POLL_PAUSE),
            }
        }
    }

    fn traces(&self) -> Traces {
        self.bytes().ok().flatten().map(|bytes| Traces::of(&bytes)).unwrap_or_default()
    }

    /// The record as it is on the disk.
    fn bytes(&self) -> Result<Option<Vec<u8>>> {
        let context = || format!("cannot read {}", self.file(RECORD).display());
        let file = match self.dir.open_file(RECORD) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(context)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_RECORD).read_to_end(&mut bytes).context(context)?;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests;
