//! The status that init sends by itself when there is no supervisor to do it.
//!
//! Its law: it reads as a [`FromGuest::Status`](super::FromGuest::Status) without services. It is a type of its own so that PID 1
//! holds no code for writing services, of which it knows nothing.

use serde::Serialize;

use super::{FinishedStage, IngressCounters, State};

/// What a host is told by init at the machine's end.
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
    /// How often the supervisor was started again.
    pub supervisor_restarts: u32,
    /// The boot stages that init has run.
    pub boot: Vec<FinishedStage>,
    /// None: init knows nothing of services.
    pub services: [(); 0],
    /// What was counted is gone with the supervisor.
    pub ingress: IngressCounters,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{FromGuest, Status};

    #[test]
    fn a_last_status_reads_as_a_status_without_services() {
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
        };
        let text = serde_json::to_string(&last).unwrap();
        assert_eq!(
            serde_json::from_str::<FromGuest>(&text).unwrap(),
            FromGuest::Status(status.clone().into())
        );
        assert_eq!(text, serde_json::to_string(&FromGuest::Status(status.into())).unwrap());
    }
}
