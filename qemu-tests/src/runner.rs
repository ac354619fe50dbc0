//! Runs scenarios in parallel and reports the result of each.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Built, Lab};
use crate::scenario::{Failure, Need, Outcome, Scenario, Shared, Vsock};
use crate::scenarios;

/// Scenarios run in parallel without `--jobs`, if there is enough memory. A boot keeps one processor busy and a host half
/// mostly waits, so two of them fill two cores; with more, scenarios would run into their time limits.
const JOBS: usize = 2;

/// Memory that must be available for each scenario, in KiB: the largest that does not run alone has a machine of 1 GiB, and its
/// QEMU and the build of its image need as much again.
const MEMORY_EACH: u64 = 2 << 20;

/// Where `scripts/build` puts the guest's programs, next to the directory that it fills.
const GUEST: &str = "x86_64-unknown-linux-musl/guest";

/// A parsed command line.
#[derive(Debug)]
pub enum Plan {
    /// Print the usage.
    Help,
    /// List the names of the selected scenarios.
    List(Choice),
    /// Run scenarios.
    Run(Run),
    /// Run the soak for this long.
    Soak(Built, Duration),
}

/// A run of scenarios.
#[derive(Debug)]
pub struct Run {
    built: Built,
    /// Scenarios in parallel; by default limited by the memory.
    jobs: Option<usize>,
    choice: Choice,
}

/// The selected scenarios.
#[derive(Debug)]
pub struct Choice {
    vsock: Vsock,
    lacks: Vec<Need>,
    /// Only scenarios that need this.
    only: Option<Need>,
    /// Substrings of their names; empty selects all.
    names: Vec<String>,
}

/// A unit of work for one worker.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// A scenario with its own machine.
    Own(&'a Scenario),
    /// Scenarios that share one machine.
    Shared(&'a [&'static Shared]),
}

/// The counts of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunReport {
    /// Scenarios that passed.
    pub passed: usize,
    /// Scenarios that failed.
    pub failed: usize,
    /// Scenarios that could not run here.
    pub skipped: usize,
}

impl Plan {
    /// Parses the arguments.
    pub fn from_args(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut dist, mut probe, mut inputs, mut guest) = (None, None, None, None);
        let (mut jobs, mut list, mut soak, mut test_kernel) = (None, false, None, None);
        let mut choice = Choice { vsock: Vsock::Program, lacks: Vec::new(), only: None, names: Vec::new() };
        let mut args = args;
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} requires a value"));
            match arg.as_str() {
                "--help" | "-h" => return Ok(Self::Help),
                "--list" => list = true,
                "--vsock" => choice.vsock = vsock(&value()?)?,
                "--lacks" => choice.lacks.push(need(&value()?)?),
                "--only" => choice.only = Some(need(&value()?)?),
                "--dist" => dist = Some(PathBuf::from(value()?)),
                "--probe" => probe = Some(PathBuf::from(value()?)),
                "--inputs" => inputs = Some(PathBuf::from(value()?)),
                "--guest" => guest = Some(PathBuf::from(value()?)),
                "--test-kernel" => test_kernel = Some(PathBuf::from(value()?)),
                "--jobs" => jobs = Some(number_of_jobs(&value()?)?),
                "--soak" => soak = Some(minutes(&value()?)?),
                other if other.starts_with('-') => return Err(format!("unknown option {other}")),
                _ => choice.names.push(arg),
            }
        }
        choice.check()?;
        if list {
            return Ok(Self::List(choice));
        }
        let dist = dist.ok_or("--dist is missing: the directory that scripts/build fills")?;
        let probe = probe.ok_or("--probe is missing: the static guest half")?;
        let inputs = inputs.ok_or("--inputs is missing: the script that makes real images")?;
        let guest = guest.unwrap_or_else(|| dist.with_file_name(GUEST));
        let built = Built { dist, probe, guest, inputs, test_kernel, vsock: choice.vsock };
        Ok(match soak {
            Some(time) => Self::Soak(built, time),
            None => Self::Run(Run { built, jobs, choice }),
        })
    }
}

fn number_of_jobs(arg: &str) -> Result<usize, String> {
    arg.parse().ok().filter(|jobs| *jobs > 0).ok_or_else(|| "--jobs requires a number, at least 1".to_owned())
}

/// How many scenarios fit into the available memory at once, at least one and at most [`JOBS`]. `meminfo` is the text of
/// `/proc/meminfo` (proc(5)).
fn jobs_for(meminfo: &str) -> usize {
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = available.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.and_then(|kib| usize::try_from(kib / MEMORY_EACH).ok()).unwrap_or(1).clamp(1, JOBS)
}

fn minutes(arg: &str) -> Result<Duration, String> {
    let number: u64 = arg.parse().map_err(|_| "--soak requires a number of minutes".to_owned())?;
    Ok(Duration::from_mins(number))
}

