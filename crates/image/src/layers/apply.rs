//! Applies the entries of a layer to the tree, one after the other.
//!
//! Invariant: an entry only changes names below the root; an inode that it replaces stays under its other names.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use super::decode::{read_error, tar_error};
use super::names::{self, Action};
use super::{EntryError, LayerError};
use crate::limits::{self, LimitError, Limits, MAX_NAME, MAX_XATTR};
use crate::spool::{Segment, Spool, SpoolError};
use crate::tar::{self, Entry};
use crate::tree::{Inode, InodeId, Kind, Tree, base, join, parent};

/// Maximum number of notes that are stored individually; a layer can cause as many as it has entries.
const MAX_NOTES: usize = 100;

/// Human-readable notes on what was changed or left out of a valid image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The first notes, each a sentence.
    pub texts: Vec<String>,
    /// How many more there were.
    pub more: u64,
    /// How many devices in `/dev` were left out, including hard links to them.
    pub devices: u64,
}

impl Notes {
    /// All notes, one line each.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let devices = (self.devices > 0)
            .then(|| format!("{} devices in /dev are left out: an enclave has its own", self.devices));
        let more = (self.more > 0).then(|| format!("{} more notes are not shown", self.more));
        self.texts.iter().cloned().chain(devices).chain(more)
    }

    /// Notes a device that was left out. Roots made by debootstrap contain the static devices of `/dev`: those are only
    /// counted.
    pub(crate) fn device(&mut self, path: &[u8]) {
        if path.starts_with(b"dev/") {
            self.devices += 1;
        } else {
            self.add(|| {
                format!(
                    "the device {} is left out: an enclave has devices only in its own /dev",
                    crate::shown(path)
                )
            });
        }
    }

    /// Notes a link whose target points above the root.
    pub(crate) fn escaping_link(&mut self, path: &[u8], target: &[u8]) {
        let (path, target) = (crate::shown(path), crate::shown(target));
        self.add(|| {
            format!(
                "the link {path} points above the root, to {target}: in the enclave, it stops at the root"
            )
        });
    }

    /// Adds a note, or counts it if there are too many.
    pub fn add(&mut self, text: impl FnOnce() -> String) {
        if self.texts.len() < MAX_NOTES { self.texts.push(text()) } else { self.more += 1 }
    }
}

/// The state while the layers of an image are applied.
pub(super) struct Layering<'a> {
    tree: &'a mut Tree,
    spool: &'a mut Spool,
    limits: &'a Limits,
    /// Names that the current layer has written, and the parent directories it has created.
    touched: HashSet<Vec<u8>>,
    /// Directories whose lower content the current layer has already hidden: everything in them is its own. Without
    /// this, a layer that hides the same n files n times costs n² steps.
    hidden: HashSet<Vec<u8>>,
    /// Devices that were left out: a hard link to one is left out as well.
    devices: HashSet<Vec<u8>>,
    /// How many names whiteouts have examined: the work that they cause.
    #[cfg(test)]
    pub(super) examined: usize,
    notes: Notes,
    entries: u64,
    metadata: u64,
    unpacked: u64,
}

/// An error in an entry, without its position in the stream.
pub(super) enum ApplyError {
    Entry(String, EntryError),
    Limit(LimitError),
    Spool(SpoolError),
}

/// Adds the position to an error.
pub(super) fn place(error: ApplyError, offset: u64) -> LayerError {
    match error {
        ApplyError::Entry(name, error) => LayerError::Entry { name, error },
        ApplyError::Limit(error) => LayerError::Limit(error),
        ApplyError::Spool(SpoolError::Read(error)) if error.get_ref().is_some() => read_error(error),
        ApplyError::Spool(SpoolError::Read(error)) => tar_error(tar::read_error(error), offset),
        ApplyError::Spool(SpoolError::Write(error)) => LayerError::Scratch(error),
    }
}

impl<'a> Layering<'a> {
    pub(super) fn new(tree: &'a mut Tree, spool: &'a mut Spool, limits: &'a Limits) -> Self {
        Self {
            tree,
            spool,
            limits,
            touched: HashSet::new(),
            hidden: HashSet::new(),
            devices: HashSet::new(),
            #[cfg(test)]
            examined: 0,
            notes: Notes::default(),
            entries: 0,
            metadata: 0,
            unpacked: 0,
        }
    }

    /// Starts a layer: everything in the tree now belongs to lower layers.
    pub(super) fn begin(&mut self) {
        self.touched.clear();
        self.hidden.clear();
    }

    pub(super) fn unpacked(&self) -> u64 {
        self.unpacked
    }

    pub(super) fn add_unpacked(&mut self, bytes: u64) {
        self.unpacked = self.unpacked.saturating_add(bytes);
    }

    pub(super) fn finish(self) -> Notes {
        self.notes
    }

