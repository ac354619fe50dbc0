//! Runs scenarios side by side and tells how each ended.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Built, Lab};
use crate::scenarios;
use crate::story::{Failure, Need, Outcome, Scenario, Shared, Vsock};

/// Scenarios at once where `--jobs` says nothing, if the memory allows it. A boot keeps one processor busy and a host half
/// mostly waits, so two of them fill two cores; with more, the waits of one scenario become the time limits of another.
const JOBS: usize = 2;

/// Memory that must be available for each scenario, in KiB: the largest that is not run alone has a machine of 1 GiB, and its
/// QEMU and the build of its image need as much again.
const MEMORY_EACH: u64 = 2 << 20;

/// Where `scripts/build` leaves the guest's programs, beside the folder that it fills.
const GUEST: &str = "x86_64-unknown-linux-musl/guest";

/// What the command line asks for.
#[derive(Debug)]
pub enum Plan {
    /// The usage.
    Help,
    /// The names of the scenarios that are asked for.
    List(Choice),
    /// To run.
    Run(Run),
    /// To soak, for this long.
    Soak(Built, Duration),
}

/// A run of scenarios.
#[derive(Debug)]
pub struct Run {
    built: Built,
    /// Scenarios at once; what the memory allows if nothing was asked for.
    jobs: Option<usize>,
    choice: Choice,
}

/// Which scenarios are asked for.
#[derive(Debug)]
pub struct Choice {
    vsock: Vsock,
    lacks: Vec<Need>,
    /// Only scenarios that need this.
    only: Option<Need>,
    /// Parts of their names; none stands for all.
    names: Vec<String>,
}

/// What one worker does at a time.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// A scenario with a machine of its own.
    Own(&'a Scenario),
    /// Those that share one.
    Shared(&'a [&'static Shared]),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunReport {
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
        let (mut jobs, mut list, mut soak) = (None, false, None);
        let mut choice = Choice { vsock: Vsock::Program, lacks: Vec::new(), only: None, names: Vec::new() };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(Self::Help),
                "--list" => list = true,
                "--vsock" => choice.vsock = vsock(&value()?)?,
                "--lacks" => choice.lacks.push(need(&value()?)?),
                "--only" => choice.only = Some(need(&value()?)?),
                "--dist" => dist = Some(PathBuf::from(value()?)),
                "--probe" => probe = Some(PathBuf::from(value()?)),
                "--inputs" => inputs = Some(PathBuf::from(value()?)),
                "--guest" => guest = Some(PathBuf::from(value()?)),
                "--jobs" => jobs = Some(number_of_jobs(&value()?)?),
                "--soak" => soak = Some(minutes(&value()?)?),
                other if other.starts_with('-') => return Err(format!("there is no option {other}")),
                _ => choice.names.push(word),
            }
        }
        choice.check()?;
        if list {
            return Ok(Self::List(choice));
        }
        let dist = dist.ok_or("--dist is missing: the folder that scripts/build fills")?;
        let probe = probe.ok_or("--probe is missing: the static guest half")?;
        let inputs = inputs.ok_or("--inputs is missing: the script that makes real images")?;
        let guest = guest.unwrap_or_else(|| dist.with_file_name(GUEST));
        let built = Built { dist, probe, guest, inputs, vsock: choice.vsock };
        Ok(match soak {
            Some(time) => Self::Soak(built, time),
            None => Self::Run(Run { built, jobs, choice }),
        })
    }
}

fn number_of_jobs(word: &str) -> Result<usize, String> {
    word.parse().ok().filter(|jobs| *jobs > 0).ok_or_else(|| "--jobs wants a number from 1 on".to_owned())
}

/// How many scenarios fit into the available memory at once, at least one and at most [`JOBS`]. `meminfo` is the text of
/// `/proc/meminfo` (proc(5)).
fn jobs_for(meminfo: &str) -> usize {
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = available.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.and_then(|kib| usize::try_from(kib / MEMORY_EACH).ok()).unwrap_or(1).clamp(1, JOBS)
}

