//! `build` and `check`.

use cloister_image::ramdisk;
use cloister_wire::exit;
use serde::Serialize;

use crate::build::{self, Order, Refusal};
use crate::cli::{Build, Check, OsPack};
use crate::error::{Error, Result};
use crate::output;

use super::DONE;

/// What was built, as `build --json` shows it.
#[derive(Serialize)]
struct Built {
    path: std::path::PathBuf,
    digest: String,
}

/// A sound manifest, as `check --json` shows it.
#[derive(Serialize)]
struct Sound {
    faults: [(); 0],
    /// In start order.
    services: Vec<String>,
}

/// A ramdisk that was packed.
#[derive(Serialize)]
struct Packed {
    sha256: String,
    bytes: u64,
}

/// Builds an enclave image.
pub(crate) fn build(asked: &Build, json: bool) -> Result<u8> {
    let order = Order { image: &asked.image, manifest: &asked.manifest, output: &asked.output };
    match build::build(&order) {
        Ok(digest) if json => {
            output::json(&Built { path: build::absolute(&asked.output)?, digest: digest.to_string() })?;
            Ok(DONE)
        }
        Ok(digest) => output::data(&digest.to_string()).map(|()| DONE),
        Err(refusal) => refused(refusal, json),
    }
}

/// Checks a manifest.
pub(crate) fn check(asked: &Check, json: bool) -> Result<u8> {
    match build::check(&asked.manifest, asked.image.as_deref()) {
        Ok(services) if json => output::json(&Sound { faults: [], services }).map(|()| DONE),
        Ok(services) => {
            output::note(&format!("{} is sound: {}", asked.manifest.display(), services.join(", ")));
            Ok(DONE)
        }
        Err(refusal) => refused(refusal, json),
    }
}

/// Packs ramdisk 1, and prints its digest and its size.
pub(crate) fn os_pack(asked: &OsPack) -> Result<u8> {
    let packed = ramdisk::pack_os(&asked.list, &asked.programs, &asked.output).map_err(|fault| {
        Error::author("ramdisk 1 cannot be packed").because(fault).hint("the list is rootfs/ramdisk1.list")
    })?;
    output::json(&Packed { sha256: packed.digest.hex(), bytes: packed.size }).map(|()| DONE)
}

fn refused(refusal: Refusal, json: bool) -> Result<u8> {
    match refusal {
        Refusal::Other(error) => Err(error),
        Refusal::Manifest(report) if json => output::json(&report.to_json()).map(|()| exit::OUR_FAILURE),
        Refusal::Manifest(report) => {
            output::note(&report.to_string());
            Ok(exit::OUR_FAILURE)
        }
    }
}