    /// Applies one entry, whose bytes are in `data`.
    pub(super) fn entry(&mut self, entry: Entry, data: &mut impl Read) -> Result<(), ApplyError> {
        let name = crate::shown(&entry.name).to_string();
        let action = names::action(&entry.name).map_err(|error| ApplyError::Entry(name.clone(), error))?;
        self.count(&entry).map_err(ApplyError::Limit)?;
        match action {
            Action::Ignore => Ok(()),
            Action::Hide(path) => self.hide(&path).map_err(|error| ApplyError::Entry(name, error)),
            Action::HideContents(path) => {
                self.hide_contents(&path).map_err(|error| ApplyError::Entry(name, error))
            }
            Action::Put(path) => self.put(entry, &path, &name, data),
        }
    }

    fn put(&mut self, entry: Entry, path: &[u8], name: &str, data: &mut impl Read) -> Result<(), ApplyError> {
        let refused = |error| ApplyError::Entry(name.to_owned(), error);
        let path = self.prepare(path, name)?;
        if path.is_empty() && entry.kind != tar::Kind::Directory {
            return Err(refused(EntryError::Root));
        }
        if matches!(entry.kind, tar::Kind::CharDevice | tar::Kind::BlockDevice) {
            self.omit_device(path);
            return Ok(());
        }
        if entry.kind == tar::Kind::HardLink {
            let Some(target) = self.hard_link_target(&entry, &path).map_err(refused)? else {
                self.omit_device(path);
                return Ok(());
            };
            self.replace(&path);
            self.tree.entries.insert(path.clone(), target);
        } else {
            let inode = self.inode(entry, &path, name, data)?;
            if !inode.is_directory() || !self.tree.get(&path).is_some_and(Inode::is_directory) {
                self.replace(&path);
            }
            self.tree.insert(path.clone(), inode);
        }
        self.touched.insert(path);
        Ok(())
    }

    /// Like any entry, a device replaces what has its name, but it is not added itself: a service has its own `/dev`,
    /// and devices anywhere else cannot be opened.
    fn omit_device(&mut self, path: Vec<u8>) {
        self.replace(&path);
        self.notes.device(&path);
        self.devices.insert(path);
    }

    /// Checks an entry against the limits before anything of it is stored.
    fn count(&mut self, entry: &Entry) -> Result<(), LimitError> {
        let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.count_name(entry.name.len() + entry.link.len() + xattrs)?;
        // Holes are not in the stream: they are counted here, not by the decoder.
        let stored: u64 = entry.sparse.iter().flatten().map(|segment| segment.length).sum();
        let holes = if entry.sparse.is_some() { entry.size.saturating_sub(stored) } else { 0 };
        self.unpacked = self.unpacked.saturating_add(holes);
        limits::check(limits::UNPACKED, self.unpacked, self.limits.unpacked)
    }

    fn count_name(&mut self, bytes: usize) -> Result<(), LimitError> {
        self.entries = self.entries.saturating_add(1);
        self.metadata = self.metadata.saturating_add(crate::wide(bytes));
        limits::check(limits::ENTRIES, self.entries, self.limits.entries)?;
        limits::check(limits::METADATA, self.metadata, self.limits.metadata)
    }

    /// Resolves a path, and creates its missing parent directories.
    fn prepare(&mut self, path: &[u8], name: &str) -> Result<Vec<u8>, ApplyError> {
        let refused = |error| ApplyError::Entry(name.to_owned(), error);
        let directory = self.tree.follow(parent(path)).map_err(|error| refused(EntryError::Parent(error)))?;
        let full = if path.is_empty() { Vec::new() } else { join(&directory, base(path)) };
        names::limit("bytes of a path", full.len(), limits::MAX_PATH).map_err(refused)?;
        if !path.is_empty() {
            self.make_directories(&directory, name)?;
        }
        Ok(full)
    }

    fn make_directories(&mut self, path: &[u8], name: &str) -> Result<(), ApplyError> {
        let ends = (0..=path.len()).filter(|end| path.get(*end).is_none_or(|byte| *byte == b'/'));
        for ancestor in ends.filter_map(|end| path.get(..end)) {
            match self.tree.get(ancestor) {
                Some(inode) if inode.is_directory() => {}
                Some(_) => {
                    let error = crate::tree::FollowError::NotADirectory(ancestor.to_vec());
                    return Err(ApplyError::Entry(name.to_owned(), EntryError::Parent(error)));
                }
                None => {
                    // One entry can cause two thousand of these.
                    self.count_name(ancestor.len()).map_err(ApplyError::Limit)?;
                    self.tree.insert(ancestor.to_vec(), Inode::directory());
                    self.touched.insert(ancestor.to_vec());
                }
            }
        }
        Ok(())
    }

