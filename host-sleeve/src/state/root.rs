//! The state directory: all enclaves of one user.
//!
//! Invariant: it is owned by the user and writable only by the user; one that others could have written to is refused, never
//! repaired. Enclaves that an earlier version recorded elsewhere are found there, but new ones are not created there.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorContext, Result};
use crate::values::{self, MAX_NAME};

use super::enclave_dir::{Claim, EnclaveDir};
use super::place::{VARIABLE, places};
use super::record::{Record, Seen};

/// How many ended enclaves with automatic names are retained: enough for looking back, few enough to stay small.
const KEEP_ENDED: usize = 32;

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    path: PathBuf,
    /// State directories of earlier versions that exist.
    former: Vec<PathBuf>,
}

impl Root {
    /// The state directory of this user, created if it is missing.
    pub(crate) fn open() -> Result<Self> {
        let places = places();
        let mut root = Self::at(&places.now)?;
        let former = places.former.iter().filter(|path| refuse_foreign(path).is_ok());
        root.former = former.filter_map(|path| path.canonicalize().ok()).collect();
        root.former.dedup();
        Ok(root)
    }

    /// The state directory at `path`, created if it is missing.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        // Mode 0700, as the XDG Base Directory Specification requires; existing directories are not changed.
        let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
        made.context(|| format!("cannot create the state directory {}", path.display())).map_err(
            |error| {
                error.hint(format!("set {VARIABLE} to a directory on a disk that this user can write to"))
            },
        )?;
        refuse_foreign(path)?;
        let path = path.canonicalize().context(|| format!("cannot resolve {}", path.display()))?;
        Ok(Self { path, former: Vec::new() })
    }

    /// All directories that may contain enclaves, the one for new enclaves first.
    fn places(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.path).chain(&self.former)
    }

    /// The path of the state directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The enclaves, by name, with their records. A record that cannot be read is returned as an error.
    pub(crate) fn list(&self) -> Result<Vec<(String, Result<Seen>)>> {
        let mut found = Vec::new();
        for directory in self.directories()? {
            match directory.seen() {
                Ok(Some(seen)) => found.push((directory.name().to_owned(), Ok(seen))),
                Ok(None) => {}
                Err(error) => found.push((directory.name().to_owned(), Err(error))),
            }
        }
        Ok(found)
    }

    /// The directories of all enclaves, by name. One that is being removed is left out.
    pub(crate) fn directories(&self) -> Result<Vec<EnclaveDir>> {
        let mut directories = Vec::new();
        for place in self.places() {
            let context = || format!("cannot list {}", place.display());
            for entry in fs::read_dir(place).context(context)? {
                let path = entry.context(context)?.path();
                let named = path.file_name().and_then(|name| name.to_str());
                if named.is_some_and(|name| values::name(name).is_ok()) && path.is_dir() {
                    directories.extend(EnclaveDir::open(&path).ok());
                }
            }
        }
        directories.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(directories)
    }

    /// The enclave of this name.
    pub(crate) fn find(&self, name: &str) -> Result<EnclaveDir> {
        let missing = || {
            Error::operator(format!("no enclave named {}", crate::output::printable(name)))
                .hint("`host-sleeve ps` lists them")
        };
        values::name(name).map_err(|_| missing())?;
        let path = self.places().map(|place| place.join(name)).find(|path| path.is_dir());
        EnclaveDir::open(&path.ok_or_else(missing)?)
    }

    /// Claims a name for a new enclave: the requested one, or `base` with the first free number.
    pub(crate) fn claim(&self, requested: Option<&str>, base: &str, replace: bool) -> Result<EnclaveDir> {
        if let Some(name) = requested {
            return match self.claim_name(name, replace)? {
                Claim::Taken(directory) => Ok(*directory),
                Claim::Running => Err(Error::operator(format!("an enclave named {name} is running"))
                    .hint(format!("choose another --name, or `host-sleeve stop {name}` first"))),
                Claim::Busy(error) => Err(error),
                Claim::Ended => Err(Error::operator(format!("an ended enclave has the name {name}"))
                    .hint(format!("add --replace, or `host-sleeve rm {name}` first"))),
            };
        }
        for number in 1_u32.. {
            if let Claim::Taken(directory) = self.claim_name(&numbered(base, number), false)? {
                return Ok(*directory);
            }
        }
        Err(Error::operator("no name is free")
            .hint("`host-sleeve rm --all` deletes the records of ended enclaves"))
    }

    /// Claims this name, unless one of the former directories contains an enclave with it.
    fn claim_name(&self, name: &str, replace: bool) -> Result<Claim> {
        values::name(name).map_err(|why| {
            Error::operator(format!("{} is not a valid enclave name", crate::output::printable(name)))
                .because(std::io::Error::other(why))
                .hint("choose another --name")
        })?;
        for path in self.former.iter().map(|place| place.join(name)).filter(|path| path.is_dir()) {
            let directory = EnclaveDir::open(&path)?;
            if directory.is_alive() {
                return Ok(Claim::Running);
            }
            if !replace {
                return Ok(Claim::Ended);
            }
            directory.remove(false)?;
        }
        EnclaveDir::claim(&self.path.join(name), replace)
    }

    /// The directories of the oldest ended enclaves whose names are `base` and a number, beyond the number that is retained.
    pub(crate) fn surplus(&self, base: &str) -> Vec<EnclaveDir> {
        let is_numbered = |name: &str| {
            let number = name.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
            number.is_some_and(|number| numbered(base, number) == name)
        };
        let mut ended: Vec<Record> = self
            .list()
            .unwrap_or_default()
            .into_iter()
            .filter(|(name, _)| is_numbered(name))
            .filter_map(|(_, seen)| seen.ok().filter(|seen| !seen.alive).map(|seen| seen.record))
            .collect();
        ended.sort_by_key(|record| std::cmp::Reverse(record.created_ms));
        ended.iter().skip(KEEP_ENDED).filter_map(|old| self.find(&old.name).ok()).collect()
    }
}

