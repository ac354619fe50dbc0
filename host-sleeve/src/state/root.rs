//! The folder of all enclaves of one user.
//!
//! Its law: it belongs to the user and only the user writes to it; one that others could have prepared is refused, never repaired.

use std::env;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::cli::values;
use crate::error::{Doing, Error, Result};

use super::folder::{Claim, Folder};
use super::record::{Record, Seen};

/// The variable that names the runtime folder.
const VARIABLE: &str = "CLOISTER_RUNTIME_DIR";

/// How many enclaves that ended and were named by us are kept: enough to look back at, few enough to stay small.
const KEEP_ENDED: usize = 32;

/// The runtime folder.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    path: PathBuf,
}

impl Root {
    /// The runtime folder of this user, made if it is missing.
    pub(crate) fn open() -> Result<Self> {
        Self::at(&place(
            env::var_os(VARIABLE),
            env::var_os("XDG_RUNTIME_DIR"),
            rustix::process::geteuid().as_raw(),
        ))
    }

    /// The runtime folder at `path`, made if it is missing.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).doing(|| format!("cannot make {}", parent.display()))?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).doing(|| format!("cannot make the runtime folder {}", path.display()));
            }
            _ => {}
        }
        refuse_foreign(path)?;
        let path = path.canonicalize().doing(|| format!("cannot resolve {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The enclaves, by name, with what their records say. A folder whose record cannot be read is told as such.
    pub(crate) fn list(&self) -> Result<Vec<(String, Result<Seen>)>> {
        let mut found = Vec::new();
        for name in self.names()? {
            let seen = Folder::open(&self.path.join(&name)).and_then(|folder| folder.seen());
            match seen {
                Ok(Some(seen)) => found.push((name, Ok(seen))),
                Ok(None) => {}
                Err(error) => found.push((name, Err(error))),
            }
        }
        Ok(found)
    }

    /// The names of all folders, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let doing = || format!("cannot list {}", self.path.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).doing(doing)? {
            if let Some(name) =
                entry.doing(doing)?.file_name().to_str().filter(|name| values::name(name).is_ok())
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The enclave of this name.
    pub(crate) fn find(&self, name: &str) -> Result<Folder> {
        let missing = || {
            Error::operator(format!("no enclave is named {}", crate::output::printable(name)))
                .hint("`host-sleeve ps` lists them")
        };
        values::name(name).map_err(|_| missing())?;
        let path = self.path.join(name);
        if !path.is_dir() {
            return Err(missing());
        }
        Folder::open(&path)
    }

    /// Takes a name for a new enclave: the asked one, or `base` with the first number that is free.
    pub(crate) fn claim(&self, asked: Option<&str>, base: &str, replace: bool) -> Result<Folder> {
        if let Some(name) = asked {
            return match Folder::claim(&self.path.join(name), replace)? {
                Claim::Taken(folder) => Ok(*folder),
                Claim::Running => Err(Error::operator(format!("an enclave named {name} is running"))
                    .hint(format!("choose another --name, or `host-sleeve stop {name}` first"))),
                Claim::Ended => Err(Error::operator(format!("an ended enclave has the name {name}"))
                    .hint(format!("add --replace, or `host-sleeve rm {name}` first"))),
            };
        }
        self.prune(base);
        for number in 1_u32.. {
            if let Claim::Taken(folder) = Folder::claim(&self.path.join(format!("{base}-{number}")), false)? {
                return Ok(*folder);
            }
        }
        Err(Error::operator("no name is free").hint("`host-sleeve rm --all` forgets ended enclaves"))
    }

    /// Forgets the oldest of the ended enclaves that bear numbered names. A failure to do so harms nobody.
    fn prune(&self, base: &str) {
        let numbered = |name: &str| {
            name.strip_prefix(base)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|n| n.parse::<u32>().is_ok())
        };
        let mut ended: Vec<Record> = self
            .list()
            .unwrap_or_default()
            .into_iter()
            .filter(|(name, _)| numbered(name))
            .filter_map(|(_, seen)| seen.ok().filter(|seen| !seen.alive).map(|seen| seen.record))
            .collect();
        ended.sort_by_key(|record| std::cmp::Reverse(record.created_ms));
        for old in ended.iter().skip(KEEP_ENDED) {
            if let Ok(folder) = Folder::open(&self.path.join(&old.name)) {
                drop(folder.remove());
            }
        }
    }
}

/// Where the runtime folder is, from `CLOISTER_RUNTIME_DIR`, `XDG_RUNTIME_DIR` and the user.
fn place(asked: Option<std::ffi::OsString>, xdg: Option<std::ffi::OsString>, uid: u32) -> PathBuf {
    let set = |value: Option<std::ffi::OsString>| value.filter(|v| !v.is_empty()).map(PathBuf::from);
    match (set(asked), set(xdg)) {
        (Some(asked), _) => asked,
        (None, Some(xdg)) => xdg.join("cloister"),
        (None, None) if uid == 0 => PathBuf::from("/run/cloister"),
        (None, None) => env::temp_dir().join(format!("cloister-{uid}")),
    }
}

fn refuse_foreign(path: &Path) -> Result<()> {
    let facts = fs::symlink_metadata(path).doing(|| format!("cannot look at {}", path.display()))?;
    let ours =
        facts.is_dir() && facts.uid() == rustix::process::geteuid().as_raw() && facts.mode() & 0o022 == 0;
    if ours {
        return Ok(());
    }
    Err(Error::host(format!("{} is not a folder that only this user can write to", path.display()))
        .hint(format!("look who made it; then `chmod go-w` it, or set {VARIABLE} to another folder")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_asked_folder_comes_first_then_the_session_then_the_system() {
        let some = |text: &str| Some(text.into());
        assert_eq!(place(some("/a"), some("/b"), 7), PathBuf::from("/a"));
        assert_eq!(place(some(""), some("/b"), 7), PathBuf::from("/b/cloister"));
        assert_eq!(place(None, None, 0), PathBuf::from("/run/cloister"));
        assert!(place(None, None, 7).ends_with("cloister-7"));
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloister");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Root::at(&path).unwrap_err().to_string().contains("only this user"));
    }

    #[test]
    fn a_link_in_place_of_the_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloister");
        std::os::unix::fs::symlink(dir.path(), &path).unwrap();
        assert!(Root::at(&path).is_err());
    }

    #[test]
    fn names_are_counted_up_and_never_shared() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(&dir.path().join("run")).unwrap();
        let first = root.claim(None, "web", false).unwrap();
        let second = root.claim(None, "web", false).unwrap();
        assert_eq!((first.name(), second.name()), ("web-1", "web-2"));
        assert!(root.claim(Some("web-1"), "web", true).unwrap_err().to_string().contains("is running"));
    }

    #[test]
    fn a_name_that_leaves_the_folder_finds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(&dir.path().join("run")).unwrap();
        assert!(root.find("../run").is_err());
    }
}
