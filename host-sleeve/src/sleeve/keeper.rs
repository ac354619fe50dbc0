//! The folder of a running enclave, kept true to what is known and made again where it was lost.
//!
//! Its law: writing the record never holds up the enclave, and an enclave that runs can be found. Whoever removes its
//! folder, a session that ends or a person who tidies up, takes its logs and not its life.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::error::{Error, Result};
use crate::output;
use crate::state::{Folder, Pen, Record, Root};

use crate::client::SOCKET;

/// The shortest time between two writes of the record: an enclave that changes its state all the time costs no more.
const WRITE_PAUSE: Duration = Duration::from_millis(20);

/// The pause between two looks at the folder: as long as an operator may wait for `ps` to show an enclave again, and a
/// handful of system calls.
const CHECK_PAUSE: Duration = Duration::from_secs(5);

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Write the record.
    Write,
    /// See whether the folder is in place.
    Check,
}

/// Keeps a folder.
#[derive(Debug)]
pub(super) struct Keeper {
    root: Root,
    folder: Folder,
    pen: Pen,
    /// The number of the last record.
    number: u64,
    /// The write that is under way, if one is.
    writes: JoinSet<Result<()>>,
    write_at: Option<Instant>,
    last_write: Instant,
    check_at: Instant,
    /// Whether the last write or the last restoration failed: it is reported once.
    failing: bool,
    /// Folders that were lost. Sockets of the machine are reached through them.
    lost: Vec<Folder>,
}

impl Keeper {
    /// Keeps `folder`, which is locked and lies in `root`.
    pub(super) fn new(root: Root, folder: Folder) -> Self {
        let now = Instant::now();
        Self {
            pen: folder.pen(),
            root,
            folder,
            number: 0,
            writes: JoinSet::new(),
            write_at: None,
            last_write: now,
            check_at: now + CHECK_PAUSE,
            failing: false,
            lost: Vec::new(),
        }
    }

    /// The folder as it is now.
    pub(super) const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Ends the keeping.
    pub(super) fn into_folder(self) -> Folder {
        self.folder
    }

    /// The record is to be written soon.
    pub(super) fn changed(&mut self) {
        self.write_at.get_or_insert(Instant::now().max(self.last_write + WRITE_PAUSE));
    }

    /// Waits until something is due. Nothing is lost when this future is dropped.
    pub(super) async fn due(&mut self) -> Due {
        loop {
            let (write_at, check_at) = (self.write_at.unwrap_or(self.check_at), self.check_at);
            if let Some(written) = self.writes.join_next().await {
                self.report(
                    &written.unwrap_or_else(|error| {
                        Err(Error::host("the record was not written").because(error))
                    }),
                );
                continue;
            }
            time::sleep_until(write_at.min(check_at)).await;
            let writes = self.write_at.is_some() && write_at <= Instant::now();
            // What another has taken meanwhile is another's record.
            return if writes && self.folder.lock_is_in_place() { Due::Write } else { Due::Check };
        }
    }

    /// Writes the record, and waits until it is on the disk. In a folder that was lost it is written by the check that regains one.
    pub(super) fn write(&mut self, record: &Record) {
        if !self.folder.lock_is_in_place() {
            self.changed();
            return;
        }
        self.write_at = None;
        self.last_write = Instant::now();
        self.number = self.number.saturating_add(1);
        let written = self.pen.write(self.number, record);
        self.report(&written);
    }

    /// Writes the record beside everything else: a disk takes milliseconds, and a busy one more than connections wait.
    pub(super) fn write_beside(&mut self, record: Record) {
        self.write_at = None;
        self.last_write = Instant::now();
        self.number = self.number.saturating_add(1);
        let (pen, number) = (self.pen.clone(), self.number);
        self.writes.spawn_blocking(move || pen.write(number, &record));
    }

