//! The folder of one enclave.
//!
//! Its law: only the holder of the lock writes here, unless the record names another process that runs: a lock file can
//! be removed, and who then takes a new one is not the holder. Sockets are reached through the open folder, so that no
//! path is too long for `sun_path` (108 bytes, unix(7)).

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Doing, Error, Result};

use super::Root;
use super::process::ProcessId;
use super::record::{Record, Seen, Traces};
use super::write::Pen;

/// The longest record that is read: a status is one frame, and the rest is small.
const MAX_RECORD: u64 = 1024 * 1024;

/// Whoever asks whether the lock is held holds it shared for some microseconds: one that is held longer is a sleeve's.
const LOCK_TRIES: u32 = 5;

/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// How long a sleeve may take to end after it has released its lock, or was killed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The record's name.
pub(super) const RECORD: &str = "state.json";
const LOCK: &str = "lock";

/// One enclave's folder, open.
#[derive(Debug)]
pub(crate) struct Folder {
    name: String,
    path: PathBuf,
    dir: File,
    lock: Option<File>,
}

/// What came of asking for a folder.
#[derive(Debug)]
pub(crate) enum Claim {
    /// It is ours, empty and locked.
    Taken(Box<Folder>),
    /// A sleeve holds it.
    Running,
    /// It keeps what is left of an ended enclave.
    Ended,
}

