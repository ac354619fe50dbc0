//! Container image in, measured enclave image out: pure, reproducible, and streaming.
//!
//! Its law: the same input gives the same bytes, on any machine, at any time, for any user.
//!
//! An input ([`oci`], [`directory`]) becomes a [`tree::Tree`], [`ramdisk`] writes trees as the two ramdisks, [`artifact`]
//! puts them with kernel, command line and manifest into one directory that `run` takes. [`build`] does all of it in one
//! call. What comes over a network is fetched by the caller; here are only paths and bytes.

pub mod artifact;
pub mod build;
pub mod cpio;
pub mod difference;
pub mod digest;
pub mod directory;
pub mod eif;
pub mod erofs;
pub mod layers;
pub mod limits;
pub mod measure;
pub mod oci;
pub mod ramdisk;
pub mod sbom;
pub mod spool;
pub mod swap;
pub mod tar;
pub mod tree;

use std::fmt;

/// A length in memory as a length in a file. On every machine this runs on, nothing is lost.
pub(crate) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The most characters of a name that a message shows: hostile names are long.
const SHOWN: usize = 200;

/// Bytes of a name for a message: printable, bounded, and unmistakable.
pub(crate) fn shown(name: &[u8]) -> impl fmt::Display + use<> {
    let text = String::from_utf8_lossy(name);
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}
