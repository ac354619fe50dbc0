//! The launcher's state, which must survive a crash of the supervisor, and the enclave's state derived from it.
//!
//! Invariant: the enclave's state is computed from the units each time, never stored in addition to them.

use cloister_manifest::model::{Kind, Service};
use cloister_wire::control::{Exit, State as Enclave, bounded};
use serde::{Deserialize, Serialize};

use super::outcome::describe;
use super::stage::EndStage;
use super::unit::{End, Stage, Unit};
use crate::clock::Moment;

/// Maximum length of the reason for `degraded`, in bytes: with sixty degraded services a status still fits its frame.
const MAX_WHY: usize = 1024;

/// The launcher's state, as one value that survives a crash of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LauncherState {
    pub(super) stage: EndStage,
    pub(super) units: Vec<Unit>,
    /// Until when the status reports a crash of the supervisor, unless a host reads it earlier.
    pub(super) recovering: Option<Moment>,
    /// Whether a drain was requested: ingress accepts no connections.
    pub(super) draining: bool,
    /// Whether the enclave's start is complete: from then on a service that does not serve degrades it.
    pub(super) started: bool,
}

impl LauncherState {
    /// The enclave's state as reported to the host.
    pub(super) fn enclave(&self, services: &[Service]) -> Enclave {
        match &self.stage {
            EndStage::Running => self.serving(services),
            EndStage::Draining(e) | EndStage::Stopping(e) | EndStage::Killing(e) => {
                Enclave::Stopping { why: e.why.clone() }
            }
            EndStage::Closing(closing) => closing.state.clone(),
            EndStage::Off(state) => state.clone(),
        }
    }

    /// Whether every service has completed its first start. A non-critical service that failed during its start does
    /// not delay that.
    pub(super) fn is_settled(&self, services: &[Service]) -> bool {
        let settled = |(unit, service): (&Unit, &Service)| match unit.stage {
            Stage::Ready | Stage::Ended(_) => true,
            _ => unit.streak > 0 && !service.critical,
        };
        self.units.iter().zip(services).all(settled)
    }

    fn serving(&self, services: &[Service]) -> Enclave {
        if !self.started {
            return Enclave::Starting;
        }
        let mut why: Vec<String> = Vec::new();
        if self.recovering.is_some() {
            why.push("the supervisor was restarted after a crash".into());
        }
        let units = || self.units.iter().zip(services);
        why.extend(
            units().filter_map(|(unit, service)| problem(unit).map(|p| format!("{} {p}", service.name))),
        );
        if !why.is_empty() {
            return Enclave::Degraded { why: short(&why.join("; ")) };
        }
        if units().all(|(unit, service)| is_up(unit, service)) { Enclave::Ready } else { Enclave::Starting }
    }
}

fn is_up(unit: &Unit, service: &Service) -> bool {
    match service.kind {
        Kind::Service => matches!(unit.stage, Stage::Ready | Stage::Ended(End::Done)),
        Kind::Job => unit.stage == Stage::Ended(End::Done),
    }
}

/// A unit's problem, as the end of a sentence that starts with its name.
fn problem(unit: &Unit) -> Option<String> {
    let exit = || unit.last_exit.as_ref().map_or_else(String::new, after);
    match unit.stage {
        Stage::Waiting | Stage::Spawning(_) | Stage::Starting(_) if unit.run > 1 || unit.streak > 0 => {
            Some(format!("is restarting{}", exit()))
        }
        Stage::Waiting | Stage::Spawning(_) | Stage::Starting(_) | Stage::Ready | Stage::Ended(End::Done) => {
            None
        }
        Stage::Stopping(_) | Stage::Killing => Some("is stopping".into()),
        Stage::BackingOff(_) => Some(format!("is waiting to restart{}", exit())),
        Stage::Ended(End::Failed) => Some(format!("has failed{}", exit())),
        Stage::Ended(End::Stopped) => Some("is stopped".into()),
        Stage::Ended(End::LostDependency(_)) => Some("has lost a service it requires".into()),
    }
}

/// The text cut to [`MAX_WHY`] bytes as JSON.
fn short(why: &str) -> String {
    let mut short = bounded(why, MAX_WHY);
    if short.len() < why.len() {
        short.push('…');
    }
    short
}

fn after(exit: &Exit) -> String {
    format!(" after {}", describe(exit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(short("web has failed"), "web has failed");
        let cut = short(&"é".repeat(MAX_WHY));
        assert!(cut.len() <= MAX_WHY + '…'.len_utf8() && cut.ends_with("é…"));
    }
}