fn minutes(word: &str) -> Result<Duration, String> {
    let number: u64 = word.parse().map_err(|_| "--soak wants a number of minutes".to_owned())?;
    Ok(Duration::from_mins(number))
}

fn vsock(word: &str) -> Result<Vsock, String> {
    match word {
        "program" => Ok(Vsock::Program),
        "kernel" => Ok(Vsock::Kernel),
        _ => Err("--vsock wants program or kernel".to_owned()),
    }
}

fn need(word: &str) -> Result<Need, String> {
    Need::named(word).ok_or_else(|| format!("{word:?} is no need: inputs, nitro, space, bare-cpu"))
}

impl Choice {
    /// The names of the scenarios that are asked for and can be told on this host, in the order they are run.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.shared().map(|one| one.name).chain(self.scenarios().map(|one| one.name))
    }

    /// Those with a machine of their own, or without any.
    fn scenarios(&self) -> impl Iterator<Item = &'static Scenario> {
        scenarios::ALL.iter().filter(|scenario| self.wants(scenario.name))
    }

    /// Those that share one.
    fn shared(&self) -> impl Iterator<Item = &'static Shared> {
        scenarios::SHARED.iter().filter(|scenario| self.wants(scenario.name))
    }

    fn wants(&self, name: &str) -> bool {
        self.asks_for(name) && self.can_tell(name)
    }

    /// A name that means no scenario is a mistake, and would pass for a scenario that holds.
    fn check(&self) -> Result<(), String> {
        let all =
            || scenarios::SHARED.iter().map(|one| one.name).chain(scenarios::ALL.iter().map(|one| one.name));
        let is_unknown = |part: &&String| !all().any(|name| name.contains(part.as_str()));
        match self.names.iter().find(is_unknown) {
            Some(name) => Err(format!("no scenario has {name:?} in its name; --list shows all")),
            None => Ok(()),
        }
    }

    fn asks_for(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()))
    }

    fn can_tell(&self, name: &str) -> bool {
        let needs: Vec<Need> = scenarios::needs(name).collect();
        let is_asked = self.only.is_none_or(|only| needs.contains(&only));
        is_asked && needs.iter().all(|need| self.has(*need))
    }

    /// Whether this host has what a scenario needs.
    fn has(&self, need: Need) -> bool {
        match need {
            Need::Vsock(vsock) => vsock == self.vsock,
            // No host is like that by itself.
            Need::BareCpu => self.only == Some(need),
            Need::Inputs | Need::Nitro | Need::Space => !self.lacks.contains(&need),
        }
    }
}

impl Run {
    /// Runs everything asked for, a line for each to `out` as it ends.
    pub fn all(&self, out: &mut impl Write) -> RunReport {
        let jobs =
            self.jobs.unwrap_or_else(|| jobs_for(&fs::read_to_string("/proc/meminfo").unwrap_or_default()));
        let (alone, together): (Vec<_>, Vec<_>) =
            self.choice.scenarios().partition(|scenario| scenarios::run_alone(scenario.name));
        let mut report = RunReport::default();
        let shared: Vec<_> = self.choice.shared().collect();
        let parts = std::iter::once(Part::Shared(&shared)).filter(|_| !shared.is_empty());
        let together: Vec<_> = parts.chain(together.into_iter().map(Part::Own)).collect();
        self.some(&together, jobs, out, &mut report);
        self.some(&alone.into_iter().map(Part::Own).collect::<Vec<_>>(), 1, out, &mut report);
        report
    }

