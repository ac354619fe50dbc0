//! The kernel's interface for reports, file by file (`Documentation/ABI/testing/configfs-tsm` of the kernel), for requests that
//! `cloister_sys::tsm` never makes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io};

use cloister_sys::tsm::ROOT;

/// A directory of the interface, removed at the end.
#[derive(Debug)]
pub(super) struct Request(PathBuf);

impl Request {
    /// Creates a directory with a name of its own.
    pub(super) fn create() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("trial-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new(ROOT).join(name);
        fs::create_dir(&directory)?;
        Ok(Self(directory))
    }

    /// Writes a file. Binary ones take effect when they are closed, and an error of that is not reported
    /// (`configfs_release_bin_file` in `fs/configfs/file.c`).
    pub(super) fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.0.join(file), bytes)
    }

    /// Reads a file. Reading `outblob` makes the report.
    pub(super) fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(file))
    }

    /// Reads a line.
    pub(super) fn text(&self, file: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.0.join(file))?.trim_end().to_owned())
    }

    /// The names of its files, sorted.
    pub(super) fn files(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.0)?;
        let mut names: Vec<String> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // The machine of a scenario ends soon, and with it a directory that could not be removed.
        drop(fs::remove_dir(&self.0));
    }
}
