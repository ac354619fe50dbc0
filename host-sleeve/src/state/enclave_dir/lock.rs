//! The lock of an enclave's directory: who holds it, and how that is reported.
//!
//! Invariant: a lock is held only while its file is in the directory. A lock file can be removed; a process that then locks a new
//! one is not the enclave's sleeve, and the record states which process is.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorContext, Result};
use crate::state::process::ProcessId;

use super::{EnclaveDir, LOCK};

/// How long to wait for a lock that another process is only probing, or that an exiting process still holds: both take
/// microseconds, plus the time for which the kernel lets another process run in between.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// The pause between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// The result of trying to take a lock.
pub(super) enum Lock {
    /// It is held by this process now.
    Taken(EnclaveDir),
    /// Another process holds it, or runs the enclave without it.
    Held(EnclaveDir),
    /// The directory is gone.
    Gone,
}

impl EnclaveDir {
    /// This directory with a new lock. `None` if it belongs to another enclave now.
    pub(super) fn lock_again(&self) -> Result<Option<Self>> {
        let own = ProcessId::own();
        let is_anothers =
            |directory: &Self| directory.traces().named.is_some_and(|sleeve| Some(sleeve) != own);
        let same = Self {
            name: self.name.clone(),
            path: self.path.clone(),
            dir: self.dir.clone(),
            home: self.home.clone(),
            lock: None,
        };
        match same.into_locked()? {
            Lock::Taken(directory) | Lock::Held(directory) if is_anothers(&directory) => Ok(None),
            Lock::Taken(directory) => Ok(Some(directory)),
            Lock::Gone => Ok(None),
            Lock::Held(_) => Err(Error::host(format!("another process has taken the lock of {}", self.name))
                .hint(format!("only host-sleeve should write into {}", self.path.display()))),
        }
    }

    /// Takes the lock, unless another process holds it or runs the enclave.
    pub(super) fn into_locked(mut self) -> Result<Lock> {
        let context = |path: &Path| format!("cannot lock {}", path.display());
        let deadline = Instant::now() + LOCK_LIMIT;
        while Instant::now() < deadline {
            let lock =
                File::options().create(true).truncate(false).write(true).read(true).open(self.dir.at(LOCK));
            let lock = match lock {
                // Nothing can be created in a removed directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::Gone),
                lock => lock.context(|| context(&self.path))?,
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
                // A process probing the lock holds it shared; a sleeve holds it exclusively until it exits.
                Err(TryLockError::WouldBlock)
                    if !self.traces().is_dying() && lock.try_lock_shared().is_err() =>
                {
                    return Ok(Lock::Held(self));
                }
                Err(TryLockError::WouldBlock) => {
                    drop(lock);
                    std::thread::park_timeout(LOCK_PAUSE);
                }
                Err(TryLockError::Error(error)) => return Err(error).context(|| context(&self.path)),
            }
        }
        Ok(Lock::Held(self))
    }

    /// The error for a lock that is held by another process.
    pub(super) fn why_held(&self) -> Error {
        let (name, traces) = (&self.name, self.traces());
        match traces.process() {
            Some(process) if traces.ended => Error::operator(printing(name, process)).hint(format!(
                "read the output of process {}, or kill it with `host-sleeve rm --force {name}`",
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

/// The message about a sleeve whose enclave has ended and whose output is not being read.
pub(crate) fn printing(name: &str, process: ProcessId) -> String {
    format!("{name} has ended, but its `host-sleeve run` (process {}) still has output to print", process.pid)
}
