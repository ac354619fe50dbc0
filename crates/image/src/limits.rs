//! Size limits for images.
//!
//! Invariant: every size that comes from an image is checked against one of these before memory or disk is spent on it,
//! and the error names the limit.

/// Maximum size of an index, image manifest or configuration in bytes: what registries accept (OCI distribution
/// specification, "Pushing Manifests").
pub const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// Maximum length of a path from the root in bytes: `PATH_MAX` less its final zero, as every program inside sees it.
pub const MAX_PATH: usize = 4095;

/// Maximum length of a name in bytes: `NAME_MAX`.
pub const MAX_NAME: usize = 255;

/// Maximum size of an extended attribute in bytes: `XATTR_SIZE_MAX`.
pub const MAX_XATTR: usize = 65536;

/// Maximum size of a tar extension record in bytes. Go's `archive/tar` has the same limit (`maxSpecialFileSize`).
pub const MAX_TAR_EXTENSION: u64 = 1024 * 1024;

/// Maximum number of data segments of a sparse file: 16 MiB of memory for its map.
pub const MAX_SPARSE_SEGMENTS: usize = 1024 * 1024;

/// Limits that an operator can change: `--limit NAME=VALUE`. Each bounds one finite resource (disk, memory, time)
/// directly, so there is no limit on the compression ratio: a database's empty pages shrink ten thousand times and are
/// harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of all layers unpacked, in bytes.
    pub unpacked: u64,
    /// Maximum number of names that all layers write or hide.
    pub entries: u64,
    /// Maximum bytes of names, link targets and extended attributes, which are held in memory.
    pub metadata: u64,
    /// Maximum number of layers.
    pub layers: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Far more than fits in an enclave's memory, and within the disk space of a build machine.
            unpacked: 64 << 30,
            // About 300 MB of memory including their metadata. A full distribution has some 200,000.
            entries: 1_000_000,
            metadata: 128 << 20,
            // Overlay-based engines stop at 127; squashing tools and tests exceed that.
            layers: 1000,
        }
    }
}

/// What a limit measures, as it appears in errors.
pub(crate) const UNPACKED: &str = "bytes unpacked";
pub(crate) const ENTRIES: &str = "names in all layers";
pub(crate) const METADATA: &str = "bytes of names and attributes";
pub(crate) const LAYERS: &str = "layers";

impl Limits {
    /// The names that [`Limits::set`] accepts.
    pub const NAMES: [&str; 4] = ["unpacked", "names", "metadata", "layers"];

    /// Changes the limit with this name; false if there is none.
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
#[error("{found} {what} exceed the limit of {limit}")]
pub struct LimitError {
    /// The limited quantity, with its unit.
    pub what: &'static str,
    /// The value found. If reading stopped at the limit, the first value past it.
    pub found: u64,
    /// The limit.
    pub limit: u64,
}

impl LimitError {
    /// What the operator or the image's author can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self.what {
            UNPACKED => "make the image smaller, or raise the limit with --limit unpacked=SIZE",
            ENTRIES => "put fewer files into the image, or raise the limit with --limit names=COUNT",
            METADATA => "put fewer files into the image, or raise the limit with --limit metadata=SIZE",
            LAYERS => "squash the image, or raise the limit with --limit layers=COUNT",
            _ => "shorten it in the image: Linux or the format sets this limit",
        }
    }
}

/// Checks `found` against `limit`.
pub(crate) fn check(what: &'static str, found: u64, limit: u64) -> Result<(), LimitError> {
    if found > limit { Err(LimitError { what, found, limit }) } else { Ok(()) }
}
