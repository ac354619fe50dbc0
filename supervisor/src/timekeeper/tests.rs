//! A clock of the tests' own in place of the hypervisor's; nothing corrects the date of the machine that runs them.

use std::cell::Cell;
use std::sync::mpsc;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::logs::{Memfds, Store};

/// A clock that differs from the date by so many seconds, or does not respond.
struct Fake {
    ahead: Option<i64>,
    nanos: i64,
    /// How long the first reading takes; in nanoseconds; each takes a microsecond more than the one before.
    round_trip: Cell<i64>,
    /// How many reads fail before that.
    failures: Cell<u32>,
    refuses: bool,
    corrections: mpsc::Sender<Correction>,
}

impl Clock for Fake {
    fn read(&self) -> io::Result<Vec<Sample>> {
        if let Some(left) = self.failures.get().checked_sub(1) {
            self.failures.set(left);
            return Err(io::ErrorKind::Interrupted.into());
        }
        let ahead = self.ahead.ok_or(io::ErrorKind::TimedOut)?;
        let now = clock_gettime(ClockId::Realtime);
        let source = Timespec { tv_sec: now.tv_sec + ahead, tv_nsec: now.tv_nsec + self.nanos };
        let round_trip = self.round_trip.get();
        self.round_trip.set(round_trip + 1000);
        let nanos = now.tv_nsec + round_trip;
        let after = Timespec { tv_sec: now.tv_sec + nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
        Ok(vec![[now, source, after]])
    }

    fn correct(&self, correction: Correction) -> io::Result<()> {
        // A test that drops the other end does not look at corrections.
        self.corrections.send(correction).unwrap_or_default();
        if self.refuses { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

/// A fake that is `ahead` of the date, and what it is told to correct.
fn fake(ahead: Option<i64>) -> (Fake, mpsc::Receiver<Correction>) {
    let (corrections, corrected) = mpsc::channel();
    (
        Fake {
            ahead,
            nanos: 0,
            round_trip: Cell::new(0),
            failures: Cell::new(0),
            refuses: false,
            corrections,
        },
        corrected,
    )
}

const UNCORRECTED: Time = Time { trusted: false, source: TimeSource::Host, bound_ms: None };

fn error(clock: &Fake) -> String {
    let mut discipline = Discipline::new(LIMITS, true);
    let error = correct(clock, &mut discipline).unwrap_err().to_string();
    assert_eq!(time(&discipline, UNCORRECTED), UNCORRECTED);
    error
}

#[test]
fn a_date_that_was_corrected_is_trusted_and_has_a_bound() {
    let (clock, corrected) = fake(Some(90));
    let mut discipline = Discipline::new(LIMITS, true);
    assert_eq!(time(&discipline, UNCORRECTED), UNCORRECTED);
    correct(&clock, &mut discipline).unwrap();
    let Correction::Step(offset) = corrected.recv().unwrap() else { panic!("the date was not set") };
    assert_eq!(offset.magnitude(), Duration::from_secs(90));
    let now = time(&discipline, UNCORRECTED);
    assert_eq!((now.trusted, now.source), (true, TimeSource::Ptp));
    assert!(matches!(now.bound_ms, Some(10..=12)), "{now:?}");
}

#[test]
fn a_supervisor_that_was_restarted_does_not_set_the_date() {
    let (clock, corrected) = fake(Some(90));
    let mut discipline = Discipline::new(LIMITS, false);
    correct(&clock, &mut discipline).unwrap();
    assert!(matches!(corrected.recv().unwrap(), Correction::Slew(_)));
    let now = time(&discipline, UNCORRECTED);
    assert_eq!((now.trusted, now.source), (false, TimeSource::Ptp));
}

/// Starts with `clock`; returns where the result is published and logged.
fn start_with(clock: io::Result<Option<Fake>>) -> (Arc<Board>, Shared) {
    let memfds = Memfds { own: memfd_create("log", MemfdFlags::CLOEXEC).unwrap(), outputs: Vec::new() };
    let logs = Shared::new(Store::resume(Vec::new(), memfds, Moment::now()).unwrap());
    let board = Arc::new(Board::new("nitro".into(), Vec::new(), 0));
    let (events, _) = tokio::sync::mpsc::unbounded_channel();
    start(clock, &board, &logs, true, events);
    (board, logs)
}

/// Everything that was logged.
fn logged(logs: &Shared) -> String {
    let mut frames = Vec::new();
    logs.lock().frames(0, 64 * 1024, &mut frames).unwrap();
    String::from_utf8_lossy(&frames).into_owned()
}

#[tokio::test(start_paused = true)]
async fn the_date_is_set_before_services_start_and_then_corrected_every_minute() {
    let (clock, corrected) = fake(Some(3600));
    let (board, logs) = start_with(Ok(Some(clock)));
    assert!(board.has_new_time());
    assert!(matches!(corrected.try_recv(), Ok(Correction::Step(_))));
    assert!(board.time().trusted);
    assert!(logged(&logs).contains("3600000 ms added"), "{}", logged(&logs));
    tokio::time::sleep(PERIOD * 2 + PERIOD / 2).await;
    let later: Vec<Correction> = corrected.try_iter().collect();
    assert!(matches!(*later, [Correction::Slew(_), Correction::Slew(_)]), "{later:?}");
    // The fake is still an hour ahead: nothing has set the date of the machine that runs this.
    assert!(!board.time().trusted);
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_reading_is_repeated_before_services_start() {
    let (clock, corrected) = fake(Some(3600));
    clock.failures.set(ATTEMPTS - 1);
    let (board, _) = start_with(Ok(Some(clock)));
    assert!(matches!(corrected.try_recv(), Ok(Correction::Step(_))));
    assert!(board.time().trusted);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_responds_late_does_not_set_the_date_of_running_services() {
    let (clock, corrected) = fake(Some(3600));
    clock.failures.set(ATTEMPTS);
    let (board, _) = start_with(Ok(Some(clock)));
    assert!(corrected.try_recv().is_err());
    tokio::time::sleep(PERIOD + PERIOD / 2).await;
    let later: Vec<Correction> = corrected.try_iter().collect();
    assert!(matches!(*later, [Correction::Slew(_)]), "{later:?}");
    assert!(!board.time().trusted);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_failure_is_logged_once_even_if_its_numbers_differ() {
    let (clock, _) = fake(Some(1));
    clock.round_trip.set(2_000_000);
    let (_, logs) = start_with(Ok(Some(clock)));
    tokio::time::sleep(PERIOD * 10).await;
    let text = logged(&logs);
    assert_eq!(text.matches("was not used").count(), 1, "{text}");
}

#[test]
fn a_clock_that_cannot_be_opened_leaves_the_date_untrusted() {
    let (board, logs) = start_with(Err(io::ErrorKind::PermissionDenied.into()));
    assert!(!board.time().trusted);
    let line = "the date is not trusted: cannot open the hypervisor's clock: permission denied";
    assert!(logged(&logs).contains(line), "{}", logged(&logs));
}

#[test]
fn a_clock_that_cannot_be_used_leaves_the_date_uncorrected() {
    assert_eq!(error(&fake(None).0), "cannot read the hypervisor's clock: timed out");
    let refused = Fake { refuses: true, ..fake(Some(1)).0 };
    assert_eq!(error(&refused), "cannot correct the date: permission denied");
}

#[test]
fn values_that_are_no_times_are_refused() {
    // A second and more in nanoseconds: another unit.
    let wrong = Fake { nanos: 1_796_000_000_000, ..fake(Some(0)).0 };
    assert_eq!(error(&wrong), "the hypervisor's clock returned an invalid time");
    let past = fake(Some(-1_000_000_000)).0;
    assert!(
        error(&past).starts_with("the hypervisor's clock was not used: it returned "),
        "{}",
        error(&past)
    );
}

#[test]
fn the_clock_is_used_on_nitro_only() {
    let root = tempfile::tempdir().unwrap();
    let class = root.path().join("sys/class/ptp/ptp0");
    std::fs::create_dir_all(&class).unwrap();
    std::fs::create_dir(root.path().join("dev")).unwrap();
    std::fs::write(class.join("clock_name"), "KVM virtual PTP\n").unwrap();
    std::fs::write(root.path().join("dev/ptp0"), "").unwrap();
    for (device, trusted) in [("none", false), ("tdx_guest", false), ("nsm", true)] {
        let device = root.path().join("dev").join(device);
        std::fs::write(&device, "").unwrap();
        assert_eq!(trusted_clock(root.path()).unwrap().is_some(), trusted, "{}", device.display());
        std::fs::remove_file(device).unwrap();
    }
}
