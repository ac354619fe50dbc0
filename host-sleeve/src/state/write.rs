//! Writing the record of an enclave.
//!
//! Its law: after a crash of the host there is the old record or the new one, whole; and a record never replaces a newer
//! one, whichever thread wrote it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Doing, Result};

use super::folder::RECORD;
use super::record::Record;

/// The name of a record until it is on the disk.
const NEW: &str = ".state.json.new";

/// Writes the records of one enclave, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Pen {
    folder: PathBuf,
    /// The number of the newest record that was written.
    newest: Arc<Mutex<u64>>,
}

impl Pen {
    /// Writes into the folder at `folder`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, newest: Arc::default() }
    }

    /// Replaces the record by `record`, unless one with a higher number has been written. It blocks until the record is on
    /// the disk.
    pub(crate) fn write(&self, number: u64, record: &Record) -> Result<()> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if number < *newest {
            return Ok(());
        }
        let doing = || format!("cannot write {}", self.folder.join(RECORD).display());
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::from).doing(doing)?;
        replace(&self.folder, &bytes).doing(doing)?;
        *newest = number;
        Ok(())
    }
}

fn replace(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = folder.join(NEW);
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, folder.join(RECORD))
    };
    let written = write();
    if written.is_err() {
        // Half a record helps nobody, and the disk may be full.
        fs::remove_file(&new).unwrap_or_default();
        return written;
    }
    // Some file systems cannot synchronize a folder (EINVAL). The record is whole all the same; a crash may show the old one.
    File::open(folder).and_then(|folder| folder.sync_all()).unwrap_or_default();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::launched;
    use super::*;

    #[test]
    fn a_record_never_replaces_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let pen = Pen::new(dir.path().to_owned());
        pen.write(2, &launched("new")).unwrap();
        pen.clone().write(1, &launched("old")).unwrap();
        let text = fs::read_to_string(dir.path().join(RECORD)).unwrap();
        assert!(text.contains("\"new\"") && !dir.path().join(NEW).exists(), "{text}");
    }

    #[test]
    fn a_record_that_cannot_be_written_leaves_nothing_half_done() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(RECORD)).unwrap();
        assert!(Pen::new(dir.path().to_owned()).write(1, &launched("web")).is_err());
        assert!(!dir.path().join(NEW).exists());
    }
}
