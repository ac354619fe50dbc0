//! `os-pack`: ramdisk 1, for whoever builds a release of the operating system.

use cloister_image::ramdisk;
use serde::Serialize;

use crate::cli::OsPack;
use crate::error::{Error, Result};
use crate::output;

use super::DONE;

/// What was packed, as `os.json` has it.
#[derive(Serialize)]
struct Packed {
    sha256: String,
    bytes: u64,
}

/// Packs ramdisk 1.
pub(crate) fn os_pack(asked: &OsPack, json: bool) -> Result<u8> {
    let written = ramdisk::pack_os(&asked.list, &asked.programs, &asked.output)
        .map_err(|fault| Error::host("ramdisk 1 cannot be packed").because(fault))?;
    let packed = Packed { sha256: written.digest.hex(), bytes: written.size };
    let line = format!("{}  {}", packed.sha256, packed.bytes);
    if json { output::json(&packed) } else { output::data(&line) }.map(|()| DONE)
}
