//! A folder that was removed from outside, made again.
//!
//! Its law: an enclave that runs can be found, under its name or under one that is free.

use crate::error::Result;
use crate::state::root::Root;

use super::Folder;

impl Folder {
    /// Makes a running enclave findable again whose folder or lock was removed. `None`: this folder will do. Otherwise
    /// another one: of the same name, or of one that is free if that was taken meanwhile.
    pub(crate) fn regain(&self, root: &Root) -> Result<Option<Self>> {
        let in_place = self.dir.is_at(&self.path);
        if in_place && self.lock_is_in_place() {
            return Ok(None);
        }
        let again = if in_place { self.lock_again()? } else { None };
        let folder = again.map_or_else(|| self.elsewhere(root, !in_place), Ok)?;
        self.home.move_to(folder.dir.clone());
        Ok(Some(Self { home: self.home.clone(), ..folder }))
    }

    /// Another folder for this enclave: of its name, if that may be, or of one that is free.
    fn elsewhere(&self, root: &Root, same_name: bool) -> Result<Self> {
        let root = Root::at(root.path())?;
        let same = if same_name { root.claim(Some(&self.name), &self.name, false).ok() } else { None };
        same.map_or_else(|| root.claim(None, &self.name, false), Ok)
    }
}
