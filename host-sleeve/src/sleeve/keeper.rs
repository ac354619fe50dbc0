//! The directory of a running enclave: kept up to date, and recreated if it was removed.
//!
//! Invariant: writing the record never delays the enclave, and a running enclave can always be found. If its directory is
//! removed, by the end of a session or by a person cleaning up, its logs are lost and the enclave keeps running.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::error::{Error, Result};
use crate::output;
use crate::state::{EnclaveDir, Record, RecordWriter, Root};

use crate::client::SOCKET;

/// The minimum time between two writes of the record, which bounds the cost of an enclave that changes its state all the time.
const WRITE_PAUSE: Duration = Duration::from_millis(20);

/// The pause between two checks of the directory: as long as an operator may wait for `ps` to show an enclave again. A
/// check takes a handful of system calls.
const CHECK_PAUSE: Duration = Duration::from_secs(5);

/// What is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Write the record.
    Write,
    /// Check whether the directory is in place.
    Check,
}

/// Maintains an enclave's directory.
#[derive(Debug)]
pub(super) struct Keeper {
    root: Root,
    directory: EnclaveDir,
    writer: RecordWriter,
    /// The number of the last record.
    number: u64,
    /// The write in progress, if any.
    writes: JoinSet<Result<()>>,
    write_at: Option<Instant>,
    last_write: Instant,
    check_at: Instant,
    /// Whether the last write or the last restoration failed: a failure is reported once.
    failing: bool,
    /// Directories that were removed, kept open: the machine's sockets are reached through them.
    lost: Vec<EnclaveDir>,
}

impl Keeper {
    /// Maintains `directory`, which is locked and is in `root`.
    pub(super) fn new(root: Root, directory: EnclaveDir) -> Self {
        let now = Instant::now();
        Self {
            writer: directory.writer(),
            root,
            directory,
            number: 0,
            writes: JoinSet::new(),
            write_at: None,
            last_write: now,
            check_at: now + CHECK_PAUSE,
            failing: false,
            lost: Vec::new(),
        }
    }

    /// The current directory.
    pub(super) const fn directory(&self) -> &EnclaveDir {
        &self.directory
    }

    /// Stops maintaining the directory and returns it.
    pub(super) fn into_directory(self) -> EnclaveDir {
        self.directory
    }

    /// Schedules a write of the record.
    pub(super) fn changed(&mut self) {
        self.write_at.get_or_insert(Instant::now().max(self.last_write + WRITE_PAUSE));
    }

