//! Corrects the date by a clock that the enclave trusts.
//!
//! Invariant: only on Nitro, whose hypervisor the enclave trusts; elsewhere that clock is the host's, and nothing corrects the date. It
//! is set at most once, before the first service starts, never later, and changes by at most 500 millionths from then on. What is decided is in
//! [`cloister_clock`].

use std::io;
use std::mem::{Discriminant, discriminant};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloister_clock::{Correction, Date, Discipline, PERIOD, Reading, Refusal, SourceLimits};
use cloister_sys::adjust;
use cloister_sys::platform::Platform;
use cloister_sys::ptp::{Ptp, Sample};
use cloister_wire::control::{Time, TimeSource};
use rustix::time::Timespec;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Moment;
use crate::launcher::Event;
use crate::logs::Shared;
use crate::status::Board;

/// The clock of the Nitro hypervisor. A reading is one call of the hypervisor, some microseconds; one that took longer than a
/// millisecond was interrupted. AWS keeps its hosts' clocks within a millisecond of UTC (Amazon Time Sync) and says nothing about
/// that of an enclave's hypervisor: ten times that is assumed.
const LIMITS: SourceLimits =
    SourceLimits { max_round_trip: Duration::from_millis(1), error: Duration::from_millis(10) };

/// How often the clock is read, at once, until a reading can be used and the date is set. Afterwards services run, and a date that
/// is far off stays far off: one interruption must not cause that. A reading takes microseconds, so no boot is delayed.
const ATTEMPTS: u32 = 5;

/// A clock to read, and the date to correct by it.
pub trait Clock: Send + 'static {
    /// Reads the clock and the date in turns.
    ///
    /// # Errors
    /// If the clock does not respond.
    fn read(&self) -> io::Result<Vec<Sample>>;

    /// Corrects the date.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn correct(&self, correction: Correction) -> io::Result<()>;
}

impl Clock for Ptp {
    fn read(&self) -> io::Result<Vec<Sample>> {
        Self::read(self)
    }

    fn correct(&self, correction: Correction) -> io::Result<()> {
        match correction {
            Correction::Step(offset) => adjust::step(offset.nanos()),
            Correction::Slew(offset) => adjust::slew(offset.nanos()),
        }
    }
}

/// The clock that may correct the date of the machine whose root directory is `root`; `None` if there is none.
///
/// # Errors
/// If it cannot be opened.
pub fn trusted_clock(root: &Path) -> io::Result<Option<Ptp>> {
    match Platform::detect(root) {
        Ok(Platform::Nitro) => Ptp::open(root),
        _ => Ok(None),
    }
}

/// Corrects the date now, and from then on regularly, if there is a clock for that. `may_step`: no service has started yet. A tick in
/// `events` makes the core publish that the date is trusted, or no longer.
///
/// A clock that cannot be opened leaves the date untrusted: that is no reason to end the supervisor, and with it the machine.
pub(crate) fn start<C: Clock>(
    clock: io::Result<Option<C>>,
    board: &Arc<Board>,
    logs: &Shared,
    may_step: bool,
    events: UnboundedSender<Event>,
) {
    match clock {
        Ok(Some(clock)) => keep(clock, board, logs.clone(), may_step, events),
        Ok(None) => {}
        Err(error) => {
            logs.log(None, &format!("the date is not trusted: cannot open the hypervisor's clock: {error}"));
        }
    }
}

fn keep<C: Clock>(
    clock: C,
    board: &Arc<Board>,
    logs: Shared,
    may_step: bool,
    events: UnboundedSender<Event>,
) {
    let discipline = Arc::new(Mutex::new(Discipline::new(LIMITS, may_step)));
    let shared = Arc::clone(&discipline);
    board.keep_time(move |uncorrected| {
        time(&shared.lock().unwrap_or_else(PoisonError::into_inner), uncorrected)
    });
    let mut keeper = Keeper { clock, discipline, events, last: None };
    keeper.first_rounds(board, &logs);
    let board = Arc::clone(board);
    drop(tokio::spawn(async move {
        let mut rounds = interval(PERIOD);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is immediate; its round is done.
        rounds.tick().await;
        loop {
            rounds.tick().await;
            keeper.round(&board, &logs);
        }
    }));
}

