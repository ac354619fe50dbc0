//! How much memory an enclave image needs to boot.
//!
//! Invariant: too little memory is refused before anything boots, with the required amount, which is an estimate that errs
//! by megabytes on the safe side.
//!
//! While it boots, a guest holds the unpacked kernel, the ramdisks as loaded, and the part of them that is already unpacked; the
//! loaded ones are freed at the end. A file system image inside a ramdisk stays compressed.

use std::io::{self, Write};

use cloister_image::artifact::Part;
use cloister_image::eif::Kind;

use crate::app::{App, Source};
use crate::error::{Error, Result};
use crate::values::show_size;

use super::contract::Backend;

/// What the kernel's own tables, init, the supervisor and a small service need in addition.
const BASE: u64 = 32 << 20;

/// The default memory of an enclave, unless its image needs more.
const DEFAULT: u64 = 512 << 20;

/// Added to what a large image needs by default, for the service to work with.
const RESERVE: u64 = 256 << 20;

/// One MiB: memory is assigned in this unit.
const MIB: u64 = 1 << 20;

/// The offset of `init_size` in a bzImage: the bytes its kernel needs to unpack itself (Documentation/arch/x86/boot.rst).
const INIT_SIZE_AT: usize = 0x260;

/// The offset of the header's magic in a bzImage, and its value (same source).
const MAGIC_AT: usize = 0x202;
const MAGIC: &[u8; 4] = b"HdrS";

/// How much of the kernel is read: beyond the last field that is used.
const HEAD: usize = 0x300;

/// What a kernel of another format needs to unpack, as a multiple of its file size.
const UNPACK_FACTOR: u64 = 6;

/// The memory for an enclave on `backend` in bytes: the requested amount if it is enough; default: what the image needs.
pub(crate) fn choose(app: &App, requested: Option<u64>, backend: &dyn Backend) -> Result<u64> {
    let needed = needed(app)?.max(backend.least_memory(loaded(&app.source)));
    let needed = needed.div_ceil(MIB).saturating_mul(MIB);
    let Some(requested) = requested else {
        return Ok(DEFAULT.max(needed.saturating_add(RESERVE)));
    };
    if requested < needed {
        return Err(Error::operator(format!(
            "{} is not enough memory for this image: it needs at least {}",
            show_size(requested),
            show_size(needed)
        ))
        .hint(format!("--memory {}MiB, or more for the service to work with", needed >> 20)));
    }
    check_maximum(requested, backend.max_memory())?;
    Ok(requested / MIB * MIB)
}

fn check_maximum(requested: u64, maximum: u64) -> Result<()> {
    if requested <= maximum {
        return Ok(());
    }
    let (requested, has) = (show_size(requested), show_size(maximum));
    Err(Error::operator(format!("{requested} is more memory than this host has: {has} with its swap space"))
        .hint("choose a smaller --memory, or omit it for the default"))
}

/// What the kernel of an image needs to unpack itself, in bytes.
pub(crate) fn of_kernel(source: &Source) -> Result<u64> {
    let mut head = Head::default();
    source.copy_kernel(&mut head)?;
    let size = match source {
        Source::Artifact(artifact) => artifact.size(Part::Kernel),
        Source::Eif(file) => {
            let sections = file.explanation.sections.iter().filter(|section| section.kind == Kind::Kernel);
            sections.map(|section| section.size).fold(0, u64::saturating_add)
        }
    };
    Ok(kernel_need(&head.bytes, size))
}

/// What the image needs to boot, in bytes.
fn needed(app: &App) -> Result<u64> {
    let ramdisks = match &app.source {
        Source::Artifact(artifact) => {
            let parts = [Part::OsRamdisk, Part::AppRamdisk];
            let sizes = parts.iter().flat_map(|part| [artifact.size(*part), artifact.unpacked(*part)]);
            sizes.fold(0, u64::saturating_add)
        }
        // The file does not state the unpacked size of its ramdisks; the minimum memory of its machine is several times their size.
        Source::Eif(file) => {
            let sections = file.explanation.sections.iter().filter(|section| section.kind == Kind::Ramdisk);
            sections.map(|section| section.size).fold(0, u64::saturating_add).saturating_mul(2)
        }
    };
    Ok(BASE.saturating_add(of_kernel(&app.source)?).saturating_add(ramdisks))
}

/// How many bytes are loaded into the machine.
fn loaded(source: &Source) -> u64 {
    match source {
        Source::Artifact(artifact) => {
            let parts = [Part::Kernel, Part::OsRamdisk, Part::AppRamdisk];
            parts.iter().map(|part| artifact.size(*part)).fold(0, u64::saturating_add)
        }
        Source::Eif(file) => file.explanation.length,
    }
}

fn kernel_need(head: &[u8], size: u64) -> u64 {
    let field = |at: usize| head.get(at..)?.first_chunk::<4>().copied();
    match (field(MAGIC_AT), field(INIT_SIZE_AT)) {
        (Some(magic), Some(init_size)) if &magic == MAGIC => u64::from(u32::from_le_bytes(init_size)),
        _ => size.saturating_mul(UNPACK_FACTOR),
    }
}

/// A writer that retains only the beginning of the data.
#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
}

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = HEAD.saturating_sub(self.bytes.len());
        self.bytes.extend(bytes.iter().take(left));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_need_of_a_bzimage_is_read_from_its_header() {
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x260..0x264].copy_from_slice(&0x0123_4000_u32.to_le_bytes());
        assert_eq!(kernel_need(&image, 7), 0x0123_4000);
    }

    #[test]
    fn more_memory_than_the_host_has_is_refused_with_what_it_has() {
        let error = check_maximum(99_999 << 30, 8 << 30).unwrap_err().to_string();
        assert!(error.contains("99999 GiB") && error.contains("8 GiB"), "{error}");
        check_maximum(8 << 30, 8 << 30).unwrap();
        let host = crate::backends::list::all().first().unwrap().max_memory();
        let setting = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap();
        assert!(host > 64 << 20 && (host < 1 << 60) == (setting.trim() != "1"), "{host}");
    }

    #[test]
    fn the_need_of_another_kernel_format_is_estimated() {
        assert_eq!(kernel_need(b"tiny", 4), 24);
    }
}
