//! One service: its state.
//!
//! Invariant: it is a value that survives a crash of the supervisor. Its transitions are in [`super::lifecycle`].

use cloister_manifest::model::{Kind, Ready, Service};
use cloister_wire::control::{Exit, MAX_WAITS_FOR, Phase, ServiceStatus};
use serde::{Deserialize, Serialize};

use super::event::{Id, Verdict};
use crate::clock::Moment;

/// A service's lifecycle state, with its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// It waits for other services.
    #[default]
    Waiting,
    /// Its start was requested from init, which has until this moment to report it.
    Spawning(Moment),
    /// It runs and has until this moment to become ready.
    Starting(Moment),
    /// It runs and is ready.
    Ready,
    /// It was sent its stop signal, and has until this moment to exit.
    Stopping(Moment),
    /// Its cgroup was killed.
    Killing,
    /// It has exited and is restarted at this moment.
    BackingOff(Moment),
    /// It has ended, and starts again only on request.
    Ended(End),
}

/// How a service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum End {
    /// It exited successfully.
    Done,
    /// It failed and is not restarted.
    Failed,
    /// On request, or because the enclave stops.
    Stopped,
    /// Because this service, on which it depends, ended permanently.
    LostDependency(Id),
}

/// Why the supervisor considers a run failed, regardless of its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Failure {
    /// It was not ready in time.
    StartTimeout,
    /// Its liveness check failed too often.
    Unhealthy,
    /// Init could not start it for lack of resources, which may be available later.
    Refused,
    /// Init could not start it, and never will.
    Unstartable,
}

/// A notification that a service sent before init reported its start: the notify socket and the hold channel are two
/// sockets, and either may be read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Early {
    /// `READY=1`.
    Ready,
    /// A liveness check, or `WATCHDOG=`.
    Checked(Verdict),
    /// `STOPPING=1`.
    Leaving,
}

/// Maximum number of [`Early`] notifications of one start. Init reports a start within milliseconds of the program's
/// first instruction; a service that sends more by then repeats itself.
pub(super) const MAX_EARLY: usize = 32;

/// One service's state; it survives a crash of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unit {
    pub(super) stage: Stage,
    /// When `stage` began.
    pub(super) since: Moment,
    /// The number of spawns so far.
    pub(super) run: u32,
    /// Its main process while that runs.
    pub(super) pid: Option<u32>,
    /// The process of its current or last run.
    pub(super) process: u32,
    /// When that process was started.
    pub(super) started: Moment,
    /// Whether its cgroup may have members.
    pub(super) populated: bool,
    /// It is to stop, or not to start.
    pub(super) unwanted: bool,
    /// The dependency that it lost, if that is why it is unwanted.
    pub(super) lost_dependency: Option<Id>,
    /// It is to be started as soon as it has exited.
    pub(super) start_after_exit: bool,
    /// Why its current run counts as failed.
    pub(super) failure: Option<Failure>,
    /// Consecutive restarts without a stable run.
    pub(super) streak: u32,
    /// Consecutive starts that failed for lack of resources.
    pub(super) refusals: u32,
    pub(super) last_exit: Option<Exit>,
    pub(super) exit_at: Moment,
    pub(super) ready_at: Option<Moment>,
    /// Consecutive failed liveness checks.
    pub(super) misses: u32,
    /// When the next `WATCHDOG=1` is due.
    pub(super) watchdog: Option<Moment>,
    pub(super) text: Option<String>,
    /// The last error of its readiness probe.
    pub(super) probe_error: Option<String>,
    /// Notifications that it sent before its start was reported, in order.
    pub(super) early: Vec<Early>,
}

impl Unit {
    /// Whether it has, or may have, processes.
    pub(super) const fn is_running(&self) -> bool {
        !matches!(self.stage, Stage::Waiting | Stage::BackingOff(_) | Stage::Ended(_))
    }

    /// How it ended, if it did.
    pub(super) const fn end(&self) -> Option<End> {
        match self.stage {
            Stage::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Its next deadline.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.stage {
            Stage::Spawning(until)
            | Stage::Starting(until)
            | Stage::Stopping(until)
            | Stage::BackingOff(until) => Some(until),
            Stage::Ready => self.watchdog,
            Stage::Waiting | Stage::Killing | Stage::Ended(_) => None,
        }
    }

    /// Its entry in the status.
    pub(super) fn status(&self, service: &Service) -> ServiceStatus {
        ServiceStatus {
            name: service.name.clone(),
            phase: self.phase(),
            pid: self.pid,
            since_ms: self.since.millis(),
            restarts: self.run.saturating_sub(1),
            last_exit: self.last_exit.clone(),
            text: self.text.clone(),
            waits_for: self.waits_for(service),
        }
    }

    /// What it waits for to become ready, or waited for until it timed out: the condition, and the probe's error.
    pub(super) fn waits_for(&self, service: &Service) -> Option<String> {
        if !matches!(self.stage, Stage::Starting(_)) && self.failure != Some(Failure::StartTimeout) {
            return None;
        }
        let condition = match &service.ready {
            _ if service.kind == Kind::Job => return None,
            Ready::Started => return None,
            Ready::Tcp(port) => format!("TCP port {port}"),
            Ready::Http { port, path } => format!("GET {path} on TCP port {port}"),
            Ready::File(path) => format!("the file {path}"),
            Ready::Log(text) => format!("{text:?} in its output"),
            Ready::Notify => "READY=1".to_owned(),
        };
        let error = self.probe_error.as_ref();
        let mut text = error.map_or_else(|| condition.clone(), |error| format!("{condition}: {error}"));
        text.truncate(text.floor_char_boundary(MAX_WAITS_FOR));
        Some(text)
    }

    /// Its readiness probe failed.
    pub(super) fn probe_failed(&mut self, why: String) {
        if matches!(self.stage, Stage::Starting(_)) {
            self.probe_error = Some(why);
        }
    }

    /// The phase as shown in the status.
    pub(super) fn phase(&self) -> Phase {
        match self.stage {
            Stage::Waiting => Phase::Waiting,
            Stage::Spawning(_) | Stage::Starting(_) => Phase::Starting,
            Stage::Ready => Phase::Ready,
            Stage::Killing if self.failure == Some(Failure::Unhealthy) => Phase::Unhealthy,
            Stage::Stopping(_) | Stage::Killing => Phase::Stopping,
            Stage::BackingOff(_) => Phase::BackingOff,
            Stage::Ended(End::Done | End::Stopped) => Phase::Done,
            Stage::Ended(End::Failed | End::LostDependency(_)) => Phase::Failed,
        }
    }
}
