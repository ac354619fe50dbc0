//! How much memory an enclave image needs to boot.
//!
//! Its law: it is said before anything boots, with the number, and errs by megabytes towards what works.
//!
//! While it boots, a guest holds the unpacked kernel, the ramdisks as they were loaded, and what of them has been unpacked
//! already; the loaded ones are freed at the end. A file system image inside a ramdisk stays compressed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::app::App;
use crate::cli::values::show_size;
use crate::error::{Doing, Error, Result};

/// What the kernel's own tables, init, the supervisor and a small service need besides.
const BASE: u64 = 48 << 20;

/// What an enclave gets unless its image needs more or the operator says otherwise.
const DEFAULT: u64 = 512 << 20;

/// What an enclave gets beyond its need, where the image decides, for the service to work with.
const ROOM: u64 = 256 << 20;

/// One MiB: memory comes in these.
const MIB: u64 = 1 << 20;

/// Where `init_size` lies in a bzImage: the bytes its kernel needs to unpack itself (Documentation/arch/x86/boot.rst).
const INIT_SIZE_AT: u64 = 0x260;

/// Where the header's magic lies in a bzImage, and what it is (same source).
const MAGIC_AT: u64 = 0x202;
const MAGIC: &[u8; 4] = b"HdrS";

/// What a kernel of another form takes to unpack, as a multiple of its file.
const UNPACK_FACTOR: u64 = 6;

/// The memory for an enclave in bytes: what was asked if it is enough, else what is right.
pub(crate) fn choose(app: &App, asked: Option<u64>) -> Result<u64> {
    let needed = needed(app)?;
    let Some(asked) = asked else {
        return Ok(DEFAULT.max(needed.saturating_add(ROOM)));
    };
    if asked < needed {
        return Err(Error::operator(format!(
            "{} of memory are too little for this image: it needs at least {}",
            show_size(asked),
            show_size(needed)
        ))
        .hint(format!("--memory {}MiB, or more for the service to work with", needed >> 20)));
    }
    Ok(asked / MIB * MIB)
}

/// What the image needs to boot, in bytes, whole MiB.
fn needed(app: &App) -> Result<u64> {
    let kernel = kernel_need(&app.kernel.path, app.kernel.size)
        .doing(|| format!("cannot read {}", app.kernel.path.display()))?;
    let loaded: u64 = app.ramdisks.iter().map(|ramdisk| ramdisk.size).sum();
    let unpacked: u64 = app.ramdisks.iter().map(|ramdisk| ramdisk.unpacked).sum();
    let sum = [kernel, loaded, unpacked].iter().fold(BASE, |sum, part| sum.saturating_add(*part));
    Ok(sum.div_ceil(MIB).saturating_mul(MIB))
}

fn kernel_need(path: &Path, size: u64) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut magic = [0; 4];
    let mut init_size = [0; 4];
    let header = file.read_exact_at(&mut magic, MAGIC_AT).and_then(|()| file.read_exact_at(&mut init_size, INIT_SIZE_AT));
    match header {
        Ok(()) if &magic == MAGIC => Ok(u64::from(u32::from_le_bytes(init_size))),
        _ => Ok(size.saturating_mul(UNPACK_FACTOR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bzimage_says_what_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x260..0x264].copy_from_slice(&0x0123_4000_u32.to_le_bytes());
        std::fs::write(&path, image).unwrap();
        assert_eq!(kernel_need(&path, 7).unwrap(), 0x0123_4000);
    }

    #[test]
    fn another_form_of_kernel_is_estimated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, b"tiny").unwrap();
        assert_eq!(kernel_need(&path, 4).unwrap(), 24);
    }
}
