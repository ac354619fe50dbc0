//! Taking the folder of an enclave, and removing it.
//!
//! Its law: a folder is taken empty and locked, or not at all; what is removed is the folder that was opened, and first what its
//! sleeve may have left running.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::error::{Doing, Error, Result};

use super::lock::Lock;
use super::{Folder, LOCK};

/// How often a folder is made that is removed again before it can be taken: each time another command removes it.
const CLAIM_TRIES: u32 = 100;

/// What came of asking for a folder.
#[derive(Debug)]
pub(crate) enum Claim {
    /// It is ours, empty and locked.
    Taken(Box<Folder>),
    /// A sleeve holds it.
    Running,
    /// It cannot be taken now, for this reason.
    Busy(Error),
    /// It keeps what is left of an ended enclave.
    Ended,
}

impl Folder {
    /// Takes the folder for a new enclave: makes it, or takes over what an ended one left if `replace` is set.
    pub(crate) fn claim(path: &Path, replace: bool) -> Result<Claim> {
        for _ in 0..CLAIM_TRIES {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).doing(|| format!("cannot make {}", path.display()));
                }
                _ => {}
            }
            let opened = match Self::open_dir(path) {
                // Removed by another since it was there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.doing(|| format!("cannot open {}", path.display())),
            };
            match opened.and_then(Self::into_locked).inspect_err(|_| forget_empty(path))? {
                Lock::Gone => {}
                Lock::Held(folder) if folder.sleeve().is_some() => return Ok(Claim::Running),
                Lock::Held(folder) => return Ok(Claim::Busy(folder.why_held())),
                Lock::Taken(folder) if folder.bytes()?.is_some() && !replace => return Ok(Claim::Ended),
                Lock::Taken(folder) => {
                    folder.clear()?;
                    return Ok(Claim::Taken(Box::new(folder)));
                }
            }
        }
        Err(Error::host(format!("{} is removed again and again", path.display()))
            .hint("look which program removes folders there"))
    }

    /// Removes the folder of an ended enclave, and first what its sleeve may have left running.
    pub(crate) fn remove(self) -> Result<()> {
        match self.into_locked()? {
            Lock::Taken(folder) => folder.remove_locked(),
            Lock::Held(folder) => Err(folder.why_held()),
            Lock::Gone => Ok(()),
        }
    }

    /// Removes the folder that this process holds. One that was lost meanwhile is left to whoever has it.
    pub(crate) fn remove_locked(self) -> Result<()> {
        if !self.lock_is_in_place() {
            return Ok(());
        }
        self.clear()?;
        let doing = || format!("cannot remove {}", self.path.display());
        unless(fs::remove_file(self.dir.at(LOCK)), &[io::ErrorKind::NotFound]).doing(doing)?;
        if !self.dir.is_at(&self.path) {
            return Ok(());
        }
        // Another that takes the name at this moment has a file in it, or makes the folder again.
        unless(fs::remove_dir(&self.path), &[io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty])
            .doing(doing)
    }

    /// Kills what a dead sleeve left, and removes everything but the lock.
    fn clear(&self) -> Result<()> {
        for process in self.traces().machine {
            process.kill();
        }
        let doing = || format!("cannot clear {}", self.path.display());
        for entry in fs::read_dir(self.dir.path()).doing(doing)? {
            let entry = entry.doing(doing)?;
            if entry.file_name() != LOCK {
                unless(fs::remove_file(entry.path()), &[io::ErrorKind::NotFound]).doing(doing)?;
            }
        }
        Ok(())
    }
}

/// An error of one of these kinds is none: what was wanted is so.
fn unless(done: io::Result<()>, kinds: &[io::ErrorKind]) -> io::Result<()> {
    done.or_else(|error| if kinds.contains(&error.kind()) { Ok(()) } else { Err(error) })
}

/// Removes a folder that could not be taken, unless somebody else has begun with it: an empty one is no enclave, and `ps`
/// shows none.
fn forget_empty(path: &Path) {
    fs::remove_dir(path).unwrap_or_default();
}