    /// Sees whether the folder is in place, and makes it again if not. Answers whether it had to.
    pub(super) fn check(&mut self) -> bool {
        self.check_at = Instant::now() + CHECK_PAUSE;
        if self.folder.is_in_place(&[SOCKET]) {
            return false;
        }
        // A write that waits for a folder waits for the next look, if this one does not find it.
        self.write_at = self.write_at.map(|at| at.max(self.check_at));
        match self.folder.regain(&self.root) {
            Ok(regained) => {
                if let Some(folder) = regained {
                    self.pen = folder.pen();
                    self.lost.push(std::mem::replace(&mut self.folder, folder));
                }
                true
            }
            Err(error) => {
                self.report(&Err(error));
                false
            }
        }
    }

    /// A disk that is full costs the outside its view, never the enclave its life.
    fn report(&mut self, done: &Result<()>) {
        if let (Err(error), false) = (done, self.failing) {
            output::error(error);
        }
        self.failing = done.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::process::ProcessId;
    use crate::state::record::tests::launched;

    fn keeper(dir: &std::path::Path) -> Keeper {
        let root = Root::at(&dir.join("state")).unwrap();
        let folder = root.claim(Some("web"), "web", false).unwrap();
        let mut keeper = Keeper::new(root, folder);
        keeper.write(&Record { sleeve: ProcessId::own(), ..launched("web") });
        std::fs::write(keeper.folder().file(SOCKET), "").unwrap();
        keeper
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_written_soon_and_the_folder_is_looked_at_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(dir.path());
        keeper.changed();
        assert_eq!(keeper.due().await, Due::Write);
        keeper.write_beside(launched("changed"));
        assert_eq!(keeper.due().await, Due::Check);
        assert!(!keeper.check());
        let seen = keeper.folder().seen().unwrap().unwrap();
        assert_eq!(seen.record.name, "changed");
    }

    #[tokio::test]
    async fn a_folder_that_was_removed_is_made_again_under_its_name_or_one_that_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(dir.path());
        std::fs::remove_dir_all(dir.path().join("state")).unwrap();
        assert!(keeper.check());
        assert_eq!(keeper.folder().path(), dir.path().canonicalize().unwrap().join("state/web"));
        assert!(keeper.folder().is_alive());
        std::fs::remove_dir_all(keeper.folder().path()).unwrap();
        let root = Root::at(&dir.path().join("state")).unwrap();
        let other = root.claim(Some("web"), "web", false).unwrap();
        other.pen().write(0, &launched("web")).unwrap();
        assert!(keeper.check());
        assert_eq!(keeper.folder().name(), "web-1");
    }

    #[tokio::test]
    async fn a_removed_lock_is_taken_again_and_nothing_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(dir.path());
        std::fs::remove_file(keeper.folder().file("lock")).unwrap();
        assert!(keeper.check());
        assert!(keeper.folder().is_in_place(&[SOCKET]) && !keeper.check());
        assert_eq!(keeper.folder().name(), "web");
        let other = Folder::open(keeper.folder().path()).unwrap();
        assert!(other.is_locked() && other.seen().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_folder_that_another_enclave_has_taken_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(dir.path());
        for file in ["lock", "state.json", SOCKET] {
            std::fs::remove_file(keeper.folder().file(file)).unwrap();
        }
        let root = Root::at(&dir.path().join("state")).unwrap();
        let other = root.claim(Some("web"), "web", false).unwrap();
        keeper.changed();
        assert_eq!(keeper.due().await, Due::Check, "a record is not written into what may be another's");
        keeper.write(&launched("not-mine"));
        assert!(!other.has("state.json"));
        assert!(!keeper.check(), "it may only be looked at");
        // As its own sleeve writes it, which is another process.
        let mut sleeve = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        other.pen().write(0, &Record { sleeve: ProcessId::of(sleeve.id()), ..launched("web") }).unwrap();
        assert!(keeper.check());
        assert_eq!(keeper.folder().name(), "web-1");
        keeper.write(&launched("web-1"));
        assert_eq!(other.seen().unwrap().unwrap().record.name, "web");
        sleeve.kill().unwrap();
        sleeve.wait().unwrap();
    }
}
