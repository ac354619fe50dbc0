//! A small file tree for tests, built in one expression.
//!
//! Paths that a test does not mention do not exist; the parents of a file are directories owned by root.

use std::collections::BTreeMap;
use std::io;

use super::image::{Entry, EntryKind, Rootfs};

/// Files by path without a leading slash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(BTreeMap<String, (Entry, Vec<u8>)>, BTreeMap<String, Vec<u8>>);

impl Files {
    pub(crate) fn file(self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.add(path, EntryKind::File, mode, content.into())
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.add(path, EntryKind::Directory, 0o755, Vec::new())
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.add(path, EntryKind::Link(target.to_owned()), 0o777, Vec::new())
    }

    /// Changes the mode of an existing entry.
    pub(crate) fn chmod(mut self, path: &str, mode: u32) -> Self {
        if let Some((entry, _)) = self.0.get_mut(path.trim_matches('/')) {
            entry.mode = mode;
        }
        self
    }

    /// Gives a program capabilities, as `setcap` stores them.
    pub(crate) fn capable(mut self, path: &str, stored: &[u8]) -> Self {
        self.1.insert(path.trim_matches('/').to_owned(), stored.to_owned());
        self
    }

    fn add(mut self, path: &str, kind: EntryKind, mode: u32, content: Vec<u8>) -> Self {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            self.0.entry(path[..end].to_owned()).or_insert_with(|| (directory(), Vec::new()));
        }
        self.0.insert(path.to_owned(), (Entry { kind, mode, uid: 0, gid: 0 }, content));
        self
    }
}

fn directory() -> Entry {
    Entry { kind: EntryKind::Directory, mode: 0o755, uid: 0, gid: 0 }
}

impl Rootfs for Files {
    fn entry(&self, path: &str) -> Option<Entry> {
        if path.is_empty() {
            return Some(directory());
        }
        self.0.get(path).map(|(entry, _)| entry.clone())
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let (_, content) = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(content.iter().copied().take(limit).collect())
    }

    fn capabilities(&self, path: &str) -> Option<Vec<u8>> {
        self.1.get(path).cloned()
    }
}
