//! Writing the record of an enclave.
//!
//! Invariant: after a crash of the host there is either the old record or the new one, complete; and a record never replaces a
//! newer one, regardless of which thread wrote it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{ErrorContext, Result};

use super::dir::Dir;
use super::record::Record;

/// The record's file name.
pub(super) const RECORD: &str = "state.json";

/// The file name of a record until it is on the disk.
const NEW: &str = ".state.json.new";

/// Writes the records of one enclave, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct RecordWriter {
    dir: Dir,
    /// The record's path, for messages.
    path: PathBuf,
    /// The number of the newest record that was written.
    newest: Arc<Mutex<u64>>,
}

impl RecordWriter {
    /// Writes into `dir`; `path` is the record's path in messages.
    pub(super) fn new(dir: Dir, path: PathBuf) -> Self {
        Self { dir, path, newest: Arc::default() }
    }

    /// Replaces the record by `record`, unless one with a higher number has been written. It blocks until the record is on
    /// the disk.
    pub(crate) fn write(&self, number: u64, record: &Record) -> Result<()> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if number < *newest {
            return Ok(());
        }
        let context = || format!("cannot write {}", self.path.display());
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::from).context(context)?;
        replace(&self.dir, &bytes).context(context)?;
        *newest = number;
        Ok(())
    }
}

fn replace(directory: &Dir, bytes: &[u8]) -> io::Result<()> {
    let new = directory.at(NEW);
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, directory.at(RECORD))
    };
    let written = write();
    if written.is_err() {
        // An incomplete record is useless, and the disk may be full.
        fs::remove_file(&new).unwrap_or_default();
        return written;
    }
    // Some file systems cannot synchronize a directory (EINVAL). The record is complete even so; after a crash it may be the old one.
    directory.sync().unwrap_or_default();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::launched;
    use super::*;
    use std::path::Path;

    fn writer(path: &Path) -> RecordWriter {
        RecordWriter::new(Dir::open(path).unwrap(), path.join(RECORD))
    }

    #[test]
    fn a_record_never_replaces_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        writer.write(2, &launched("new")).unwrap();
        writer.clone().write(1, &launched("old")).unwrap();
        let text = fs::read_to_string(dir.path().join(RECORD)).unwrap();
        assert!(text.contains("\"new\"") && !dir.path().join(NEW).exists(), "{text}");
    }

    #[test]
    fn a_record_that_cannot_be_written_leaves_no_partial_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(RECORD)).unwrap();
        assert!(writer(dir.path()).write(1, &launched("web")).is_err());
        assert!(!dir.path().join(NEW).exists());
    }
}
