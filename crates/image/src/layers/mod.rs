//! Layers, applied one over the other onto a tree.
//!
//! Its law: the tree is what a container engine would show the process, and no entry can name anything outside it. A
//! layer is believed only when its bytes have been read to the end and its digests are right.
//!
//! Where engines differ, containerd's `archive.Apply` is followed: within a layer the last entry of a name wins, parents
//! that are missing are made, parents that are links are followed inside the root. Two things are as the OCI image
//! specification has them instead: a whiteout hides what lower layers have and nothing of its own layer, whatever the
//! order in the stream.

mod apply;
mod decode;
mod names;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::digest::Digest;
use crate::limits::{self, LimitFault, Limits};
use crate::oci::Blob;
use crate::spool::Spool;
use crate::tar::{self, TarFault};
use crate::tree::{FollowFault, Tree};
use apply::Layering;
pub use apply::Notes;
pub(crate) use apply::keeps_xattr;
use decode::Stream;
pub(crate) use names::{check_symlink, climbs};

/// One layer as its image describes it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its bytes, compressed or not.
    pub blob: Blob,
    /// The digest of those bytes, where the image names it.
    pub digest: Option<Digest>,
    /// The digest of the tar inside (`rootfs.diff_ids`).
    pub diff_id: Digest,
}

/// Why a layer is refused. Unless it says otherwise, it is the image's author who must act.
#[derive(Debug, thiserror::Error)]
pub enum LayerFault {
    /// Its bytes are not those that the image names.
    #[error("its {what} is {found}, and the image says {expected}")]
    Digest {
        /// Which digest.
        what: &'static str,
        /// What the image says.
        expected: Digest,
        /// What was read.
        found: Digest,
    },
    /// It is compressed in a way that OCI does not know.
    #[error("it is compressed with {0}; layers are plain tar, gzip or zstd")]
    Compression(&'static str),
    /// The compressed stream is damaged or ends early.
    #[error("its compressed data is damaged or ends early ({0})")]
    Damaged(String),
    /// It is not a tar that is accepted.
    #[error("byte {offset} of its tar is not as it should be")]
    Tar {
        /// Where in the unpacked stream.
        offset: u64,
        /// What is wrong.
        #[source]
        fault: TarFault,
    },
    /// An entry that has no place in an image.
    #[error("its entry `{name}` is refused")]
    Entry {
        /// The name as the layer has it, made printable.
        name: String,
        /// What is wrong.
        #[source]
        fault: EntryFault,
    },
    /// It is more than a builder takes; an operator can move the limit.
    #[error("it is too large")]
    Limit(#[source] LimitFault),
    /// The blob cannot be read: this host must be looked at.
    #[error("its file cannot be read")]
    Blob(#[source] io::Error),
    /// The scratch directory does not take it: this host must be looked at.
    #[error("the scratch directory cannot hold it")]
    Scratch(#[source] io::Error),
}

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// The name is empty or has a zero in it.
    #[error("a name must not be empty or contain a zero byte")]
    Name,
    /// The name climbs.
    #[error("the name climbs above the root by `..`")]
    Traversal,
    /// A hard link to something that is not there.
    #[error("it is a hard link to `{0}`, which is not there")]
    HardLinkToNothing(String),
    /// A hard link to a directory, or to itself.
    #[error("it is a hard link to `{0}`, which is a directory or itself")]
    HardLinkTarget(String),
    /// A type of entry that no engine unpacks.
    #[error("its type flag {0:#04x} is not one of a file in an image")]
    Type(u8),
    /// A file of a directory on this host whose type its file system does not say.
    #[error("its type is unknown to this host")]
    Unknown,
    /// The root is made into something else.
    #[error("the root is a directory and stays one")]
    Root,
    /// A parent is no directory, or links lead round.
    #[error("its place cannot be reached")]
    Parent(#[source] FollowFault),
    /// An owner or group over 32 bits.
    #[error("owner and group are numbers of 32 bits")]
    Owner,
    /// A name, link target or attribute that is longer than Linux takes.
    #[error("it exceeds a limit of Linux")]
    Limit(#[source] LimitFault),
    /// A whiteout that hides nothing that has a name.
    #[error("the whiteout names nothing")]
    Whiteout,
}

/// Applies `layers` in their order onto `tree`.
///
/// On an error the tree is of no use: what a failed layer had written is still in it. The number that comes with a fault
/// is the layer's, from 0.
pub fn apply(
    tree: &mut Tree,
    spool: &mut Spool,
    layers: &[Layer],
    limits: &Limits,
) -> Result<Notes, (usize, LayerFault)> {
    limits::check(limits::LAYERS, crate::wide(layers.len()), limits.layers)
        .map_err(|fault| (layers.len(), LayerFault::Limit(fault)))?;
    let mut layering = Layering::new(tree, spool, limits);
    for (number, layer) in layers.iter().enumerate() {
        apply_one(&mut layering, layer, limits).map_err(|fault| (number, fault))?;
    }
    let notes = layering.finish();
    tree.renumber();
    Ok(notes)
}

/// The bytes of a file that may be compressed as a layer may be; where they are, if it is not, else in a file without a
/// name in `scratch`.
pub(crate) fn unpack(blob: &Blob, scratch: &Path, limits: &Limits) -> Result<Blob, LayerFault> {
    let mut stream = Stream::new(blob.reader(), limits.unpacked)?;
    if stream.is_plain() {
        return Ok(blob.clone());
    }
    let mut file = Spooled(tempfile::tempfile_in(scratch).map_err(LayerFault::Scratch)?);
    io::copy(&mut stream, &mut file).map_err(decode::read_error)?;
    Blob::whole(file.0).map_err(LayerFault::Scratch)
}

/// A scratch file whose errors say that they are its own.
struct Spooled(File);

impl Write for Spooled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(decode::scratch_error)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn apply_one(layering: &mut Layering<'_>, layer: &Layer, limits: &Limits) -> Result<(), LayerFault> {
    layering.begin();
    let budget = limits.unpacked.saturating_sub(layering.unpacked());
    let mut reader = tar::Reader::new(Stream::new(layer.blob.reader(), budget)?);
    loop {
        let offset = reader.position();
        let entry = reader.next_entry().map_err(|fault| decode::tar_fault(fault, offset))?;
        let Some(entry) = entry else { break };
        layering.entry(entry, &mut reader.data()).map_err(|fault| apply::place(fault, offset))?;
    }
    let read = reader.into_source().finish()?;
    layering.add_unpacked(read.unpacked);
    compare("digest", layer.digest, read.digest)?;
    compare("diff ID", Some(layer.diff_id), read.diff_id)
}

fn compare(what: &'static str, expected: Option<Digest>, found: Digest) -> Result<(), LayerFault> {
    match expected {
        Some(expected) if expected != found => Err(LayerFault::Digest { what, expected, found }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
