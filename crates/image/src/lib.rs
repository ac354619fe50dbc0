//! Container image in, measured enclave image out: pure, reproducible, and streaming.
//!
//! Invariant: the same input gives the same bytes, on any machine, at any time, for any user.
//!
//! An input ([`oci`], [`directory`]) becomes a [`tree::Tree`], [`ramdisk`] writes trees as the two ramdisks,
//! [`artifact`] puts them with kernel, command line and manifest into one directory that `run` boots. [`build`] does
//! all of it in one call. This crate only handles paths and bytes: anything on a network is fetched by the caller.

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

/// A length in memory as a length in a file. Lossless on every platform this runs on.
pub(crate) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Maximum characters of a name in a message: hostile names are long.
const SHOWN: usize = 200;

/// A name for a message: printable, bounded and unambiguous.
pub(crate) fn shown(name: &[u8]) -> impl fmt::Display + use<> {
    let text = String::from_utf8_lossy(name);
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}
