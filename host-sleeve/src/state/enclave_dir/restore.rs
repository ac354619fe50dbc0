//! Recreates a directory that another process has removed.
//!
//! Invariant: a running enclave can be found, under its name or under a free one.

use crate::error::Result;
use crate::state::root::Root;

use super::EnclaveDir;

impl EnclaveDir {
    /// Restores the directory or the lock of a running enclave. `None` if this directory is still valid; else the new one, with
    /// the same name or, if that was taken meanwhile, with a free one.
    pub(crate) fn restore(&self, root: &Root) -> Result<Option<Self>> {
        let in_place = self.dir.is_at(&self.path);
        if in_place && self.lock_is_in_place() {
            return Ok(None);
        }
        let again = if in_place { self.lock_again()? } else { None };
        let directory = again.map_or_else(|| self.elsewhere(root, !in_place), Ok)?;
        self.home.move_to(directory.dir.clone());
        Ok(Some(Self { home: self.home.clone(), ..directory }))
    }

    /// Another directory for this enclave: with its name if `same_name` is set and the name is free, else with a free one.
    fn elsewhere(&self, root: &Root, same_name: bool) -> Result<Self> {
        let root = Root::at(root.path())?;
        let same = if same_name { root.claim(Some(&self.name), &self.name, false).ok() } else { None };
        same.map_or_else(|| root.claim(None, &self.name, false), Ok)
    }
}