    /// The target of a hard link; `None` if it is a device that was left out.
    fn hard_link_target(&mut self, entry: &Entry, path: &[u8]) -> Result<Option<InodeId>, EntryError> {
        let shown = || crate::shown(&entry.link).to_string();
        let target = names::hard_link_target(&entry.link)?;
        if base(&target) == b".." {
            return Err(EntryError::HardLinkTarget(shown()));
        }
        if names::escapes_root(b"", &target) {
            self.notes.escaping_link(path, &entry.link);
        }
        let directory = self.tree.follow(parent(&target)).map_err(EntryError::Parent)?;
        let target = if target.is_empty() { target } else { join(&directory, base(&target)) };
        let Some(id) = self.tree.entries.get(&target) else {
            let device = self.devices.contains(&target);
            return if device { Ok(None) } else { Err(EntryError::DanglingHardLink(shown())) };
        };
        let directory = self.tree.inode(*id).is_none_or(Inode::is_directory);
        if directory || target == path { Err(EntryError::HardLinkTarget(shown())) } else { Ok(Some(*id)) }
    }

    fn inode(
        &mut self,
        entry: Entry,
        path: &[u8],
        name: &str,
        data: &mut impl Read,
    ) -> Result<Inode, ApplyError> {
        let refused = |error| ApplyError::Entry(name.to_owned(), error);
        let kind = match entry.kind {
            tar::Kind::Directory => Kind::Directory,
            tar::Kind::Fifo => Kind::Fifo,
            tar::Kind::Symlink => {
                names::check_symlink(&entry.link).map_err(refused)?;
                if names::escapes_root(path, &entry.link) {
                    self.notes.escaping_link(path, &entry.link);
                }
                Kind::Symlink(entry.link)
            }
            tar::Kind::File => {
                let whole = [Segment { offset: 0, length: entry.size }];
                let segments = entry.sparse.as_deref().unwrap_or(&whole);
                Kind::File(self.spool.append_sparse(data, entry.size, segments).map_err(ApplyError::Spool)?)
            }
            // The first three have been handled before.
            tar::Kind::HardLink => return Err(refused(EntryError::Type(b'1'))),
            tar::Kind::CharDevice => return Err(refused(EntryError::Type(b'3'))),
            tar::Kind::BlockDevice => return Err(refused(EntryError::Type(b'4'))),
            tar::Kind::Unknown(flag) => return Err(refused(EntryError::Type(flag))),
        };
        let owner = |number| u32::try_from(number).map_err(|_| refused(EntryError::Owner));
        Ok(Inode {
            mode: entry.mode,
            uid: owner(entry.uid)?,
            gid: owner(entry.gid)?,
            mtime: entry.mtime,
            xattrs: self.xattrs(entry.xattrs, name).map_err(refused)?,
            kind,
        })
    }

    /// The attributes that have an effect in an enclave: file capabilities, and the user attributes of programs.
    fn xattrs(
        &mut self,
        xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
        name: &str,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, EntryError> {
        let (kept, dropped): (BTreeMap<_, _>, BTreeMap<_, _>) =
            xattrs.into_iter().partition(|(key, _)| keeps_xattr(key));
        for (key, value) in &kept {
            names::limit("bytes of an attribute's name", key.len(), MAX_NAME)?;
            names::limit("bytes of an attribute", value.len(), MAX_XATTR)?;
        }
        for key in dropped.keys() {
            self.notes.add(|| format!("the attribute {} of {name} is left out", crate::shown(key)));
        }
        Ok(kept)
    }

    /// Removes what is at `path`, unless a directory replaces a directory.
    fn replace(&mut self, path: &[u8]) {
        if self.tree.entries.contains_key(path) {
            self.tree.remove(path);
        }
    }

    /// Removes what lower layers have at `path`.
    fn hide(&mut self, path: &[u8]) -> Result<(), EntryError> {
        let directory = self.tree.follow(parent(path)).map_err(EntryError::Parent)?;
        let path = join(&directory, base(path));
        self.hide_below(&path);
        if !self.touched.contains(&path) && self.tree.below(&path).next().is_none() {
            self.tree.entries.remove(&path);
        }
        Ok(())
    }

    fn hide_contents(&mut self, path: &[u8]) -> Result<(), EntryError> {
        let path = self.tree.follow(path).map_err(EntryError::Parent)?;
        self.hide_below(&path);
        Ok(())
    }

    /// Removes every name below `path` that the current layer has not written and that is not a parent of one it has
    /// written.
    fn hide_below(&mut self, path: &[u8]) {
        if !self.hidden.insert(path.to_vec()) {
            return;
        }
        let mut needed: HashSet<Vec<u8>> = HashSet::new();
        let below: Vec<Vec<u8>> = self.tree.below(path).map(|(name, _)| name.clone()).collect();
        #[cfg(test)]
        {
            self.examined += below.len();
        }
        for name in below.into_iter().rev() {
            if self.touched.contains(&name) || needed.contains(&name) {
                needed.insert(parent(&name).to_vec());
            } else {
                self.tree.entries.remove(&name);
            }
        }
    }
}

/// Whether an attribute is preserved in the image.
pub(crate) fn keeps_xattr(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.")
}
