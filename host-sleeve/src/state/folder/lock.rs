//! The lock of an enclave's folder: who has it, and what is said of that.
//!
//! Its law: a lock is had only while its file is in the folder. A lock file can be removed; who then takes a new one is not the
//! enclave's sleeve, and the record tells which process is.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Doing, Error, Result};
use crate::state::process::ProcessId;

use super::{Folder, LOCK};

/// How long a lock is waited for that is only asked about, or that a dying process has: both are a matter of microseconds, but for
/// as long as the kernel lets another process run in between.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// What came of asking for a lock.
pub(super) enum Lock {
    /// It is ours.
    Taken(Folder),
    /// Another process has it, or runs the enclave without it.
    Held(Folder),
    /// The folder is gone.
    Gone,
}

impl Folder {
    /// This folder with a new lock; nothing if it has become another enclave's.
    pub(super) fn lock_again(&self) -> Result<Option<Self>> {
        let own = ProcessId::own();
        let is_anothers = |folder: &Self| folder.traces().named.is_some_and(|sleeve| Some(sleeve) != own);
        let same = Self {
            name: self.name.clone(),
            path: self.path.clone(),
            dir: self.dir.clone(),
            home: self.home.clone(),
            lock: None,
        };
        match same.into_locked()? {
            Lock::Taken(folder) | Lock::Held(folder) if is_anothers(&folder) => Ok(None),
            Lock::Taken(folder) => Ok(Some(folder)),
            Lock::Gone => Ok(None),
            Lock::Held(_) => Err(Error::host(format!("another process has taken the lock of {}", self.name))
                .hint(format!("only host-sleeve should write into {}", self.path.display()))),
        }
    }

    /// Takes the lock, unless another process has it or runs the enclave.
    pub(super) fn into_locked(mut self) -> Result<Lock> {
        let doing = |path: &Path| format!("cannot lock {}", path.display());
        let deadline = Instant::now() + LOCK_LIMIT;
        while Instant::now() < deadline {
            let lock =
                File::options().create(true).truncate(false).write(true).read(true).open(self.dir.at(LOCK));
            let lock = match lock {
                // Nothing can be made in a folder that was removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::Gone),
                lock => lock.doing(|| doing(&self.path))?,
            };
            match lock.try_lock() {
                // The file may have been removed since it was opened.
                Ok(()) if self.dir.has(&lock, LOCK) => {
                    if self.sleeve().is_some_and(|sleeve| Some(sleeve) != ProcessId::own()) {
                        return Ok(Lock::Held(self));
                    }
                    self.lock = Some(lock);
                    return Ok(Lock::Taken(self));
                }
                Ok(()) => {}
                // Who asks whether it is held shares it with us; who has it does not, and lets go of it only when it is dying.
                Err(TryLockError::WouldBlock)
                    if !self.traces().is_dying() && lock.try_lock_shared().is_err() =>
                {
                    return Ok(Lock::Held(self));
                }
                Err(TryLockError::WouldBlock) => {
                    drop(lock);
                    std::thread::park_timeout(LOCK_PAUSE);
                }
                Err(TryLockError::Error(error)) => return Err(error).doing(|| doing(&self.path)),
            }
        }
        Ok(Lock::Held(self))
    }

    /// Why the lock of this folder is not to be had.
    pub(super) fn why_held(&self) -> Error {
        let (name, traces) = (&self.name, self.traces());
        match traces.process() {
            Some(process) if traces.ended => Error::operator(printing(name, process)).hint(format!(
                "read the output of process {}, or `host-sleeve rm --force {name}` ends it",
                process.pid
            )),
            Some(_) => Error::operator(format!("the enclave {name} is running"))
                .hint(format!("`host-sleeve stop {name}` first, or use rm --force")),
            None => {
                Error::operator(format!("the enclave {name} is being launched or removed by another command"))
                    .hint("try again in a moment")
            }
        }
    }
}

/// What is said of a sleeve whose enclave has ended, and whose output is not read.
pub(crate) fn printing(name: &str, process: ProcessId) -> String {
    format!("{name} has ended, but its `host-sleeve run` (process {}) still has output to print", process.pid)
}