impl Folder {
    /// Opens the folder without its lock.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let dir = File::open(path).doing(|| format!("cannot open {}", path.display()))?;
        Ok(Self { name, path: path.to_owned(), dir, lock: None })
    }

    /// Takes the folder for a new enclave: makes it, or takes over what an ended one left if `replace` is set.
    pub(crate) fn claim(path: &Path, replace: bool) -> Result<Claim> {
        loop {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).doing(|| format!("cannot make {}", path.display()));
                }
                _ => {}
            }
            let locked = Self::open(path).and_then(Self::into_locked);
            let Some(folder) = locked.inspect_err(|_| forget_empty(path))? else {
                return Ok(Claim::Running);
            };
            if !folder.lock_is_in_place() {
                continue; // removed by another between our open and our lock
            }
            if folder.bytes()?.is_some() && !replace {
                return Ok(Claim::Ended);
            }
            folder.clear()?;
            return Ok(Claim::Taken(Box::new(folder)));
        }
    }

    /// The enclave's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The folder's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What writes the record.
    pub(crate) fn pen(&self) -> Pen {
        Pen::new(self.path.clone())
    }

    /// Whether the folder is still the one at its path, with the lock that is held and with these files in it.
    pub(crate) fn is_in_place(&self, files: &[&str]) -> bool {
        self.is_at_its_path()
            && self.lock_is_in_place()
            && self.file(RECORD).exists()
            && files.iter().all(|file| self.file(file).exists())
    }

    /// Makes a running enclave findable again whose folder or lock was removed. `None`: this folder will do. Otherwise
    /// another one: of the same name, or of one that is free if that was taken meanwhile.
    pub(crate) fn regain(&self, root: &Root) -> Result<Option<Self>> {
        if !self.is_at_its_path() {
            let root = Root::at(root.path())?;
            let same = root.claim(Some(&self.name), &self.name, false);
            return same.or_else(|_| root.claim(None, &self.name, false)).map(Some);
        }
        if self.lock_is_in_place() {
            return Ok(None);
        }
        let locked = Self::open(&self.path)?.into_locked()?;
        locked.map(Some).ok_or_else(|| {
            Error::host(format!("another process has taken the lock of {}", self.name))
                .hint(format!("only host-sleeve should write into {}", self.path.display()))
        })
    }

    /// Whether the path leads to this folder.
    fn is_at_its_path(&self) -> bool {
        let (opened, named) = (self.dir.metadata(), fs::symlink_metadata(&self.path));
        opened.is_ok_and(|facts| named.is_ok_and(|now| (now.dev(), now.ino()) == (facts.dev(), facts.ino())))
    }

    /// The path of something in the folder, for programs that start in it or need no short path.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A short path of a socket in the folder. It is valid in this process while the folder is open.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()))
    }

    /// The record and whether its sleeve lives; `None` while the enclave is being claimed or removed.
    pub(crate) fn seen(&self) -> Result<Option<Seen>> {
        // The lock is asked first: a sleeve that ends in between has written its end before it let go of the lock.
        let locked = self.lock.is_some() || self.is_locked();
        let Some(bytes) = self.bytes()? else {
            return Ok(None);
        };
        let alive = locked || Traces::of(&bytes).sleeve.is_some();
        Ok(Some(Seen { record: Record::from_bytes(&bytes, &self.name)?, alive }))
    }

    /// Whether the enclave's sleeve lives, as far as the lock and a record of any version can say.
    pub(crate) fn is_alive(&self) -> bool {
        self.lock.is_some() || self.is_locked() || self.sleeve().is_some()
    }

    /// The process of the sleeve, if the record names one that runs.
    pub(crate) fn sleeve(&self) -> Option<ProcessId> {
        self.traces().sleeve
    }

    /// [`Self::seen`], for one that must be there.
    pub(crate) fn must_see(&self) -> Result<Seen> {
        self.seen()?.ok_or_else(|| {
            Error::operator(format!("the enclave {} is only being launched, or removed", self.name))
                .hint("try again in a moment")
        })
    }

    /// Removes the folder of an ended enclave, and first what its sleeve may have left running.
    pub(crate) fn remove(self) -> Result<()> {
        let name = self.name.clone();
        let Some(folder) = self.into_locked()? else {
            return Err(Error::operator(format!("the enclave {name} is running"))
                .hint(format!("`host-sleeve stop {name}` first, or use rm --force")));
        };
        folder.remove_locked()
    }

    /// Removes the folder that this process holds.
    pub(crate) fn remove_locked(self) -> Result<()> {
        self.clear()?;
        let doing = || format!("cannot remove {}", self.path.display());
        fs::remove_file(self.file(LOCK)).doing(doing)?;
        fs::remove_dir(&self.path).doing(doing)
    }

    /// Whether some process holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        let Ok(lock) = File::open(self.file(LOCK)) else {
            return false;
        };
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Waits until the sleeve has ended.
    pub(crate) fn wait_end(&self) {
        if let Ok(lock) = File::open(self.file(LOCK)) {
            // An error means that nobody holds it for ever, which is all that matters here.
            drop(lock.lock_shared());
        }
        // Where the lock file was removed, the process itself tells. One that has written its end is not looked for.
        if let Some(sleeve) = self.sleeve() {
            sleeve.wait(END_LIMIT);
        }
    }

    /// Kills the sleeve that the record names, and with it, by the kernel, its machine. Answers whether it has ended.
    pub(crate) fn kill_sleeve(&self) -> bool {
        self.sleeve().is_none_or(|sleeve| sleeve.kill() && sleeve.wait(END_LIMIT))
    }

    /// The folder with its lock, or nothing if the sleeve of another process lives.
    fn into_locked(mut self) -> Result<Option<Self>> {
        let path = self.file(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.doing(|| format!("cannot open {}", path.display()))?;
        for _ in 0..LOCK_TRIES {
            match lock.try_lock() {
                Ok(()) => {
                    let other = self.sleeve().filter(|sleeve| Some(*sleeve) != ProcessId::own());
                    self.lock = Some(lock);
                    return Ok(other.is_none().then_some(self));
                }
                Err(TryLockError::WouldBlock) => std::thread::park_timeout(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => {
                    return Err(error).doing(|| format!("cannot lock {}", path.display()));
                }
            }
        }
        Ok(None)
    }

    fn lock_is_in_place(&self) -> bool {
        let held = self.lock.as_ref().and_then(|lock| lock.metadata().ok()).map(|facts| facts.ino());
        let named = fs::metadata(self.file(LOCK)).ok().map(|facts| facts.ino());
        held.is_some() && held == named
    }

    /// Kills what a dead sleeve left, and removes everything but the lock.
    fn clear(&self) -> Result<()> {
        for process in self.traces().machine {
            process.kill();
        }
        let doing = || format!("cannot clear {}", self.path.display());
        for entry in fs::read_dir(&self.path).doing(doing)? {
            let entry = entry.doing(doing)?;
            if entry.file_name() != LOCK {
                fs::remove_file(entry.path()).doing(doing)?;
            }
        }
        Ok(())
    }

    fn traces(&self) -> Traces {
        self.bytes().ok().flatten().map(|bytes| Traces::of(&bytes)).unwrap_or_default()
    }

    /// The record as it is on the disk.
    fn bytes(&self) -> Result<Option<Vec<u8>>> {
        let path = self.file(RECORD);
        let doing = || format!("cannot read {}", path.display());
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.doing(doing)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_RECORD).read_to_end(&mut bytes).doing(doing)?;
        Ok(Some(bytes))
    }
}

