//! The kernel and the ramdisks as the two files that QEMU takes.
//!
//! Invariant: they are verified while they are copied, and are anonymous, so nothing can be left behind. The kernel reads
//! archives one after another and skips zeros between them (`init/initramfs.c`, `unpack_to_rootfs`); each must begin at a
//! multiple of four bytes.

use std::error::Error as StdError;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloister_image::artifact::{Artifact, ArtifactError, Part};
use cloister_image::digest::Digest;
use cloister_image::tree::Content;
use cloister_wire::causes;

use crate::error::{Error, ErrorContext, Result, hint_for};
use crate::install;

use super::super::contract::BootedParts;

/// The alignment of archives in a ramdisk.
const ALIGN: u64 = 4;

/// What QEMU boots.
#[derive(Debug)]
pub(crate) struct Boot {
    /// The kernel.
    pub(crate) kernel: AnonymousFile,
    /// Its digest.
    pub(crate) kernel_digest: Digest,
    /// Both ramdisks.
    pub(crate) ramdisks: AnonymousFile,
    /// The lengths of the kernel and of each ramdisk in bytes, without what follows for alignment.
    lengths: [u64; 3],
}

/// A file without a name, which a child can open through its descriptor's path.
#[derive(Debug)]
pub(crate) struct AnonymousFile {
    fd: OwnedFd,
}

impl Boot {
    /// Copies the parts of an enclave image and verifies them.
    pub(crate) async fn prepare(artifact: &Artifact) -> Result<Self> {
        let artifact = artifact.clone();
        let copied =
            tokio::task::spawn_blocking(move || Self::copy(&artifact, &install::cache("tmp")?)).await;
        copied.map_err(|error| Error::internal("copying the enclave image was aborted").because(error))?
    }

    fn copy(artifact: &Artifact, scratch: &Path) -> Result<Self> {
        let digest = artifact.parts().find(|(part, _, _)| *part == Part::Kernel).map(|(_, digest, _)| digest);
        Ok(Self {
            kernel: AnonymousFile::of(artifact, &[Part::Kernel], scratch)?,
            kernel_digest: digest.ok_or_else(|| Error::author("the enclave image has no kernel"))?,
            ramdisks: AnonymousFile::of(artifact, &[Part::OsRamdisk, Part::AppRamdisk], scratch)?,
            lengths: [Part::Kernel, Part::OsRamdisk, Part::AppRamdisk].map(|part| artifact.size(part)),
        })
    }

    /// The parts in these files, which stay open for as long as they are referred to. `command_line` is the image's own.
    pub(crate) fn parts(&self, command_line: &str) -> io::Result<BootedParts> {
        let [kernel, os, app] = self.lengths;
        let (kernel_file, file) = (self.kernel.shared()?, self.ramdisks.shared()?);
        let content =
            |file: &Arc<File>, offset, length| Content::Spooled { file: Arc::clone(file), offset, length };
        Ok(BootedParts {
            kernel: content(&kernel_file, 0, kernel),
            command_line: command_line.to_owned(),
            ramdisks: vec![content(&file, 0, os), content(&file, os.next_multiple_of(ALIGN), app)],
        })
    }

    /// The descriptors that the child inherits.
    pub(crate) fn into_fds(self) -> Vec<OwnedFd> {
        vec![self.kernel.fd, self.ramdisks.fd]
    }
}

impl AnonymousFile {
    /// A file with these parts, one after another.
    fn of(artifact: &Artifact, parts: &[Part], scratch: &Path) -> Result<Self> {
        let context = || format!("cannot write into {}", scratch.display());
        let mut file = anonymous_file(scratch).context(context)?;
        for part in parts {
            artifact.copy(*part, &mut file).map_err(|error| copy_error(error, scratch))?;
            pad(&mut file).context(context)?;
        }
        Ok(Self { fd: file.into() })
    }

    /// An open file, treated as anonymous.
    pub(crate) fn from_file(file: File) -> Self {
        Self { fd: file.into() }
    }

    /// The path by which a child that inherits the descriptor opens it.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// The same file under another descriptor.
    pub(crate) fn share(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// The same file, to be read at any place.
    fn shared(&self) -> io::Result<Arc<File>> {
        Ok(Arc::new(File::from(self.fd.try_clone()?)))
    }

    /// The descriptor that a child inherits.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// Reading and writing fail in one call: a full disk concerns the scratch directory, every other error the image.
fn copy_error(error: ArtifactError, scratch: &Path) -> Error {
    let full =
        |cause: &(dyn StdError + 'static)| hint_for(cause.downcast_ref().filter(|error| is_full(error))?);
    let hint = causes::below(&error).find_map(full);
    match hint {
        Some(hint) => {
            Error::host(format!("cannot write into {}", scratch.display())).because(error).hint(hint)
        }
        None => Error::operator("cannot read the enclave image")
            .because(error)
            .hint("if it is damaged, rebuild it"),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An anonymous file in this directory. If the file system does not support them (NFS, for example, has no `O_TMPFILE`), a named
/// file is created and unlinked immediately.
pub(super) fn anonymous_file(dir: &Path) -> io::Result<File> {
    tempfile::tempfile_in(dir)
}

fn pad(file: &mut File) -> io::Result<()> {
    let over = file.stream_position()? % ALIGN;
    let missing = usize::try_from((ALIGN - over) % ALIGN).unwrap_or_default();
    file.write_all([0; 4].get(..missing).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::write_image;

    #[test]
    fn each_ramdisk_begins_at_a_multiple_of_four() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = write_image(&dir.path().join("app.cloister"), b"kernel", b"12345", b"6789");
        let boot = Boot::copy(&artifact, dir.path()).unwrap();
        assert_eq!(std::fs::read(boot.ramdisks.path()).unwrap(), b"12345\0\0\x006789");
        assert_eq!(boot.kernel_digest, Digest::of(b"kernel"));
    }

    #[test]
    fn the_parts_that_are_booted_are_measured_as_those_of_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = write_image(&dir.path().join("app.cloister"), b"kernel", b"12345", b"6789");
        let boot = Boot::copy(&artifact, dir.path()).unwrap();
        let parts = boot.parts("quiet").unwrap();
        // The image may be replaced while the enclave runs.
        std::fs::remove_dir_all(dir.path().join("app.cloister")).unwrap();
        drop(boot);
        let bytes = |bytes: &[u8]| Content::Bytes(bytes.into());
        let image = [bytes(b"12345"), bytes(b"6789")];
        let predicted = cloister_image::measure::nitro(&bytes(b"kernel"), "quiet", &image, None).unwrap();
        assert_eq!(parts.measure().unwrap(), predicted.pcrs);
    }

    #[test]
    fn a_full_disk_is_distinguished_from_a_damaged_image() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = write_image(&dir.path().join("app.cloister"), b"kernel", b"os", b"app");
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = copy_error(artifact.copy(Part::Kernel, &mut full).unwrap_err(), Path::new("/scratch"));
        assert_eq!(error.to_string(), "cannot write into /scratch");
        assert!(error.details().hint.as_deref().unwrap().contains("free disk space"));
    }

    #[test]
    fn a_damaged_part_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.cloister");
        let artifact = write_image(&path, b"kernel", b"os", b"app");
        std::fs::write(path.join("blobs/sha256").join(Digest::of(b"kernel").hex()), b"colonel").unwrap();
        assert!(Boot::copy(&artifact, dir.path()).unwrap_err().to_string().contains("cannot read"));
    }
}
