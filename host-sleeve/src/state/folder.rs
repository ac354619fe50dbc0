//! The folder of one enclave.
//!
//! Its law: only the holder of the lock writes here, unless the record names another process that runs: a lock file can
//! be removed, and who then takes a new one is not the holder. The folder is the one that was opened, whatever its name means
//! meanwhile: everything in it is reached through its descriptor, and before its name is removed the two are compared.

mod claim;
mod lock;
mod regain;

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Doing, Error, Result};

use super::dir::{Dir, Home};
use super::process::ProcessId;
use super::record::{Record, Seen, Traces};
use super::write::{Pen, RECORD};
pub(crate) use claim::Claim;
pub(crate) use lock::printing;

/// The longest record that is read: a status is one frame, and the rest is small.
const MAX_RECORD: u64 = 1024 * 1024;

/// How long a sleeve may take to print what is left after its enclave has ended: a terminal takes megabytes in that time, and a
/// pipe that nobody reads takes nothing.
const PRINT_LIMIT: Duration = Duration::from_secs(5);

/// The pause between two looks at the record of an enclave that is waited for. The end of its sleeve needs no look.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// The file that is locked.
const LOCK: &str = "lock";

/// One enclave's folder, open.
#[derive(Debug)]
pub(crate) struct Folder {
    name: String,
    path: PathBuf,
    dir: Dir,
    /// Where its logs are written; the same home for all folders that one enclave has had.
    home: Home,
    lock: Option<File>,
}

impl Folder {
    /// Opens the folder without its lock.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::open_dir(path).doing(|| format!("cannot open {}", path.display()))
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

    /// The folder's path, for people: what is there now may be another folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder itself.
    pub(crate) const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Where the enclave's logs are written.
    pub(crate) const fn home(&self) -> &Home {
        &self.home
    }

    /// What writes the record.
    pub(crate) fn pen(&self) -> Pen {
        Pen::new(self.dir.clone(), self.file(RECORD))
    }

    /// Whether the folder is still the one at its path, with the lock that is held and with these files in it.
    pub(crate) fn is_in_place(&self, files: &[&str]) -> bool {
        self.dir.is_at(&self.path)
            && self.lock_is_in_place()
            && self.has(RECORD)
            && files.iter().all(|file| self.has(file))
    }

    /// Whether something of this name is in the folder.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.dir.at(file).exists()
    }

    /// The path of something in the folder, for people and for programs that are started with it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A short path of a socket in the folder. It is valid in this process while the folder is open.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.dir.at(name)
    }

    /// The record and whether its sleeve lives; `None` while the enclave is being claimed or removed.
    pub(crate) fn seen(&self) -> Result<Option<Seen>> {
        // The lock is asked first: a sleeve that ends in between has written its end before it let go of the lock.
        let locked = self.lock.is_some() || self.is_locked();
        let Some(bytes) = self.bytes()? else {
            return Ok(None);
        };
        let alive = locked || Traces::of(&bytes).sleeve().is_some();
        Ok(Some(Seen { record: Record::from_bytes(&bytes, &self.name)?, alive }))
    }

    /// Whether the enclave's sleeve lives, as far as the lock and a record of any version can say.
    pub(crate) fn is_alive(&self) -> bool {
        self.lock.is_some() || self.is_locked() || self.sleeve().is_some()
    }

    /// Whether some process holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        let Ok(lock) = File::open(self.dir.at(LOCK)) else {
            return false;
        };
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Whether the folder has the lock file that is held, so that the record in it is this process's.
    pub(crate) fn lock_is_in_place(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| self.dir.has(lock, LOCK))
    }

    /// The process of the sleeve, if the record names one that runs an enclave.
    pub(crate) fn sleeve(&self) -> Option<ProcessId> {
        self.traces().sleeve()
    }

    /// Whether the record says how the enclave ended. Its sleeve may still print what is left.
    pub(crate) fn has_ended(&self) -> bool {
        self.traces().ended
    }

    /// [`Self::seen`], for one that must be there.
    pub(crate) fn must_see(&self) -> Result<Seen> {
        self.seen()?.ok_or_else(|| {
            Error::operator(format!("the enclave {} is only being launched, or removed", self.name))
                .hint("try again in a moment")
        })
    }

    /// The process that the record names as the enclave's sleeve, whether it still runs or not. Who waits for an enclave, or ends
    /// it, asks this once and goes by that process alone: the folder may be a successor's a moment later.
    pub(crate) fn named(&self) -> Option<ProcessId> {
        self.traces().named
    }

    /// Waits until `sleeve` has ended, but no longer than [`PRINT_LIMIT`] after its enclave has, which may be known already
    /// (`over`). Where no sleeve was named the lock tells whether there is one. Answers the process that is still there then.
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
                Some(sleeve) => drop(sleeve.wait(LOOK_PAUSE)),
                None => std::thread::park_timeout(LOOK_PAUSE),
            }
        }
    }

    fn traces(&self) -> Traces {
        self.bytes().ok().flatten().map(|bytes| Traces::of(&bytes)).unwrap_or_default()
    }

    /// The record as it is on the disk.
    fn bytes(&self) -> Result<Option<Vec<u8>>> {
        let doing = || format!("cannot read {}", self.file(RECORD).display());
        let file = match File::open(self.dir.at(RECORD)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.doing(doing)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_RECORD).read_to_end(&mut bytes).doing(doing)?;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests;
