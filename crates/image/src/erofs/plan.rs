//! The plan of an image: the tree's inodes as nodes with parents, children and link counts.
//!
//! Invariant: a plan is a tree that EROFS supports; names, links and attributes are not checked again after this. Nodes
//! are sorted by their first name, so that a directory's files are adjacent on disk.

use std::collections::BTreeMap;

use super::format::{BLOCK_BYTES, FileType, InodeRecord, Layout, NAME_MAX};
use super::{Error, TreeError, xattr};
use crate::tree::{Content, Inode, InodeId, Kind, Tree};

/// An index into [`Plan::nodes`].
pub(crate) type NodeId = usize;

/// All nodes; the first is the root.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) nodes: Vec<Node<'a>>,
    /// The most common modification time, which all compact inodes share.
    pub(crate) time: i64,
}

/// An inode and its relations to others.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// Its first name, for messages.
    pub(crate) path: &'a [u8],
    pub(crate) inode: &'a Inode,
    pub(crate) file_type: FileType,
    pub(crate) permissions: u16,
    pub(crate) links: u32,
    pub(crate) parent: NodeId,
    /// Names in a directory, in the order of their bytes.
    pub(crate) children: Vec<(&'a [u8], NodeId)>,
}

impl<'a> Plan<'a> {
    /// Checks and sorts a tree.
    pub(crate) fn new(tree: &'a Tree) -> Result<Self, Error> {
        let mut plan = Self { nodes: Vec::with_capacity(tree.inodes.len()), time: 0 };
        let mut placed = BTreeMap::new();
        for (path, id) in &tree.entries {
            plan.add(tree, path, *id, &mut placed)?;
        }
        if plan.nodes.is_empty() {
            return Err(Error::tree(b"", TreeError::NoRoot));
        }
        plan.time = most_common(plan.nodes.iter().map(|node| node.inode.mtime));
        Ok(plan)
    }

    fn add(
        &mut self,
        tree: &'a Tree,
        path: &'a [u8],
        id: InodeId,
        placed: &mut BTreeMap<InodeId, NodeId>,
    ) -> Result<(), Error> {
        let known = placed.get(&id).copied();
        let node = if let Some(node) = known {
            node
        } else {
            let inode = tree.inodes.get(id.0).ok_or_else(|| Error::tree(path, TreeError::NoInode))?;
            self.nodes.push(Node::new(path, inode)?);
            self.nodes.len() - 1
        };
        placed.insert(id, node);
        if path.is_empty() { self.take_root(node, known) } else { self.link(tree, path, node, known, placed) }
    }

    fn take_root(&self, node: NodeId, known: Option<NodeId>) -> Result<(), Error> {
        let is_directory = self.nodes.get(node).is_some_and(|root| root.file_type == FileType::Directory);
        if known.is_some() || !is_directory { Err(Error::tree(b"", TreeError::NoRoot)) } else { Ok(()) }
    }

    /// Adds a name to its parent, which sorts before it and therefore exists already.
    fn link(
        &mut self,
        tree: &'a Tree,
        path: &'a [u8],
        node: NodeId,
        known: Option<NodeId>,
        placed: &BTreeMap<InodeId, NodeId>,
    ) -> Result<(), Error> {
        let (directory, name) = split(path);
        check_name(path, name)?;
        let parent = tree.entries.get(directory).and_then(|id| placed.get(id)).copied();
        let parent = parent.ok_or_else(|| Error::tree(path, TreeError::NoParent))?;
        let child = self.nodes.get_mut(node).ok_or_else(|| Error::tree(path, TreeError::NoInode))?;
        let is_directory = child.file_type == FileType::Directory;
        if is_directory && known.is_some() {
            return Err(Error::tree(path, TreeError::LinkedDirectory));
        }
        child.links = child.links.checked_add(1).ok_or_else(|| Error::tree(path, TreeError::TooManyLinks))?;
        if known.is_none() {
            child.parent = parent;
        }
        let parent = self.nodes.get_mut(parent).ok_or_else(|| Error::tree(path, TreeError::NoParent))?;
        if parent.file_type != FileType::Directory {
            return Err(Error::tree(path, TreeError::NoParent));
        }
        parent.children.push((name, node));
        if is_directory {
            parent.links = parent.links.saturating_add(1);
        }
        Ok(())
    }
}

