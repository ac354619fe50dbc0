//! Applies layers to a tree, one over the other.
//!
//! Invariant: the tree is the one that a container engine would show to the process, and no entry can change anything
//! outside it. A layer is accepted only after its bytes have been read to the end and its digests have been verified.
//!
//! Where engines differ, this follows containerd's `archive.Apply`: within a layer the last entry of a name wins,
//! missing parents are created, and parents that are links are followed inside the root. Whiteouts follow the OCI image
//! specification instead: they hide the content of lower layers and nothing of their own layer, regardless of the order
//! in the stream.

mod apply;
mod decode;
mod names;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::digest::Digest;
use crate::limits::{self, LimitError, Limits};
use crate::oci::Blob;
use crate::spool::Spool;
use crate::tar::{self, TarError};
use crate::tree::{FollowError, Tree};
use apply::Layering;
pub use apply::Notes;
pub(crate) use apply::keeps_xattr;
use decode::Stream;
pub(crate) use names::{check_symlink, escapes_root};

/// One layer as its image describes it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its bytes, compressed or not.
    pub blob: Blob,
    /// The digest of those bytes, if the image states it.
    pub digest: Option<Digest>,
    /// The digest of the tar inside (`rootfs.diff_ids`).
    pub diff_id: Digest,
}

/// Why a layer is refused. Unless stated otherwise, the image's author must act.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A digest does not match.
    #[error("its {what} is {found}, but the image states {expected}")]
    Digest {
        /// Which digest.
        what: &'static str,
        /// The digest in the image's documents.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// It is compressed in a way that OCI does not support.
    #[error("it is compressed with {0}; layers must be plain tar, gzip or zstd")]
    Compression(&'static str),
    /// The compressed stream is damaged or ends early.
    #[error("its compressed data is damaged or truncated ({0})")]
    Damaged(String),
    /// Its tar is malformed.
    #[error("malformed tar at byte {offset}")]
    Tar {
        /// The position in the unpacked stream.
        offset: u64,
        /// What is wrong.
        #[source]
        error: TarError,
    },
    /// An entry that is not allowed in an image.
    #[error("its entry `{name}` is refused")]
    Entry {
        /// The entry's name, made printable.
        name: String,
        /// What is wrong.
        #[source]
        error: EntryError,
    },
    /// It exceeds a limit, which an operator can raise.
    #[error("it is too large")]
    Limit(#[source] LimitError),
    /// The blob cannot be read: a problem of this host.
    #[error("its file cannot be read")]
    Blob(#[source] io::Error),
    /// It cannot be written to the scratch directory: a problem of this host.
    #[error("the scratch directory cannot be written")]
    Scratch(#[source] io::Error),
}

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The name is empty or contains a zero byte.
    #[error("a name must not be empty or contain a zero byte")]
    Name,
    /// The name leads above the root.
    #[error("the name leads above the root with `..`")]
    Traversal,
    /// A hard link to a file that does not exist.
    #[error("it is a hard link to `{0}`, which does not exist")]
    DanglingHardLink(String),
    /// A hard link to a directory, or to itself.
    #[error("it is a hard link to `{0}`, which is a directory or the link itself")]
    HardLinkTarget(String),
    /// A type of entry that engines do not unpack.
    #[error("its type flag {0:#04x} is not supported in an image")]
    Type(u8),
    /// A file in a directory on this host whose type the file system does not report.
    #[error("this host's file system does not report its type")]
    Unknown,
    /// The root would be replaced.
    #[error("the root must remain a directory")]
    Root,
    /// A parent is not a directory, or there is a symbolic link loop.
    #[error("its path cannot be resolved")]
    Parent(#[source] FollowError),
    /// An owner or group over 32 bits.
    #[error("its owner or group is not a 32-bit number")]
    Owner,
    /// A name, link target or attribute that is longer than Linux allows.
    #[error("it exceeds a Linux limit")]
    Limit(#[source] LimitError),
    /// A whiteout without a name to hide.
    #[error("the whiteout names no file")]
    Whiteout,
}

/// Applies `layers` in their order to `tree`.
///
/// On an error the tree must be discarded: it contains what the failed layer has written so far. The number in the
/// error is the layer's, from 0.
pub fn apply(
    tree: &mut Tree,
    spool: &mut Spool,
    layers: &[Layer],
    limits: &Limits,
) -> Result<Notes, (usize, LayerError)> {
    limits::check(limits::LAYERS, crate::wide(layers.len()), limits.layers)
        .map_err(|error| (layers.len(), LayerError::Limit(error)))?;
    let mut layering = Layering::new(tree, spool, limits);
    for (number, layer) in layers.iter().enumerate() {
        apply_one(&mut layering, layer, limits).map_err(|error| (number, error))?;
    }
    let notes = layering.finish();
    tree.renumber();
    Ok(notes)
}

/// The decompressed bytes of a file, which may be compressed like a layer: in place if it is not compressed, or in an
/// anonymous file in `scratch`.
pub(crate) fn unpack(blob: &Blob, scratch: &Path, limits: &Limits) -> Result<Blob, LayerError> {
    let mut stream = Stream::new(blob.reader(), limits.unpacked)?;
    if stream.is_plain() {
        return Ok(blob.clone());
    }
    let mut file = Spooled(tempfile::tempfile_in(scratch).map_err(LayerError::Scratch)?);
    io::copy(&mut stream, &mut file).map_err(decode::read_error)?;
    Blob::whole(file.0).map_err(LayerError::Scratch)
}

/// A scratch file whose errors are tagged as its own.
struct Spooled(File);

impl Write for Spooled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(decode::scratch_error)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn apply_one(layering: &mut Layering<'_>, layer: &Layer, limits: &Limits) -> Result<(), LayerError> {
    layering.begin();
    let budget = limits.unpacked.saturating_sub(layering.unpacked());
    let mut reader = tar::Reader::new(Stream::new(layer.blob.reader(), budget)?);
    loop {
        let offset = reader.position();
        let entry = reader.next_entry().map_err(|error| decode::tar_error(error, offset))?;
        let Some(entry) = entry else { break };
        layering.entry(entry, &mut reader.data()).map_err(|error| apply::place(error, offset))?;
    }
    let read = reader.into_source().finish()?;
    layering.add_unpacked(read.unpacked);
    compare("digest", layer.digest, read.digest)?;
    compare("diff ID", Some(layer.diff_id), read.diff_id)
}

fn compare(what: &'static str, expected: Option<Digest>, found: Digest) -> Result<(), LayerError> {
    match expected {
        Some(expected) if expected != found => Err(LayerError::Digest { what, expected, found }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
