//! Cancelling a build.
//!
//! Invariant: while the build has files that must be removed, cancelling it waits until they are; at any other time there is
//! nothing to remove and no reason to wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// Whether a build is cancelled, and whether it has files to remove.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    /// Shared with the threads that write.
    flag: Arc<AtomicBool>,
    has_files: Mutex<bool>,
}

/// While this guard exists, the build may have files that must be removed if it is cancelled.
#[derive(Debug)]
pub(super) struct FilesGuard<'a>(&'a Stop);

impl Stop {
    /// Cancels the build. Returns whether it must remove files first.
    pub(crate) fn cancel(&self) -> bool {
        let has_files = self.has_files.lock().unwrap_or_else(PoisonError::into_inner);
        self.flag.store(true, Ordering::Relaxed);
        *has_files
    }

    /// The guard to hold while there may be files to remove. An error if the build is already cancelled.
    pub(super) fn with_files(&self) -> Result<FilesGuard<'_>> {
        let mut has_files = self.has_files.lock().unwrap_or_else(PoisonError::into_inner);
        if self.flag.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        *has_files = true;
        Ok(FilesGuard(self))
    }

    /// An error if the build is cancelled.
    pub(super) fn check(&self) -> Result<()> {
        if self.flag.load(Ordering::Relaxed) { Err(cancelled()) } else { Ok(()) }
    }

    /// Set when the build is cancelled.
    pub(super) const fn flag(&self) -> &Arc<AtomicBool> {
        &self.flag
    }
}

fn cancelled() -> Error {
    Error::interrupted("the build was cancelled")
}

impl Drop for FilesGuard<'_> {
    fn drop(&mut self) {
        *self.0.has_files.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_waits_only_for_existing_files_and_prevents_new_ones() {
        let stop = Stop::default();
        drop(stop.with_files().unwrap());
        assert!(!stop.cancel());
        assert_eq!(stop.with_files().unwrap_err().run_code(), 130);
        let stop = Stop::default();
        let files = stop.with_files().unwrap();
        assert!(stop.cancel() && stop.flag().load(Ordering::Relaxed));
        drop(files);
    }
}