/// Removes a folder that could not be taken, unless somebody else has begun with it: an empty one is no enclave, and `ps`
/// shows none.
fn forget_empty(path: &Path) {
    fs::remove_dir(path).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::launched;
    use super::*;

    fn taken(claim: Claim) -> Folder {
        match claim {
            Claim::Taken(folder) => *folder,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_lock_tells_whether_the_sleeve_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        let held = taken(Folder::claim(&path, false).unwrap());
        held.pen().write(0, &launched("web")).unwrap();
        let reader = Folder::open(&path).unwrap();
        assert!(reader.seen().unwrap().unwrap().alive);
        drop(held);
        assert!(!reader.seen().unwrap().unwrap().alive);
    }

    #[test]
    fn what_an_ended_enclave_left_is_taken_over_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        taken(Folder::claim(&path, false).unwrap()).pen().write(0, &launched("web")).unwrap();
        assert!(matches!(Folder::claim(&path, false).unwrap(), Claim::Ended));
        let again = taken(Folder::claim(&path, true).unwrap());
        assert!(again.seen().unwrap().is_none());
    }

    #[test]
    fn a_running_enclave_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        let held = taken(Folder::claim(&path, false).unwrap());
        assert!(Folder::open(&path).unwrap().remove().is_err());
        drop(held);
        Folder::open(&path).unwrap().remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_removed_lock_file_does_not_make_a_running_enclave_removable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        let held = taken(Folder::claim(&path, false).unwrap());
        let mut sleeve = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let record = Record { sleeve: ProcessId::of(sleeve.id()), ..launched("web") };
        held.pen().write(0, &record).unwrap();
        assert!(held.is_in_place(&[]));
        fs::remove_file(held.file(LOCK)).unwrap();
        assert!(!held.is_in_place(&[]), "its sleeve notices");
        assert!(matches!(Folder::claim(&path, true).unwrap(), Claim::Running));
        let other = Folder::open(&path).unwrap();
        assert!(other.seen().unwrap().unwrap().alive);
        assert!(Folder::open(&path).unwrap().remove().unwrap_err().to_string().contains("is running"));
        assert!(ProcessId::of(sleeve.id()).unwrap().exists(), "rm has killed a process of a running enclave");
        assert!(other.kill_sleeve());
        sleeve.wait().unwrap();
        other.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_was_removed_and_made_again_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        let held = taken(Folder::claim(&path, false).unwrap());
        held.pen().write(0, &launched("web")).unwrap();
        fs::remove_dir_all(&path).unwrap();
        assert!(!held.is_in_place(&[]));
        let again = taken(Folder::claim(&path, false).unwrap());
        again.pen().write(0, &launched("web")).unwrap();
        assert!(again.is_in_place(&[]) && !again.is_in_place(&["sleeve.sock"]) && !held.is_in_place(&[]));
    }

    #[test]
    fn a_socket_is_reached_from_a_path_of_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let folder = taken(Folder::claim(&deep.join("web"), false).unwrap());
        let _listener = std::os::unix::net::UnixListener::bind(folder.socket("sleeve.sock")).unwrap();
        assert!(folder.file("sleeve.sock").exists());
        std::os::unix::net::UnixStream::connect(folder.socket("sleeve.sock")).unwrap();
    }

    #[test]
    fn a_record_half_written_by_a_broken_disk_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let folder = taken(Folder::claim(&dir.path().join("web"), false).unwrap());
        fs::write(folder.file(RECORD), b"{\"version\":1,").unwrap();
        assert!(folder.seen().is_err());
    }
}