fn vsock(arg: &str) -> Result<Vsock, String> {
    match arg {
        "program" => Ok(Vsock::Program),
        "kernel" => Ok(Vsock::Kernel),
        _ => Err("--vsock must be program or kernel".to_owned()),
    }
}

fn need(arg: &str) -> Result<Need, String> {
    Need::named(arg).ok_or_else(|| format!("unknown need {arg:?}: expected inputs, nitro, space or bare-cpu"))
}

impl Choice {
    /// The names of the selected scenarios that can run on this host, in the order they run.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.shared().map(|one| one.name).chain(self.scenarios().map(|one| one.name))
    }

    /// Those with their own machine, or without any.
    fn scenarios(&self) -> impl Iterator<Item = &'static Scenario> {
        scenarios::ALL.iter().filter(|scenario| self.includes(scenario.name))
    }

    /// Those that share one.
    fn shared(&self) -> impl Iterator<Item = &'static Shared> {
        scenarios::SHARED.iter().filter(|scenario| self.includes(scenario.name))
    }

    fn includes(&self, name: &str) -> bool {
        self.selects(name) && self.can_run(name)
    }

    /// A name that matches no scenario is a mistake; without this check it would look like a scenario that passed.
    fn check(&self) -> Result<(), String> {
        let all =
            || scenarios::SHARED.iter().map(|one| one.name).chain(scenarios::ALL.iter().map(|one| one.name));
        let is_unknown = |part: &&String| !all().any(|name| name.contains(part.as_str()));
        match self.names.iter().find(is_unknown) {
            Some(name) => Err(format!("no scenario has {name:?} in its name; --list shows all")),
            None => Ok(()),
        }
    }

    fn selects(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()))
    }

    fn can_run(&self, name: &str) -> bool {
        let needs: Vec<Need> = scenarios::needs(name).collect();
        let is_selected = self.only.is_none_or(|only| needs.contains(&only));
        is_selected && needs.iter().all(|need| self.has(*need))
    }

    /// Whether this host provides what a scenario needs.
    fn has(&self, need: Need) -> bool {
        match need {
            Need::Vsock(vsock) => vsock == self.vsock,
            // No host is like that by itself.
            Need::BareCpu => self.only == Some(need),
            Need::Inputs | Need::Nitro | Need::TestKernel | Need::Space => !self.lacks.contains(&need),
        }
    }
}

impl Run {
    /// Runs all selected scenarios and prints a line for each to `out` when it finishes.
    pub fn all(&self, out: &mut impl Write) -> RunReport {
        let jobs =
            self.jobs.unwrap_or_else(|| jobs_for(&fs::read_to_string("/proc/meminfo").unwrap_or_default()));
        let (alone, together): (Vec<_>, Vec<_>) =
            self.choice.scenarios().partition(|scenario| scenarios::run_alone(scenario.name));
        let mut report = RunReport::default();
        let shared: Vec<_> = self.choice.shared().collect();
        let parts = std::iter::once(Part::Shared(&shared)).filter(|_| !shared.is_empty());
        let together: Vec<_> = parts.chain(together.into_iter().map(Part::Own)).collect();
        self.run_parts(&together, jobs, out, &mut report);
        self.run_parts(&alone.into_iter().map(Part::Own).collect::<Vec<_>>(), 1, out, &mut report);
        report
    }

    /// Runs these, up to `jobs` in parallel.
    fn run_parts(&self, wanted: &[Part<'_>], jobs: usize, out: &mut impl Write, report: &mut RunReport) {
        let next = AtomicUsize::new(0);
        let (sender, results) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..jobs {
                let sender = sender.clone();
                let next = &next;
                scope.spawn(move || self.worker(wanted, next, &sender));
            }
            drop(sender);
            for (name, outcome, took) in results {
                report.count(&outcome);
                // A closed output does not stop the run: the exit code still has the result.
                drop(writeln!(out, "{}", line(name, &outcome, took)));
                drop(out.flush());
            }
        });
    }

    fn worker(
        &self,
        wanted: &[Part<'_>],
        next: &AtomicUsize,
        sender: &Sender<(&'static str, Outcome, Duration)>,
    ) {
        while let Some(part) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            match part {
                Part::Own(scenario) => {
                    let started = Instant::now();
                    let outcome = run_scenario(scenario, &self.built);
                    drop(sender.send((scenario.name, outcome, started.elapsed())));
                }
                Part::Shared(scenarios) => run_shared(scenarios, &self.built, sender),
            }
        }
    }
}

impl RunReport {
    fn count(&mut self, outcome: &Outcome) {
        let counter = match outcome {
            Ok(()) => &mut self.passed,
            Err(Failure::Failed(_)) => &mut self.failed,
            Err(Failure::Skipped(_)) => &mut self.skipped,
        };
        *counter = counter.saturating_add(1);
    }

