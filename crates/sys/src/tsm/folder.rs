//! An entry for reports that a process without privileges uses.
//!
//! Invariant: nothing but the entry can be reached through its descriptor. It is a mount of its own that has no place in any
//! namespace: `..` ends there. Its user may write the bytes that a report must contain, and nothing else; in particular no privilege
//! level. So reports of SNP are requested for VMPL 0: the kernel fills a new entry with zeros.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, chownat, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::Uid;

use super::{Attributes, INBLOB, INBLOB_LENGTH, Report, TsmError, not_created, request, unless_changed};

/// An entry that is never removed.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl From<OwnedFd> for Folder {
    /// The entry behind a descriptor of [`Folder::provide`].
    fn from(entry: OwnedFd) -> Self {
        Self(entry)
    }
}

impl Folder {
    /// The entry `name` below `root` ([`super::ROOT`]), created if it does not exist, for this user. The caller needs
    /// `CAP_SYS_ADMIN` and `CAP_CHOWN`. It does not wait for a request in progress if the entry exists.
    pub fn provide(root: &Path, name: &str, user: u32) -> Result<OwnedFd, TsmError> {
        let path = root.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(not_created(error)),
            Ok(()) | Err(_) => {}
        }
        let failed = |error: rustix::io::Errno| TsmError::Io { what: "the entry", source: error.into() };
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let entry = open_tree(CWD, &path, clone).map_err(failed)?;
        chownat(&entry, INBLOB, Some(Uid::from_raw(user)), None, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed)?;
        Ok(entry)
    }

    /// Requests a report that contains `inblob`. Blocks as [`super::report`] does, but repeats the request only while it is
    /// `wanted`.
    pub fn report(
        &self,
        inblob: &[u8; INBLOB_LENGTH],
        wanted: impl Fn() -> bool,
    ) -> Result<Report, TsmError> {
        unless_changed(wanted, || request(self, inblob, None))
    }

    fn open(&self, name: &str, access: OFlags) -> io::Result<File> {
        Ok(openat(&self.0, name, access | OFlags::CLOEXEC, Mode::empty())?.into())
    }
}

impl Attributes for Folder {
    fn write(&self, name: &'static str, bytes: &[u8]) -> io::Result<()> {
        self.open(name, OFlags::WRONLY)?.write_all(bytes)
    }

    fn read(&self, name: &'static str, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        self.open(name, OFlags::RDONLY)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_files_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(INBLOB), "").unwrap();
        let folder = Folder::from(OwnedFd::from(File::open(root.path()).unwrap()));
        folder.write(INBLOB, &[7; 64]).unwrap();
        assert_eq!(folder.read(INBLOB, 100).unwrap(), [7; 64]);
        assert_eq!(folder.read(INBLOB, 10).unwrap().len(), 10);
        assert!(folder.write("new", b"x").is_err(), "no attribute is created");
        // The other attributes are missing, as if the entry had been removed.
        assert!(matches!(folder.report(&[7; 64], || true), Err(TsmError::Changed)));
    }

    #[test]
    fn a_kernel_without_reports_is_absent() {
        let root = tempfile::tempdir().unwrap();
        let error = Folder::provide(&root.path().join("tsm/report"), "x", 0).unwrap_err();
        assert!(matches!(error, TsmError::Absent(_)), "{error:?}");
    }
}