    /// Waits until something is due. Cancel safe.
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
            // If another process has taken the lock meanwhile, the record belongs to its enclave.
            return if writes && self.directory.lock_is_in_place() { Due::Write } else { Due::Check };
        }
    }

    /// Writes the record, and waits until it is on the disk. If the directory was removed, the check that recreates it writes
    /// the record.
    pub(super) fn write(&mut self, record: &Record) {
        if !self.directory.lock_is_in_place() {
            self.changed();
            return;
        }
        self.write_at = None;
        self.last_write = Instant::now();
        self.number = self.number.saturating_add(1);
        let written = self.writer.write(self.number, record);
        self.report(&written);
    }

    /// Writes the last record, which states how the enclave ended. A failure is reported even if earlier ones were: without that
    /// record, `ps` shows the enclave as killed.
    pub(super) fn write_end(&mut self, record: &Record) {
        self.failing = false;
        self.write(record);
        if self.failing || self.write_at.is_some() {
            let name = &record.name;
            output::note(&format!(
                "warning: how {name} ended could not be recorded: `ps --all` will show that its sleeve died"
            ));
        }
    }

    /// Writes the record in the background: a write takes milliseconds, and on a busy disk longer than connections wait.
    pub(super) fn write_in_background(&mut self, record: Record) {
        self.write_at = None;
        self.last_write = Instant::now();
        self.number = self.number.saturating_add(1);
        let (writer, number) = (self.writer.clone(), self.number);
        self.writes.spawn_blocking(move || writer.write(number, &record));
    }

    /// Checks whether the directory is in place, and recreates it if not. Returns whether it did.
    pub(super) fn check(&mut self) -> bool {
        self.check_at = Instant::now() + CHECK_PAUSE;
        if self.directory.is_in_place(&[SOCKET]) {
            return false;
        }
        // A write that waits for the directory waits for the next check if this one cannot restore it.
        self.write_at = self.write_at.map(|at| at.max(self.check_at));
        match self.directory.restore(&self.root) {
            Ok(restored) => {
                if let Some(directory) = restored {
                    self.writer = directory.writer();
                    self.lost.push(std::mem::replace(&mut self.directory, directory));
                }
                true
            }
            Err(error) => {
                self.report(&Err(error));
                false
            }
        }
    }

    /// Reports a failure once. A full disk makes the record stale; it does not end the enclave.
    fn report(&mut self, done: &Result<()>) {
        if let (Err(error), false) = (done, self.failing) {
            output::error(error);
        }
        self.failing = done.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::state::full_disk;
    use crate::state::process::ProcessId;
    use crate::state::record::tests::launched;

    fn keeper(dir: &std::path::Path) -> Keeper {
        let root = Root::at(&dir.join("state")).unwrap();
        let directory = root.claim(Some("web"), "web", false).unwrap();
        let mut keeper = Keeper::new(root, directory);
        keeper.write(&Record { sleeve: ProcessId::own(), ..launched("web") });
        std::fs::write(keeper.directory().file(SOCKET), "").unwrap();
        keeper
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_written_soon_and_the_directory_is_checked_periodically() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(dir.path());
        keeper.changed();
        assert_eq!(keeper.due().await, Due::Write);
        keeper.write_in_background(Record { cpus: 7, ..launched("web") });
        assert_eq!(keeper.due().await, Due::Check);
        assert!(!keeper.check());
        let seen = keeper.directory().seen().unwrap().unwrap();
        assert_eq!(seen.record.cpus, 7);
    }

    #[tokio::test]
    async fn a_removed_directory_is_recreated_under_its_name_or_under_a_free_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(dir.path());
        std::fs::remove_dir_all(dir.path().join("state")).unwrap();
        assert!(keeper.check());
        assert_eq!(keeper.directory().path(), dir.path().canonicalize().unwrap().join("state/web"));
        assert!(keeper.directory().is_alive());
        std::fs::remove_dir_all(keeper.directory().path()).unwrap();
        let root = Root::at(&dir.path().join("state")).unwrap();
        let other = root.claim(Some("web"), "web", false).unwrap();
        other.writer().write(0, &launched("web")).unwrap();
        assert!(keeper.check());
        assert_eq!(keeper.directory().name(), "web-1");
    }

    /// What is printed meanwhile, in a process that prints nothing else.
    fn printed(write: impl FnOnce()) -> String {
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        output::divert(move |line| sink.lock().unwrap().extend_from_slice(line));
        write();
        let text = std::mem::take(&mut *text.lock().unwrap());
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn an_end_that_cannot_be_recorded_is_reported_even_after_earlier_failures() {
        let name = "an_end_that_cannot_be_recorded_is_reported_even_after_earlier_failures";
        if !full_disk::is_alone(module_path!(), name) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(dir.path());
        let record = keeper.directory().file("state.json");
        std::fs::remove_file(&record).unwrap();
        std::fs::create_dir(&record).unwrap();
        assert!(printed(|| keeper.write(&launched("web"))).starts_with("error: "));
        assert_eq!(printed(|| keeper.write(&launched("web"))), "", "reported twice");
        let reported = printed(|| keeper.write_end(&launched("web")));
        assert!(reported.starts_with("error: ") && reported.contains("how web ended"), "{reported}");
        std::fs::remove_dir(&record).unwrap();
        assert_eq!(printed(|| keeper.write_end(&Record { cpus: 7, ..launched("web") })), "");
        assert_eq!(keeper.directory().seen().unwrap().unwrap().record.cpus, 7);
    }

    #[tokio::test]
    async fn a_removed_lock_is_taken_again_and_nothing_else_changes() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(dir.path());
        std::fs::remove_file(keeper.directory().file("lock")).unwrap();
        assert!(keeper.check());
        assert!(keeper.directory().is_in_place(&[SOCKET]) && !keeper.check());
        assert_eq!(keeper.directory().name(), "web");
        let other = EnclaveDir::open(keeper.directory().path()).unwrap();
        assert!(other.is_locked() && other.seen().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_directory_that_another_enclave_has_taken_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = keeper(dir.path());
        for file in ["lock", "state.json", SOCKET] {
            std::fs::remove_file(keeper.directory().file(file)).unwrap();
        }
        let root = Root::at(&dir.path().join("state")).unwrap();
        let other = root.claim(Some("web"), "web", false).unwrap();
        keeper.changed();
        assert_eq!(
            keeper.due().await,
            Due::Check,
            "a record must not be written into what may be another enclave's directory"
        );
        keeper.write(&launched("not-mine"));
        assert!(!other.has("state.json"));
        assert!(!keeper.check(), "another process may be probing the lock");
        // The other enclave's sleeve, which is another process, writes its record.
        let mut sleeve = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        other.writer().write(0, &Record { sleeve: ProcessId::of(sleeve.id()), ..launched("web") }).unwrap();
        assert!(keeper.check());
        assert_eq!(keeper.directory().name(), "web-1");
        keeper.write(&Record { cpus: 7, ..launched("web-1") });
        assert_ne!(other.seen().unwrap().unwrap().record.cpus, 7);
        sleeve.kill().unwrap();
        sleeve.wait().unwrap();
    }
}
