//! Runs scenarios side by side and tells how each ended.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Built, Lab};
use crate::scenarios;
use crate::story::{Failure, Outcome, Scenario};

/// Scenarios at once where `--jobs` says nothing: two cores are just enough for the two processors of one translated
/// guest, and more of them only wait for each other.
const JOBS: usize = 1;

/// Where `scripts/build` leaves the guest's programs, beside the folder that it fills.
const GUEST: &str = "x86_64-unknown-linux-musl/guest";

/// What the command line asks for.
#[derive(Debug)]
pub enum Plan {
    /// The usage.
    Help,
    /// The scenarios' names.
    List,
    /// To run.
    Run(Run),
    /// To soak, for this long.
    Soak(Built, Duration),
}

/// A run of scenarios.
#[derive(Debug)]
pub struct Run {
    built: Built,
    jobs: usize,
    names: Vec<String>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Stories that hold.
    pub passed: usize,
    /// Stories that do not.
    pub failed: usize,
    /// Stories that could not be told here.
    pub skipped: usize,
}

impl Plan {
    /// Reads the command line's words.
    pub fn from_words(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut dist, mut probe, mut inputs, mut guest) = (None, None, None, None);
        let (mut jobs, mut names) = (JOBS, Vec::new());
        let mut soak = None;
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(Self::Help),
                "--list" => return Ok(Self::List),
                "--dist" => dist = Some(PathBuf::from(value()?)),
                "--probe" => probe = Some(PathBuf::from(value()?)),
                "--inputs" => inputs = Some(PathBuf::from(value()?)),
                "--guest" => guest = Some(PathBuf::from(value()?)),
                "--jobs" => jobs = value()?.parse().map_err(|_| "--jobs wants a number".to_owned())?,
                "--soak" => soak = Some(minutes(&value()?)?),
                other if other.starts_with('-') => return Err(format!("there is no option {other}")),
                _ => names.push(word),
            }
        }
        let dist = dist.ok_or("--dist is missing: the folder that scripts/build fills")?;
        let probe = probe.ok_or("--probe is missing: the static guest half")?;
        let inputs = inputs.ok_or("--inputs is missing: the script that makes real images")?;
        let guest = guest.unwrap_or_else(|| dist.with_file_name(GUEST));
        let built = Built { dist, probe, guest, inputs };
        Ok(match soak {
            Some(time) => Self::Soak(built, time),
            None => Self::Run(Run { built, jobs: jobs.max(1), names }),
        })
    }
}

fn minutes(word: &str) -> Result<Duration, String> {
    let number: u64 = word.parse().map_err(|_| "--soak wants a number of minutes".to_owned())?;
    Ok(Duration::from_mins(number))
}

impl Run {
    /// Runs everything asked for, a line for each to `out` as it ends.
    pub fn all(&self, out: &mut impl Write) -> Report {
        let wanted: Vec<&Scenario> = scenarios::ALL.iter().filter(|s| self.wants(s.name)).collect();
        let next = AtomicUsize::new(0);
        let mut report = Report::default();
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                let tell = tell.clone();
                let (wanted, next) = (&wanted, &next);
                scope.spawn(move || self.worker(wanted, next, &tell));
            }
            drop(tell);
            for (name, outcome, took) in told {
                report.count(&outcome);
                // A reader that went away does not stop the run; the exit code still tells.
                drop(writeln!(out, "{}", line(name, &outcome, took)));
                drop(out.flush());
            }
        });
        report
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()))
    }

    fn worker(
        &self,
        wanted: &[&Scenario],
        next: &AtomicUsize,
        tell: &Sender<(&'static str, Outcome, Duration)>,
    ) {
        while let Some(scenario) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            let outcome = tell_story(scenario, &self.built);
            drop(tell.send((scenario.name, outcome, started.elapsed())));
        }
    }
}

impl Report {
    fn count(&mut self, outcome: &Outcome) {
        let counter = match outcome {
            Ok(()) => &mut self.passed,
            Err(Failure::Broken(_)) => &mut self.failed,
            Err(Failure::Skipped(_)) => &mut self.skipped,
        };
        *counter = counter.saturating_add(1);
    }

    /// Whether the gate may pass: nothing failed, something ran, and in CI nothing was skipped.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let skips_count = std::env::var_os("CI").is_some();
        self.failed == 0 && self.passed > 0 && (self.skipped == 0 || !skips_count)
    }

    /// The closing line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

fn tell_story(scenario: &Scenario, built: &Built) -> Outcome {
    let mut lab = Lab::new(scenario.name, built)?;
    let lab = Mutex::new(&mut lab);
    let told =
        std::panic::catch_unwind(|| (scenario.host)(&mut lab.lock().unwrap_or_else(PoisonError::into_inner)));
    told.unwrap_or_else(|_| Err(Failure::broken("the host half panicked; its words are above")))
}

fn line(name: &str, outcome: &Outcome, took: Duration) -> String {
    let seconds = took.as_secs_f32();
    match outcome {
        Ok(()) => format!("ok      {seconds:5.1} s  {name}"),
        Err(Failure::Skipped(why)) => format!("skipped {seconds:5.1} s  {name}: {why}"),
        Err(Failure::Broken(why)) => {
            format!("FAILED  {seconds:5.1} s  {name}\n{}", why.trim_end().replace('\n', "\n    "))
        }
    }
}