    /// Runs these, as many at once as there are `jobs`.
    fn some(&self, wanted: &[Part<'_>], jobs: usize, out: &mut impl Write, report: &mut RunReport) {
        let next = AtomicUsize::new(0);
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..jobs {
                let tell = tell.clone();
                let next = &next;
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
    }

    fn worker(
        &self,
        wanted: &[Part<'_>],
        next: &AtomicUsize,
        tell: &Sender<(&'static str, Outcome, Duration)>,
    ) {
        while let Some(part) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            match part {
                Part::Own(scenario) => {
                    let started = Instant::now();
                    let outcome = tell_story(scenario, &self.built);
                    drop(tell.send((scenario.name, outcome, started.elapsed())));
                }
                Part::Shared(scenarios) => tell_together(scenarios, &self.built, tell),
            }
        }
    }
}

impl RunReport {
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
    caught(|| (scenario.host)(&mut lab))
}

/// Tells stories on one machine, one after the other. Without the machine none of them holds.
fn tell_together(
    scenarios: &[&'static Shared],
    built: &Built,
    tell: &Sender<(&'static str, Outcome, Duration)>,
) {
    let started = Instant::now();
    let mut lab = Lab::new("shared", built);
    let booted = lab.as_mut().map_err(Failure::broken).and_then(|lab| lab.boot_shared(scenarios));
    let mut booting = started.elapsed();
    for scenario in scenarios {
        let started = Instant::now();
        let outcome = match &booted {
            Ok(machine) => caught(|| (scenario.host)(machine)),
            Err(why) => Err(Failure::broken(format_args!("the machine that it shares with others: {why}"))),
        };
        // The boot counts as the first one's.
        drop(tell.send((
            scenario.name,
            outcome,
            started.elapsed().saturating_add(std::mem::take(&mut booting)),
        )));
    }
}

/// A panic is an expectation that does not hold.
fn caught(story: impl FnOnce() -> Outcome) -> Outcome {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(story))
        .unwrap_or_else(|_| Err(Failure::broken("the host half panicked; its words are above")))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(words: &[&str]) -> Result<Vec<&'static str>, String> {
        match Plan::from_words(std::iter::once("--list").chain(words.iter().copied()).map(str::to_owned))? {
            Plan::List(choice) => Ok(choice.names().collect()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_scenario_for_one_vsock_is_not_run_on_the_other() {
        let program = listed(&[]).unwrap();
        let kernel = listed(&["--vsock", "kernel"]).unwrap();
        let only = |these: &[&'static str], others: &[&str]| {
            these.iter().copied().filter(|name| !others.contains(name)).collect::<Vec<_>>()
        };
        assert_eq!(only(&program, &kernel), ["a_killed_vsock_device_ends_the_run_with_125_and_the_reason"]);
        let kernels = only(&kernel, &program);
        assert!(
            kernels.contains(&"kvm_and_the_kernels_vsock_are_used_where_the_host_has_them"),
            "{kernels:?}"
        );
    }

    #[test]
    fn scenarios_that_need_what_the_host_lacks_are_not_run() {
        let all = listed(&[]).unwrap();
        for (word, name) in [
            ("inputs", "an_image_of_two_hundred_layers_has_what_the_last_one_says"),
            ("nitro", "a_signed_enclave_reports_its_signer"),
            ("space", "a_file_of_more_than_four_gigabytes_is_read_to_its_end"),
        ] {
            assert!(all.contains(&name));
            assert!(!listed(&["--lacks", word]).unwrap().contains(&name), "{word}");
        }
        assert!(listed(&["--lacks", "time"]).is_err());
        let bare = listed(&["--vsock", "kernel", "--only", "bare-cpu"]).unwrap();
        assert!(!bare.is_empty() && bare.iter().all(|name| !all.contains(name)));
    }

    #[test]
    fn as_many_scenarios_run_at_once_as_the_memory_allows() {
        let with = |gib: u64| jobs_for(&format!("MemTotal: 9999 kB\nMemAvailable: {} kB\n", gib << 20));
        assert_eq!([1, 2, 3, 4, 64].map(with), [1, 1, 1, 2, 2]);
        assert_eq!(jobs_for("nothing of the kind"), 1);
        assert!(listed(&["--jobs", "0"]).is_err());
    }

    #[test]
    fn a_name_that_means_no_scenario_is_refused() {
        assert_eq!(listed(&["exit_code_reaches"]).unwrap(), ["exit_code_reaches_the_caller"]);
        assert!(listed(&["exit_code_reaches", "no_such_story"]).unwrap_err().contains("no_such_story"));
    }
}
