//! All that the launcher knows: what must survive a crash of the supervisor, and the enclave's state drawn from it.
//!
//! Its law: the enclave's state is computed from the units each time, never kept beside them.

use cloister_manifest::model::{Kind, Service};
use cloister_wire::control::{Exit, State as Enclave, bounded};
use serde::{Deserialize, Serialize};

use super::outcome::words;
use super::stage::EndStage;
use super::unit::{End, Life, Unit};
use crate::clock::Moment;

/// The longest reason for being degraded, in bytes: with sixty services in trouble a status still fits its frame.
const MAX_WHY: usize = 1024;

/// What the launcher knows, as one value that survives a crash of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LauncherState {
    pub(super) stage: EndStage,
    pub(super) units: Vec<Unit>,
    /// Until then, or until a host has read it, the status says that the supervisor crashed.
    pub(super) recovering: Option<Moment>,
    /// Whether ingress was asked to take no new connections.
    pub(super) draining: bool,
    /// Whether the start of the enclave is over: from then on what does not serve degrades it.
    pub(super) started: bool,
}

impl LauncherState {
    /// The enclave's state as the host reads it.
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

    /// Whether no service is on its way to its first readiness any more. One that is not critical and has failed on that
    /// way holds up nobody.
    pub(super) fn is_settled(&self, services: &[Service]) -> bool {
        let settled = |(unit, service): (&Unit, &Service)| match unit.life {
            Life::Ready | Life::Ended(_) => true,
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
            why.push("the supervisor was started again after a crash".into());
        }
        let units = || self.units.iter().zip(services);
        why.extend(
            units().filter_map(|(unit, service)| trouble(unit).map(|t| format!("{} {t}", service.name))),
        );
        if !why.is_empty() {
            return Enclave::Degraded { why: short(&why.join("; ")) };
        }
        if units().all(|(unit, service)| is_up(unit, service)) { Enclave::Ready } else { Enclave::Starting }
    }
}

fn is_up(unit: &Unit, service: &Service) -> bool {
    match service.kind {
        Kind::Service => matches!(unit.life, Life::Ready | Life::Ended(End::Done)),
        Kind::Job => unit.life == Life::Ended(End::Done),
    }
}

/// What is amiss with a unit, as the end of a sentence that starts with its name.
fn trouble(unit: &Unit) -> Option<String> {
    let exit = || unit.last_exit.as_ref().map_or_else(String::new, after);
    match unit.life {
        Life::Waiting | Life::Spawning(_) | Life::Starting(_) if unit.run > 1 || unit.streak > 0 => {
            Some(format!("is starting again{}", exit()))
        }
        Life::Waiting | Life::Spawning(_) | Life::Starting(_) | Life::Ready | Life::Ended(End::Done) => None,
        Life::Stopping(_) | Life::Killing => Some("is stopping".into()),
        Life::BackingOff(_) => Some(format!("waits to be started again{}", exit())),
        Life::Ended(End::Failed) => Some(format!("has failed{}", exit())),
        Life::Ended(End::Stopped) => Some("is stopped".into()),
        Life::Ended(End::Bereft(_)) => Some("has lost a service it requires".into()),
    }
}

/// As much as has [`MAX_WHY`] bytes as JSON.
fn short(why: &str) -> String {
    let mut short = bounded(why, MAX_WHY);
    if short.len() < why.len() {
        short.push('…');
    }
    short
}

fn after(exit: &Exit) -> String {
    format!(" after {}", words(exit))
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
