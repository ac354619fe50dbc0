//! Claiming and removing the directory of an enclave.
//!
//! Invariant: a directory is claimed empty and locked, or not at all; only the directory that was opened is removed, after any
//! process that its sleeve may have left running was killed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::error::{Error, ErrorContext, Result};

use super::lock::Lock;
use super::{EnclaveDir, LOCK};

/// How often creating a directory is attempted that another command removes before it can be locked.
const CLAIM_TRIES: u32 = 100;

/// The result of trying to claim a directory.
#[derive(Debug)]
pub(crate) enum Claim {
    /// It was claimed, and is empty and locked.
    Taken(Box<EnclaveDir>),
    /// It belongs to a running sleeve.
    Running,
    /// It cannot be claimed now, for this reason.
    Busy(Error),
    /// It contains the record of an ended enclave.
    Ended,
}

impl EnclaveDir {
    /// Claims the directory for a new enclave: creates it, or takes over that of an ended one if `replace` is set.
    pub(crate) fn claim(path: &Path, replace: bool) -> Result<Claim> {
        for _ in 0..CLAIM_TRIES {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).context(|| format!("cannot create {}", path.display()));
                }
                _ => {}
            }
            let opened = match Self::open_dir(path) {
                // Another process has removed it since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.context(|| format!("cannot open {}", path.display())),
            };
            match opened.and_then(Self::into_locked).inspect_err(|_| remove_empty(path))? {
                Lock::Gone => {}
                Lock::Held(directory) if directory.sleeve().is_some() => return Ok(Claim::Running),
                Lock::Held(directory) => return Ok(Claim::Busy(directory.why_held())),
                Lock::Taken(directory) if directory.bytes()?.is_some() && !replace => {
                    return Ok(Claim::Ended);
                }
                Lock::Taken(directory) => {
                    directory.clear()?;
                    return Ok(Claim::Taken(Box::new(directory)));
                }
            }
        }
        Err(Error::host(format!("{} was removed repeatedly while it was being created", path.display()))
            .hint("check which program removes directories there"))
    }

    /// Removes the directory of an ended enclave, after killing any process that its sleeve may have left running. With `force`,
    /// also directories in it, which another program has created.
    pub(crate) fn remove(self, force: bool) -> Result<()> {
        match self.into_locked()? {
            Lock::Taken(directory) => {
                if force {
                    directory.clear_directories()?;
                }
                directory.remove_locked()
            }
            Lock::Held(directory) => Err(directory.why_held()),
            Lock::Gone => Ok(()),
        }
    }

    /// Removes the directory that this process has locked. If its lock was lost meanwhile, nothing is removed.
    pub(crate) fn remove_locked(self) -> Result<()> {
        if !self.lock_is_in_place() {
            return Ok(());
        }
        self.clear()?;
        let context = || format!("cannot remove {}", self.path.display());
        unless(fs::remove_file(self.dir.at(LOCK)), &[io::ErrorKind::NotFound]).context(context)?;
        if !self.dir.is_at(&self.path) {
            return Ok(());
        }
        // Another process claiming the name at this moment has a file in it, or recreates the directory.
        unless(fs::remove_dir(&self.path), &[io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty])
            .context(context)
    }

    /// Kills processes that a dead sleeve has left running, and removes everything but the lock.
    fn clear(&self) -> Result<()> {
        for process in self.traces().machine {
            process.kill();
        }
        let context = || format!("cannot clear {}", self.path.display());
        for entry in fs::read_dir(self.dir.path()).context(context)? {
            let entry = entry.context(context)?;
            if entry.file_name() == LOCK {
                continue;
            }
            if entry.file_type().context(context)?.is_dir() {
                let what = format!("{} is a directory", self.path.join(entry.file_name()).display());
                return Err(
                    Error::host(what).hint(format!("`host-sleeve rm --force {}` removes it", self.name))
                );
            }
            unless(fs::remove_file(entry.path()), &[io::ErrorKind::NotFound]).context(context)?;
        }
        Ok(())
    }

    /// Removes the directories in this one.
    fn clear_directories(&self) -> Result<()> {
        let context = || format!("cannot clear {}", self.path.display());
        for entry in fs::read_dir(self.dir.path()).context(context)? {
            let entry = entry.context(context)?;
            if entry.file_type().context(context)?.is_dir() {
                unless(fs::remove_dir_all(entry.path()), &[io::ErrorKind::NotFound]).context(context)?;
            }
        }
        Ok(())
    }
}

/// Ignores errors of these kinds, which mean that the goal is already reached.
fn unless(done: io::Result<()>, kinds: &[io::ErrorKind]) -> io::Result<()> {
    done.or_else(|error| if kinds.contains(&error.kind()) { Ok(()) } else { Err(error) })
}

/// Removes a directory that could not be claimed, unless another process has begun to use it: an empty one is not an enclave
/// and would not be listed by `ps`.
fn remove_empty(path: &Path) {
    fs::remove_dir(path).unwrap_or_default();
}