    /// Whether the run counts as passed: nothing failed, something ran, and in CI nothing was skipped.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let skips_count = std::env::var_os("CI").is_some();
        self.failed == 0 && self.passed > 0 && (self.skipped == 0 || !skips_count)
    }

    /// The summary line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

fn run_scenario(scenario: &Scenario, built: &Built) -> Outcome {
    let mut lab = Lab::new(scenario.name, built)?;
    caught(|| (scenario.host)(&mut lab))
}

/// Runs scenarios on one machine, one after the other. If the machine does not boot, all of them fail.
fn run_shared(
    scenarios: &[&'static Shared],
    built: &Built,
    sender: &Sender<(&'static str, Outcome, Duration)>,
) {
    let started = Instant::now();
    let mut lab = Lab::new("shared", built);
    let booted = lab.as_mut().map_err(Failure::failed).and_then(|lab| lab.boot_shared(scenarios));
    let mut booting = started.elapsed();
    for scenario in scenarios {
        let started = Instant::now();
        let outcome = match &booted {
            Ok(machine) => caught(|| (scenario.host)(machine)),
            Err(why) => Err(Failure::failed(format_args!("the shared machine did not boot: {why}"))),
        };
        // The boot time counts towards the first scenario.
        drop(sender.send((
            scenario.name,
            outcome,
            started.elapsed().saturating_add(std::mem::take(&mut booting)),
        )));
    }
}

/// A panic counts as a failed expectation.
fn caught(half: impl FnOnce() -> Outcome) -> Outcome {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(half))
        .unwrap_or_else(|_| Err(Failure::failed("the host half panicked; its message is above")))
}

fn line(name: &str, outcome: &Outcome, took: Duration) -> String {
    let seconds = took.as_secs_f32();
    match outcome {
        Ok(()) => format!("ok      {seconds:5.1} s  {name}"),
        Err(Failure::Skipped(why)) => format!("skipped {seconds:5.1} s  {name}: {why}"),
        Err(Failure::Failed(why)) => {
            format!("FAILED  {seconds:5.1} s  {name}\n{}", why.trim_end().replace('\n', "\n    "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(args: &[&str]) -> Result<Vec<&'static str>, String> {
        match Plan::from_args(std::iter::once("--list").chain(args.iter().copied()).map(str::to_owned))? {
            Plan::List(choice) => Ok(choice.names().collect()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_scenario_for_one_vsock_does_not_run_on_the_other() {
        let program = listed(&[]).unwrap();
        let kernel = listed(&["--vsock", "kernel"]).unwrap();
        let only = |these: &[&'static str], others: &[&str]| {
            these.iter().copied().filter(|name| !others.contains(name)).collect::<Vec<_>>()
        };
        assert_eq!(only(&program, &kernel), ["a_killed_vsock_device_ends_the_run_with_125_and_the_reason"]);
        let kernels = only(&kernel, &program);
        assert!(kernels.contains(&"kvm_and_the_kernels_vsock_are_used_if_available"), "{kernels:?}");
    }

    #[test]
    fn scenarios_whose_needs_the_host_lacks_do_not_run() {
        let all = listed(&[]).unwrap();
        for (arg, name) in [
            ("inputs", "an_image_of_two_hundred_layers_has_the_files_of_the_last_one"),
            ("nitro", "a_signed_enclave_reports_its_signer"),
            ("test-kernel", "a_report_of_a_test_driver_is_read_through_configfs"),
            ("space", "a_file_of_more_than_four_gigabytes_is_read_to_its_end"),
        ] {
            assert!(all.contains(&name));
            assert!(!listed(&["--lacks", arg]).unwrap().contains(&name), "{arg}");
        }
        assert!(listed(&["--lacks", "time"]).is_err());
        let bare = listed(&["--vsock", "kernel", "--only", "bare-cpu"]).unwrap();
        assert!(!bare.is_empty() && bare.iter().all(|name| !all.contains(name)));
    }

    #[test]
    fn available_memory_limits_the_parallel_scenarios() {
        let with = |gib: u64| jobs_for(&format!("MemTotal: 9999 kB\nMemAvailable: {} kB\n", gib << 20));
        assert_eq!([1, 2, 3, 4, 64].map(with), [1, 1, 1, 2, 2]);
        assert_eq!(jobs_for("no such line"), 1);
        assert!(listed(&["--jobs", "0"]).is_err());
    }

    #[test]
    fn a_name_that_matches_no_scenario_is_refused() {
        assert_eq!(listed(&["exit_code_reaches"]).unwrap(), ["exit_code_reaches_the_caller"]);
        assert!(listed(&["exit_code_reaches", "no_such_scenario"]).unwrap_err().contains("no_such_scenario"));
    }
}
