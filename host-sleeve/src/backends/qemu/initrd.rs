//! All ramdisks as the one file that QEMU takes.
//!
//! Its law: the file has no name, so nothing can be left behind. The kernel reads archives one after another and skips
//! zeros between them (`init/initramfs.c`, `unpack_to_rootfs`); each must begin on a multiple of four bytes.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::{Doing, Result};
use crate::install;

/// What `newc` archives are aligned to.
const ALIGN: u64 = 4;

/// A file without a name that a child can open by a path.
#[derive(Debug)]
pub(crate) struct Initrd {
    fd: OwnedFd,
}

impl Initrd {
    /// Joins `ramdisks`.
    pub(crate) fn join(ramdisks: &[PathBuf]) -> Result<Self> {
        let cache = install::cache("tmp")?;
        let doing = || format!("cannot put the ramdisks together in {}", cache.display());
        let mut joined = nameless(&cache).doing(doing)?;
        for ramdisk in ramdisks {
            let mut source = File::open(ramdisk).doing(|| format!("cannot open {}", ramdisk.display()))?;
            io::copy(&mut source, &mut joined).and_then(|_| pad(&mut joined)).doing(doing)?;
        }
        Ok(Self { fd: joined.into() })
    }

    /// The path under which a child that keeps the descriptor opens it.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// The descriptor for the child to keep.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

fn nameless(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(dir, flags, Mode::RUSR)?))
}

fn pad(file: &mut File) -> io::Result<()> {
    let over = file.stream_position()? % ALIGN;
    let zeros = [0; 4];
    let missing = usize::try_from((ALIGN - over) % ALIGN).unwrap_or_default();
    file.write_all(zeros.get(..missing).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ramdisk_begins_on_a_multiple_of_four() {
        let dir = tempfile::tempdir().unwrap();
        let part = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let initrd = Initrd::join(&[part("os", b"12345"), part("app", b"6789")]).unwrap();
        assert_eq!(std::fs::read(initrd.path()).unwrap(), b"12345\0\0\x006789");
    }

    #[test]
    fn a_missing_ramdisk_is_named() {
        let error = Initrd::join(&[PathBuf::from("/no/such/ramdisk")]).unwrap_err();
        assert!(error.to_string().contains("/no/such/ramdisk"));
    }
}
