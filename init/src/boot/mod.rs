//! The boot: a table of stages, run in order, each printed on the console with its duration.
//!
//! Invariant: the first stage that fails shuts the machine down. A stage changes the machine and returns a short description
//! of what it found; it decides nothing that the table does not show.

mod clock;
mod entropy;
mod heartbeat;
mod lockdown;
mod measure;
mod mounts;
mod network;
mod platform;

use std::error::Error;
use std::io;
use std::time::Duration;

use cloister_nsm::NsmError;
use cloister_sys::platform::{Disagreement, Platform};
use cloister_wire::control;
use rustix::time::{ClockId, clock_gettime};

use crate::cgroup::CgroupError;
use crate::console::Console;
use crate::end;
use crate::root::RootError;
use crate::serve::Holder;

/// One line of the boot table.
#[derive(Clone, Copy, Debug)]
pub struct BootStage {
    /// Its name on the console and in the status.
    pub name: &'static str,
    /// What it does; `Ok` contains a short description of what it found.
    pub run: fn(&mut Boot) -> Result<String, BootError>,
}

/// The state of the boot: what has been found out about the machine so far.
#[derive(Debug, Default)]
pub struct Boot {
    /// Where stages are printed.
    pub console: Console,
    /// The platform, once that stage is done.
    pub platform: Option<Platform>,
    /// The stages that are done.
    pub done: Vec<control::FinishedStage>,
    /// What holds processes, once that stage is done.
    pub holder: Option<Box<Holder>>,
}

/// The stage that failed.
#[derive(Debug)]
pub struct Failed {
    /// Its name.
    pub stage: &'static str,
    /// Why.
    pub error: BootError,
}

/// Why a stage failed.
#[derive(Debug)]
pub enum BootError {
    /// A required file system could not be mounted.
    Mount(&'static str, io::Error),
    /// A file or directory of the kernel could not be used.
    Path(&'static str, io::Error),
    /// A setting was not applied: the path, the value written and the value read back.
    Setting(&'static str, &'static str, String),
    /// The machine has devices of two platforms.
    Platforms(Disagreement),
    /// No trusted random bits are available.
    Entropy(cloister_sys::entropy::EntropyError),
    /// On Nitro the kernel's hardware generator must be the NSM, but it is this one.
    Generator(String),
    /// The clock source is not one that this platform may use.
    ClockSource {
        /// The platform.
        platform: Platform,
        /// The source in use.
        found: String,
        /// Those it may use.
        allowed: &'static [&'static str],
    },
    /// The NSM returned no random bits.
    Nsm(NsmError),
    /// The NSM did not extend or lock a register.
    Register(NsmError),
    /// The cgroups could not be set up.
    Cgroup(CgroupError),
    /// The application's root could not be assembled.
    Root(RootError),
    /// A system call failed.
    Kernel(&'static str, io::Error),
}

impl std::fmt::Display for BootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mount(what, _) => write!(f, "cannot mount {what}"),
            Self::Path(path, _) => write!(f, "{path}"),
            Self::Setting(path, wanted, found) => {
                write!(f, "{path} was set to {wanted:?} but reads {found:?}")
            }
            Self::Platforms(_) => f.write_str("ambiguous platform"),
            Self::Nsm(_) => f.write_str("no random bits from the NSM"),
            Self::Register(_) => f.write_str("cannot extend and lock a PCR"),
            Self::Entropy(_) => f.write_str("no trusted random bits"),
            Self::Cgroup(_) => f.write_str("cannot set up cgroups"),
            Self::Generator(found) => {
                write!(
                    f,
                    "the kernel's hardware generator is {found:?}, but on Nitro it must be \"nsm-hwrng\""
                )
            }
            Self::ClockSource { platform, found, allowed } => {
                let allowed = allowed.join(" or ");
                write!(f, "the clock source is {found:?}, but on {platform} it must be {allowed}")
            }
            Self::Root(_) => f.write_str("cannot assemble the application's root"),
            Self::Kernel(what, _) => f.write_str(what),
        }
    }
}

impl Error for BootError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Mount(_, error) | Self::Path(_, error) | Self::Kernel(_, error) => Some(error),
            Self::Entropy(error) => Some(error),
            Self::Root(error) => Some(error),
            Self::Cgroup(error) => Some(error),
            Self::Platforms(error) => Some(error),
            Self::Nsm(error) | Self::Register(error) => Some(error),
            Self::Setting(..) | Self::Generator(_) | Self::ClockSource { .. } => None,
        }
    }
}

/// The stages' functions, in the order of the table that names them.
pub use self::stages::*;

mod stages {
    //! One public name for each stage.
    pub use super::clock::check as clock;
    pub use super::entropy::seed as entropy;
    pub use super::lockdown::apply as lockdown;
    pub use super::measure::extend as measure;
    pub use super::mounts::{console, mount as mounts};
    pub use super::network::start as network;
    pub use super::platform::find as platform;
    pub use crate::root::assemble as root;
}

impl Boot {
    /// Runs one stage, number `index` of `count` counted from 0.
    pub fn run(&mut self, index: usize, count: usize, stage: BootStage) -> Result<(), Failed> {
        let began = uptime();
        let found = (stage.run)(self).map_err(|error| Failed { stage: stage.name, error })?;
        let took = uptime().saturating_sub(began);
        let number = index.saturating_add(1);
        let detail = if found.is_empty() { String::new() } else { format!(" ({found})") };
        self.console.print(&format!(
            "stage {number}/{count} {}: done, {} ms{detail}",
            stage.name,
            took.as_millis()
        ));
        self.done.push(control::FinishedStage {
            name: stage.name.to_owned(),
            at_us: micros(began),
            took_us: micros(took),
        });
        end::remember_boot(self);
        Ok(())
    }
}

/// Time since the kernel started (`CLOCK_MONOTONIC`: the enclave is never suspended).
#[must_use]
pub fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use cloister_wire::causes;

    use super::*;

    #[test]
    fn an_error_is_reported_with_its_causes() {
        let error = BootError::Mount("/proc", io::Error::from_raw_os_error(19));
        assert_eq!(causes::line(&error), "cannot mount /proc: No such device (os error 19)");
    }

    #[test]
    fn a_failed_stage_is_named_and_not_recorded() {
        let mut boot = Boot::default();
        let bad = BootStage { name: "bad", run: |_| Err(BootError::Generator("virtio_rng.0".into())) };
        assert_eq!(boot.run(0, 1, bad).unwrap_err().stage, "bad");
        assert!(boot.done.is_empty());
    }

    #[test]
    fn a_completed_stage_is_recorded_with_its_times() {
        let mut boot = Boot::default();
        let good = BootStage { name: "good", run: |_| Ok("all well".into()) };
        boot.run(0, 1, good).unwrap();
        assert_eq!(boot.done[0].name, "good");
        assert!(boot.done[0].at_us > 0);
    }
}
