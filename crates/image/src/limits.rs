//! How much of everything an image may be.
//!
//! Its law: every size that comes from an image is measured against one of these before memory or disk is spent on it, and
//! the error names the limit.

/// The longest index, image manifest or configuration in bytes: what registries accept (OCI distribution specification,
/// "Pushing Manifests").
pub const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

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

/// Limits that an operator may move: `--limit NAME=VALUE`. Each bounds a thing that runs out (disk, memory, time) by itself,
/// so none looks at how well something is compressed: a database's empty pages shrink ten thousand times and harm nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes that all layers may unpack to.
    pub unpacked: u64,
    /// The most names that all layers may write or hide.
    pub entries: u64,
    /// The most bytes of names, link targets and extended attributes: what is held in memory.
    pub metadata: u64,
    /// The most layers.
    pub layers: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Far beyond what fits into an enclave's memory, and within what a build machine has.
            unpacked: 64 << 30,
            // With their metadata about 300 MB of memory. A full distribution has some 200,000.
            entries: 1_000_000,
            metadata: 128 << 20,
            // Overlay-based engines stop at 127; squashing tools and tests go beyond.
            layers: 1000,
        }
    }
}

/// What a limit measures, as faults say it.
pub(crate) const UNPACKED: &str = "bytes unpacked";
pub(crate) const ENTRIES: &str = "names in all layers";
pub(crate) const METADATA: &str = "bytes of names and attributes";
pub(crate) const LAYERS: &str = "layers";

impl Limits {
    /// The names by which [`Limits::set`] knows them.
    pub const NAMES: [&str; 4] = ["unpacked", "names", "metadata", "layers"];

    /// Moves the limit of this name, if there is one.
    pub fn set(&mut self, name: &str, value: u64) -> bool {
        let limit = match name {
            "unpacked" => &mut self.unpacked,
            "names" => &mut self.entries,
            "metadata" => &mut self.metadata,
            "layers" => &mut self.layers,
            _ => return false,
        };
        *limit = value;
        true
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

impl LimitFault {
    /// What an operator can do about it, or whoever made the image.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self.what {
            UNPACKED => "make the image smaller, or allow more with --limit unpacked=SIZE",
            ENTRIES => "put fewer files into the image, or allow more with --limit names=COUNT",
            METADATA => "put fewer files into the image, or allow more with --limit metadata=SIZE",
            LAYERS => "squash the image, or allow more with --limit layers=COUNT",
            _ => "shorten it in the image: this limit is fixed by Linux or by the format",
        }
    }
}

/// Measures `found` against `limit`.
pub(crate) fn check(what: &'static str, found: u64, limit: u64) -> Result<(), LimitFault> {
    if found > limit { Err(LimitFault { what, found, limit }) } else { Ok(()) }
}
