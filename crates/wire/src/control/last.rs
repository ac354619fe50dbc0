//! The status that init itself sends when no supervisor is running.
//!
//! Invariant: it parses as a [`FromGuest::Status`](super::FromGuest::Status) without services. It is a separate type so
//! that PID 1 contains no code for serializing services, which it knows nothing about.

use serde::Serialize;

use super::{FinishedStage, IngressCounters, State};

/// The status that init sends to the host at shutdown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "status")]
pub struct LastStatus {
    /// [`Status::seq`](super::Status::seq).
    pub seq: u64,
    /// The final state.
    #[serde(flatten)]
    pub state: State,
    /// [`Status::platform`](super::Status::platform).
    pub platform: String,
    /// Milliseconds since the enclave's kernel started.
    pub uptime_ms: u64,
    /// Number of times the supervisor was restarted.
    pub supervisor_restarts: u32,
    /// The boot stages that init has run.
    pub boot: Vec<FinishedStage>,
    /// Always empty: init knows nothing about services.
    pub services: [(); 0],
    /// All zero: the counters were lost with the supervisor.
    pub ingress: IngressCounters,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{FromGuest, Status};

    #[test]
    fn a_last_status_parses_as_a_status_without_services() {
        let state = State::Fatal { stage: "supervisor".into(), error: "it ended".into() };
        let boot = vec![FinishedStage { name: "mounts".into(), at_us: 1, took_us: 2 }];
        let last = LastStatus {
            seq: 4,
            state: state.clone(),
            platform: "virtual".into(),
            uptime_ms: 12,
            supervisor_restarts: 3,
            boot: boot.clone(),
            services: [],
            ingress: IngressCounters::default(),
        };
        let status = Status {
            seq: 4,
            state,
            platform: "virtual".into(),
            uptime_ms: 12,
            supervisor_restarts: 3,
            boot,
            services: vec![],
            servants: vec![],
            ingress: IngressCounters::default(),
            registers: vec![],
            time: None,
        };
        let text = serde_json::to_string(&last).unwrap();
        assert_eq!(
            serde_json::from_str::<FromGuest>(&text).unwrap(),
            FromGuest::Status(status.clone().into())
        );
        assert_eq!(text, serde_json::to_string(&FromGuest::Status(status.into())).unwrap());
    }
}
