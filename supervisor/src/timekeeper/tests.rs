//! A clock of the tests' own in place of the hypervisor's; nothing corrects the date of the machine that runs them.

use std::sync::mpsc;

use rustix::time::{ClockId, clock_gettime};

use super::*;

/// A clock that differs from the date by so many seconds, or does not respond.
struct Fake {
    ahead: Option<i64>,
    nanos: i64,
    refuses: bool,
    corrections: mpsc::Sender<Correction>,
}

impl Clock for Fake {
    fn read(&self) -> io::Result<Vec<Sample>> {
        let ahead = self.ahead.ok_or(io::ErrorKind::TimedOut)?;
        let now = clock_gettime(ClockId::Realtime);
        let source = Timespec { tv_sec: now.tv_sec + ahead, tv_nsec: now.tv_nsec + self.nanos };
        Ok(vec![[now, source, now]])
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
    (Fake { ahead, nanos: 0, refuses: false, corrections }, corrected)
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
    assert_eq!(error(&wrong), "the hypervisor's clock states a value that is no time");
    let past = fake(Some(-1_000_000_000)).0;
    assert!(error(&past).starts_with("the hypervisor's clock was not used: it states "), "{}", error(&past));
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
