//! One service: what is known of it.
//!
//! Its law: it is a value that survives a crash of the supervisor. How it moves on is in [`super::life`].

use cloister_manifest::model::{Kind, Ready, Service};
use cloister_wire::control::{Exit, MAX_WAITS_FOR, Phase, ServiceStatus};
use serde::{Deserialize, Serialize};

use super::event::{Id, Verdict};
use crate::clock::Moment;

/// Where a service is in its life, with the moment at which that ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Life {
    /// It waits for others.
    #[default]
    Waiting,
    /// Init has been asked to start it, and has until then.
    Spawning(Moment),
    /// It runs and has until then to become ready.
    Starting(Moment),
    /// It runs and is ready.
    Ready,
    /// It was asked to end, and has until then.
    Stopping(Moment),
    /// Its cgroup was killed.
    Killing,
    /// It ended and is started again then.
    BackingOff(Moment),
    /// It is over, unless somebody asks for it.
    Ended(End),
}

/// How a service's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum End {
    /// By itself, and that is all right.
    Done,
    /// By itself, and it is not started again.
    Failed,
    /// Because somebody asked, or the enclave ends.
    Stopped,
    /// Because this service, which it requires, ended for good.
    Bereft(Id),
}

/// Why we ended a service that did nothing of the kind itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    /// It was not ready in time.
    StartTimeout,
    /// Its liveness check failed too often.
    Unhealthy,
    /// Init could not start it for want of something that the machine may have again.
    Refused,
    /// Init could not start it, and never will.
    Unstartable,
}

/// What a service said of itself before init reported its start: the notify socket and the hold channel are two sockets, and
/// either may be read first.
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

/// The most [`Early`] notes of one start. Init reports a start within milliseconds of the program's first instruction; a
/// service that says more by then repeats itself.
pub(super) const MAX_EARLY: usize = 32;

/// One service's state; it survives a crash of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unit {
    pub(super) life: Life,
    /// When `life` began.
    pub(super) since: Moment,
    /// How often it was spawned.
    pub(super) run: u32,
    /// Its main process while it lives.
    pub(super) pid: Option<u32>,
    /// The process of its current or last run.
    pub(super) process: u32,
    /// When that was started.
    pub(super) started: Moment,
    /// Whether its cgroup may have members.
    pub(super) populated: bool,
    /// Nobody wants it to run any more.
    pub(super) unwanted: bool,
    /// What it lost, if that is why it is unwanted.
    pub(super) lost: Option<Id>,
    /// It is to be started again as soon as it has ended.
    pub(super) again: bool,
    /// What we hold against its current run.
    pub(super) fault: Option<Fault>,
    /// Restarts in a row without a stable time between them.
    pub(super) streak: u32,
    /// Starts in a row that were refused for the moment.
    pub(super) refusals: u32,
    pub(super) last_exit: Option<Exit>,
    pub(super) exit_at: Moment,
    pub(super) ready_at: Option<Moment>,
    /// Liveness checks missed in a row.
    pub(super) misses: u32,
    /// When the next `WATCHDOG=1` is due.
    pub(super) watchdog: Option<Moment>,
    pub(super) text: Option<String>,
    /// What its readiness probe met last.
    pub(super) missed: Option<String>,
    /// What it said before its start was reported, in order.
    pub(super) early: Vec<Early>,
}

impl Unit {
    /// Whether there are, or may be, processes of it.
    pub(super) const fn is_running(&self) -> bool {
        !matches!(self.life, Life::Waiting | Life::BackingOff(_) | Life::Ended(_))
    }

    /// How it ended, if it did.
    pub(super) const fn end(&self) -> Option<End> {
        match self.life {
            Life::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// The next moment at which something is due.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.life {
            Life::Spawning(until)
            | Life::Starting(until)
            | Life::Stopping(until)
            | Life::BackingOff(until) => Some(until),
            Life::Ready => self.watchdog,
            Life::Waiting | Life::Killing | Life::Ended(_) => None,
        }
    }

    /// What the status says of it.
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

    /// What it waits for to be ready, or waited for until it was given up: the sign, and what its probe met.
    pub(super) fn waits_for(&self, service: &Service) -> Option<String> {
        if !matches!(self.life, Life::Starting(_)) && self.fault != Some(Fault::StartTimeout) {
            return None;
        }
        let sign = match &service.ready {
            _ if service.kind == Kind::Job => return None,
            Ready::Started => return None,
            Ready::Tcp(port) => format!("TCP port {port}"),
            Ready::Http { port, path } => format!("GET {path} on TCP port {port}"),
            Ready::File(path) => format!("the file {path}"),
            Ready::Log(text) => format!("{text:?} in its output"),
            Ready::Notify => "READY=1".to_owned(),
        };
        let mut text = self.missed.as_ref().map_or_else(|| sign.clone(), |why| format!("{sign}: {why}"));
        text.truncate(text.floor_char_boundary(MAX_WAITS_FOR));
        Some(text)
    }

    /// Something keeps it from being ready.
    pub(super) fn missed(&mut self, why: String) {
        if matches!(self.life, Life::Starting(_)) {
            self.missed = Some(why);
        }
    }

    /// The phase as the status names it.
    pub(super) fn phase(&self) -> Phase {
        match self.life {
            Life::Waiting => Phase::Waiting,
            Life::Spawning(_) | Life::Starting(_) => Phase::Starting,
            Life::Ready => Phase::Ready,
            Life::Killing if self.fault == Some(Fault::Unhealthy) => Phase::Unhealthy,
            Life::Stopping(_) | Life::Killing => Phase::Stopping,
            Life::BackingOff(_) => Phase::BackingOff,
            Life::Ended(End::Done | End::Stopped) => Phase::Done,
            Life::Ended(End::Failed | End::Bereft(_)) => Phase::Failed,
        }
    }
}
