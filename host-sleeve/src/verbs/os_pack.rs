//! `os-pack`: packs ramdisk 1 when an OS release is built.

use cloister_image::ramdisk;
use serde::Serialize;

use crate::cli::OsPack;
use crate::error::{Error, Result};
use crate::output;

use super::DONE;

/// The ramdisk, in the form of `os.json`.
#[derive(Serialize)]
struct Packed {
    sha256: String,
    bytes: u64,
}

/// Packs ramdisk 1.
pub(crate) fn os_pack(args: &OsPack, json: bool) -> Result<u8> {
    let written = ramdisk::pack_os(&args.list, &args.programs, &args.output)
        .map_err(|error| Error::host("ramdisk 1 cannot be packed").because(error))?;
    let packed = Packed { sha256: written.digest.hex(), bytes: written.size };
    let line = format!("{}  {}", packed.sha256, packed.bytes);
    if json { output::json(&packed) } else { output::data(&line) }.map(|()| DONE)
}