/// How far the date can be trusted now.
fn time(discipline: &Discipline, uncorrected: Time) -> Time {
    let now = since_boot();
    let Some(bound) = discipline.bound(now) else { return uncorrected };
    let bound_ms = u64::try_from(bound.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    Time { trusted: discipline.is_trusted(now), source: TimeSource::Ptp, bound_ms: Some(bound_ms) }
}

fn since_boot() -> Duration {
    Moment::now().since(Moment::default())
}

/// The state between two rounds.
struct Keeper<C> {
    clock: C,
    discipline: Arc<Mutex<Discipline>>,
    /// To the core, after a change.
    events: UnboundedSender<Event>,
    /// What the log contains already: the trust, and the kind of the last round's error.
    last: Option<(bool, Option<Kind>)>,
}

/// Which error it was, without its numbers: those differ each time, and one line a minute would fill the log.
type Kind = (Discriminant<RoundError>, Option<Discriminant<Refusal>>);

/// Why a round changed nothing.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("cannot read the hypervisor's clock: {0}")]
    Read(io::Error),
    #[error("the hypervisor's clock returned an invalid time")]
    Malformed,
    #[error("the hypervisor's clock was not used: {0}")]
    Refused(Refusal),
    #[error("cannot correct the date: {0}")]
    Correct(io::Error),
}

impl RoundError {
    fn kind(&self) -> Kind {
        let refusal = if let Self::Refused(refusal) = self { Some(discriminant(refusal)) } else { None };
        (discriminant(self), refusal)
    }
}

impl<C: Clock> Keeper<C> {
    /// Rounds until one succeeds. From then on services run.
    fn first_rounds(&mut self, board: &Board, logs: &Shared) {
        for _ in 0..ATTEMPTS {
            if self.round(board, logs) {
                break;
            }
        }
        self.discipline.lock().unwrap_or_else(PoisonError::into_inner).end_steps();
    }

    /// Reads, decides and corrects; returns whether that succeeded. What changed is logged and published.
    fn round(&mut self, board: &Board, logs: &Shared) -> bool {
        let mut discipline = self.discipline.lock().unwrap_or_else(PoisonError::into_inner);
        let corrected = correct(&self.clock, &mut discipline);
        let trusted = discipline.is_trusted(since_boot());
        drop(discipline);
        if let Ok(Correction::Step(offset)) = corrected {
            logs.log(
                None,
                &format!("date set by the hypervisor's clock: {} ms added", offset.nanos() / 1_000_000),
            );
        }
        let succeeded = corrected.is_ok();
        let error = corrected.err();
        let now = (trusted, error.as_ref().map(RoundError::kind));
        if self.last.as_ref() == Some(&now) {
            return succeeded;
        }
        if let Some(error) = error {
            logs.log(None, &error.to_string());
        }
        if self.last.as_ref().is_none_or(|last| last.0 != trusted) {
            logs.log(None, if trusted { "the date is trusted" } else { "the date is not trusted" });
            board.time_changed();
            // If the core is gone, so is this supervisor.
            self.events.send(Event::Tick).unwrap_or_default();
        }
        self.last = Some(now);
        succeeded
    }
}

fn correct<C: Clock>(clock: &C, discipline: &mut Discipline) -> Result<Correction, RoundError> {
    let samples = clock.read().map_err(RoundError::Read)?;
    let readings: Option<Vec<Reading>> = samples.iter().map(reading).collect();
    let readings = readings.ok_or(RoundError::Malformed)?;
    let decision = discipline.decide(&readings, since_boot()).map_err(RoundError::Refused)?;
    clock.correct(decision.correction()).map_err(RoundError::Correct)?;
    discipline.performed(&decision);
    Ok(decision.correction())
}

fn reading([before, source, after]: &Sample) -> Option<Reading> {
    let date = |time: &Timespec| Date::from_parts(time.tv_sec, time.tv_nsec);
    Some(Reading { before: date(before)?, source: date(source)?, after: date(after)? })
}

#[cfg(test)]
mod tests;