impl<'a> Node<'a> {
    fn new(path: &'a [u8], inode: &'a Inode) -> Result<Self, Error> {
        let permissions = u16::try_from(inode.mode).ok().filter(|mode| *mode <= 0o7777);
        let permissions = permissions.ok_or_else(|| Error::tree(path, TreeError::Mode))?;
        xattr::check(path, &inode.xattrs)?;
        if let Kind::Symlink(target) = &inode.kind {
            check_target(path, target)?;
        }
        let file_type = file_type(&inode.kind);
        // A directory is linked from its parent and from its own "."; the root is its own parent.
        let links = match (file_type, path) {
            (FileType::Directory, b"") => 2,
            (FileType::Directory, _) => 1,
            _ => 0,
        };
        Ok(Self { path, inode, file_type, permissions, links, parent: 0, children: Vec::new() })
    }

    /// Bytes of a regular file or a link's target; 0 for the others.
    pub(crate) fn size(&self) -> u64 {
        match &self.inode.kind {
            Kind::File(content) => content.len(),
            Kind::Symlink(target) => u64::try_from(target.len()).unwrap_or(u64::MAX),
            Kind::Directory | Kind::Fifo => 0,
        }
    }

    /// The inode's record, without the fields that depend on the position of its content.
    pub(crate) fn record(&self, size: u64) -> InodeRecord {
        InodeRecord {
            layout: Layout::Plain,
            file_type: self.file_type,
            permissions: self.permissions,
            xattr_count: 0,
            links: self.links,
            size,
            data: 0,
            number: 0,
            uid: self.inode.uid,
            gid: self.inode.gid,
            mtime: self.inode.mtime,
        }
    }

    /// Bytes of the inode and its attributes if it has `size` bytes of content.
    pub(crate) fn head_length(&self, size: u64, time: i64) -> u64 {
        self.record(size).length(time).saturating_add(xattr::length(&self.inode.xattrs))
    }

    /// Whether the inode and the last `rest` bytes of a content of `size` bytes fit in one block.
    pub(crate) fn fits_inline(&self, size: u64, rest: u64, time: i64) -> bool {
        self.head_length(size, time).saturating_add(rest) <= BLOCK_BYTES
    }

    /// The bytes of a regular file.
    pub(crate) fn content(&self) -> Option<&'a Content> {
        match &self.inode.kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// The target of a symbolic link.
    pub(crate) fn target(&self) -> Option<&'a [u8]> {
        match &self.inode.kind {
            Kind::Symlink(target) => Some(target),
            _ => None,
        }
    }
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File(_) => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
    }
}

/// The directory and the name of a path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else { return (b"", path) };
    let (directory, rest) = path.split_at(slash);
    (directory, rest.get(1..).unwrap_or_default())
}

fn check_name(path: &[u8], name: &[u8]) -> Result<(), Error> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&0) {
        return Err(Error::tree(path, TreeError::Name));
    }
    if name.len() > NAME_MAX { Err(Error::tree(path, TreeError::LongName)) } else { Ok(()) }
}

fn check_target(path: &[u8], target: &[u8]) -> Result<(), Error> {
    // `PATH_MAX` of Linux counts the terminating zero.
    let fits = (1..4096).contains(&target.len()) && !target.contains(&0);
    if fits { Ok(()) } else { Err(Error::tree(path, TreeError::Target)) }
}

/// The most common value; the smallest one of several.
fn most_common(values: impl Iterator<Item = i64>) -> i64 {
    let mut counts = BTreeMap::<i64, usize>::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map_or(0, |(value, _)| value)
}