/// The name with this number. A long `base` is truncated, so that the result is a valid name.
fn numbered(base: &str, number: u32) -> String {
    let suffix = format!("-{number}");
    let space = MAX_NAME.saturating_sub(suffix.len());
    let truncated: String = base.chars().take(space).collect();
    format!("{}{suffix}", truncated.trim_end_matches('-'))
}

fn refuse_foreign(path: &Path) -> Result<()> {
    let facts =
        fs::symlink_metadata(path).context(|| format!("cannot read the metadata of {}", path.display()))?;
    let ours =
        facts.is_dir() && facts.uid() == rustix::process::geteuid().as_raw() && facts.mode() & 0o022 == 0;
    if ours {
        return Ok(());
    }
    Err(Error::host(format!("{} is not a directory that only this user can write to", path.display())).hint(
        format!("check who created it; then run `chmod go-w` on it, or set {VARIABLE} to another directory"),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::process::ProcessId;
    use super::super::record::tests::launched;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloister");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Root::at(&path).unwrap_err().to_string().contains("only this user"));
    }

    #[test]
    fn a_symbolic_link_in_place_of_the_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloister");
        std::os::unix::fs::symlink(dir.path(), &path).unwrap();
        assert!(Root::at(&path).is_err());
    }

    #[test]
    fn names_are_numbered_and_never_shared() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(&dir.path().join("run")).unwrap();
        let first = root.claim(None, "web", false).unwrap();
        let second = root.claim(None, "web", false).unwrap();
        assert_eq!((first.name(), second.name()), ("web-1", "web-2"));
        let refused = || root.claim(Some("web-1"), "web", true).unwrap_err().to_string();
        assert!(refused().contains("is being launched or removed"), "{}", refused());
        first.writer().write(0, &Record { sleeve: ProcessId::own(), ..launched("web-1") }).unwrap();
        assert!(refused().contains("is running"), "{}", refused());
    }

    #[test]
    fn the_oldest_of_many_ended_enclaves_are_surplus_and_those_named_by_the_user_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(&dir.path().join("run")).unwrap();
        let many = u64::try_from(KEEP_ENDED).unwrap() + 2;
        for created_ms in 1..=many {
            let directory = root.claim(None, "web", false).unwrap();
            directory.writer().write(0, &Record { created_ms, ..launched(directory.name()) }).unwrap();
        }
        let named = root.claim(Some("mine"), "web", false).unwrap();
        named.writer().write(0, &Record { created_ms: 0, ..launched("mine") }).unwrap();
        drop(named);
        let surplus: Vec<String> =
            root.surplus("web").iter().map(|directory| directory.name().to_owned()).collect();
        assert_eq!(surplus, ["web-2", "web-1"]);
    }

    #[test]
    fn an_enclave_with_the_longest_name_that_a_manifest_allows_is_listed_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(&dir.path().join("run")).unwrap();
        for length in [60, 61, 62, 63] {
            let base = format!("{}-x", "a".repeat(length - 2));
            for _ in 0..11 {
                let directory = root.claim(None, &base, false).unwrap();
                directory.writer().write(0, &launched(directory.name())).unwrap();
                assert!(values::name(directory.name()).is_ok(), "{}", directory.name());
                assert_eq!(root.find(directory.name()).unwrap().path(), directory.path());
            }
        }
        assert_eq!(root.list().unwrap().len(), 44);
        assert!(root.claim(Some(&"a".repeat(64)), "a", false).is_err());
    }

    #[test]
    fn enclaves_of_an_earlier_version_are_found_where_they_were_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let former = Root::at(&dir.path().join("former")).unwrap();
        let old = former.claim(Some("web"), "web", false).unwrap();
        old.writer().write(0, &launched("web")).unwrap();
        let mut root = Root::at(&dir.path().join("now")).unwrap();
        root.former = vec![former.path().to_owned()];
        assert_eq!(root.list().unwrap().first().unwrap().0, "web");
        assert_eq!(root.find("web").unwrap().path(), old.path());
        let taken =
            |replace| root.claim(Some("web"), "web", replace).map(|directory| directory.path().to_owned());
        assert!(taken(true).unwrap_err().to_string().contains("is running"));
        drop(old);
        assert!(taken(false).unwrap_err().to_string().contains("an ended enclave"));
        assert_eq!(taken(true).unwrap(), root.path().join("web"));
        assert!(former.list().unwrap().is_empty());
    }

    #[test]
    fn a_name_that_leads_out_of_the_directory_finds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(&dir.path().join("run")).unwrap();
        assert!(root.find("../run").is_err());
    }
}
