//! How much of everything an image may be.
//!
//! Its law: every size that comes from an image is measured against one of these before memory or disk is spent on it, and
//! the error names the limit.

/// The longest index, image manifest or configuration in bytes: what registries accept (OCI distribution specification,
/// "Pushing Manifests").
pub const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// The most layers. Overlay-based engines stop at 127; squashing tools and tests go beyond.
pub const MAX_LAYERS: usize = 1000;

/// The longest path from the root in bytes: `PATH_MAX` with its final zero, as every program inside sees it.
pub const MAX_PATH: usize = 4095;

/// The longest name in bytes: `NAME_MAX`.
pub const MAX_NAME: usize = 255;

/// The longest extended attribute in bytes: `XATTR_SIZE_MAX`.
pub const MAX_XATTR: usize = 65536;

/// The longest extension record of a tar in bytes. Go's `archive/tar` draws the same line (`maxSpecialFileSize`).
pub const MAX_TAR_EXTENSION: u64 = 1024 * 1024;

/// The most data segments of a sparse file: 16 MiB of memory for its map.
pub const MAX_SPARSE_SEGMENTS: usize = 1024 * 1024;

/// Limits that an operator may move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes that all layers may unpack to.
    pub unpacked: u64,
    /// How many times its compressed size a layer may unpack to, once it is past [`Limits::ratio_from`].
    pub ratio: u64,
    /// Unpacked bytes of a layer below which the ratio is not looked at: a small layer of zeros harms nobody.
    pub ratio_from: u64,
    /// The most names that all layers may write or hide.
    pub entries: u64,
    /// The most bytes of names, link targets and extended attributes: what is held in memory.
    pub metadata: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Far beyond what fits into an enclave's memory, and within what a build machine has.
            unpacked: 64 << 30,
            // Real layers stay under 20; deflate cannot pass 1032, zstd reaches 30,000.
            ratio: 200,
            ratio_from: 256 << 20,
            // With their metadata about 300 MB of memory. A full distribution has some 200,000.
            entries: 1_000_000,
            metadata: 128 << 20,
        }
    }
}

/// Something is larger than a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {found}, and the limit is {limit}")]
pub struct LimitFault {
    /// What was measured, with its unit.
    pub what: &'static str,
    /// What was found. Where reading stopped at the limit, the first value past it.
    pub found: u64,
    /// The limit.
    pub limit: u64,
}

/// Measures `found` against `limit`.
pub(crate) fn check(what: &'static str, found: u64, limit: u64) -> Result<(), LimitFault> {
    if found > limit { Err(LimitFault { what, found, limit }) } else { Ok(()) }
}
