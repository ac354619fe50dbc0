//! Port 17000, and the local control socket: the state of the enclave, and the few requests it accepts.
//!
//! Invariant: no request can run code that the manifest does not name, write a file or read memory.
//!
//! Each end sends its [`Hello`](crate::hello::Hello) first. Then the enclave sends its whole [`Status`] immediately and
//! after each change, with a rising sequence number: a [`FromGuest::Status`] and, if not all services fit in it, one or
//! more [`FromGuest::Services`] directly after it ([`frames`], [`Assembly`]). It answers each request by its id. A host
//! that has read a final state confirms that with [`Request::Seen`], and the enclave powers off before its deadline.
//!
//! ```text
//! booting → starting → ready ⇄ degraded → stopping → exited | signaled | fatal
//! ```

mod bounds;
mod last;
mod pages;
mod report;
mod time;

use serde::{Deserialize, Serialize};

pub use bounds::{MAX_ERROR_TEXT, bounded};
pub use last::LastStatus;
pub use pages::{Assembly, Head, MAX_FRAMES, MAX_SERVANTS, MAX_SERVICES, Page, PageError, frames};
pub use report::{Confinement, ServiceStats, Stats};
pub use time::{Time, TimeSource};

/// The state of the enclave as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// The supervisor is running and has not read the manifest yet.
    Booting,
    /// Services are being started.
    Starting,
    /// Every service is ready.
    Ready,
    /// The enclave is running, but a part of it is not working.
    Degraded {
        /// What is wrong, human-readable.
        why: String,
    },
    /// Services are being stopped.
    Stopping {
        /// Why, human-readable.
        why: String,
    },
    /// Final: the service that determines the enclave's exit exited with this code.
    Exited {
        /// The service's name.
        service: String,
        /// Its exit code.
        code: u8,
    },
    /// Final: the service that determines the enclave's exit was terminated by this signal.
    Signaled {
        /// The service's name.
        service: String,
        /// The signal's number.
        signal: u8,
        /// Why the signal was sent.
        cause: Cause,
    },
    /// Final: Cloister itself failed.
    Fatal {
        /// The boot stage or component that failed.
        stage: String,
        /// The error, human-readable.
        error: String,
    },
}

impl State {
    /// Whether no other state can follow this one.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Exited { .. } | Self::Signaled { .. } | Self::Fatal { .. })
    }
}

/// Why a process was terminated by a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A process sent it, possibly the process itself.
    Sent,
    /// The kernel's out-of-memory killer (`oom_kill` in the cgroup's `memory.events` rose).
    OutOfMemory,
    /// A system call denied by its seccomp filter; the call's name if the kernel log contains it.
    Seccomp(Option<String>),
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It exited with this code.
    Code(u8),
    /// It was terminated by this signal.
    Signal {
        /// The signal's number.
        signal: u8,
        /// Why.
        cause: Cause,
    },
    /// Its program never ran.
    NotStarted {
        /// The step that failed and the system's error text, human-readable.
        error: String,
    },
}

/// The complete status of the enclave, as the host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Rises with each change.
    pub seq: u64,
    /// The enclave's state.
    #[serde(flatten)]
    pub state: State,
    /// The platform that init detected: `nitro`, `tdx`, `snp` or `virtual`.
    pub platform: String,
    /// Milliseconds since the enclave's kernel started.
    pub uptime_ms: u64,
    /// Number of times the supervisor was restarted after a crash.
    pub supervisor_restarts: u32,
    /// The boot stages that init has run, in order.
    pub boot: Vec<FinishedStage>,
    /// The services of the manifest, in its order.
    pub services: Vec<ServiceStatus>,
    /// Cloister's own programs that run beside the services, each with a name that starts with `@`. Their exit does not
    /// end the enclave.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub servants: Vec<ServiceStatus>,
    /// Ingress counters, as reported by the gateway.
    pub ingress: IngressCounters,
    /// The measurement registers as the platform's security module returned them to the supervisor; empty on a platform
    /// without such a module. Reported by the enclave itself, for operators; a verifier needs attestation evidence
    /// instead.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub registers: Vec<Register>,
    /// How far the enclave's date can be trusted, when the status was made. `None` in the status that init sends, and in those
    /// of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<Time>,
}

/// A measurement register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Its number.
    pub index: u16,
    /// Its value in lower-case hexadecimal digits.
    pub value: String,
    /// Whether it can no longer be extended.
    pub locked: bool,
}

/// One boot stage that init has run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishedStage {
    /// Its name in the boot table.
    pub name: String,
    /// Microseconds since boot when it began.
    pub at_us: u64,
    /// Microseconds it took.
    pub took_us: u64,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name in the manifest.
    pub name: String,
    /// Its lifecycle phase.
    pub phase: Phase,
    /// Its main process while it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Milliseconds since boot at which the phase began.
    pub since_ms: u64,
    /// Number of times it was restarted.
    pub restarts: u32,
    /// How its last process ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_exit: Option<Exit>,
    /// The status text that it set (`STATUS=` of `sd_notify`), at most [`MAX_STATUS_TEXT`] bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// The readiness check that it has not passed yet, or had not passed when it timed out, and the last result: `TCP
    /// port 80: nothing listens on 127.0.0.1:80 or [::1]:80`. At most [`MAX_WAITS_FOR`] bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waits_for: Option<String>,
}

/// Maximum length of [`ServiceStatus::waits_for`] in bytes: a port, two addresses and a reason.
pub const MAX_WAITS_FOR: usize = 160;

/// Maximum length of a service's status text in bytes of JSON ([`bounded`]): a line on a screen.
pub const MAX_STATUS_TEXT: usize = 256;

/// A phase in the lifecycle of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It waits for other services.
    Waiting,
    /// It is running and not ready yet.
    Starting,
    /// It is running and ready.
    Ready,
    /// It is running and its liveness check fails.
    Unhealthy,
    /// It is being stopped.
    Stopping,
    /// It exited and will be restarted after a delay.
    BackingOff,
    /// It exited as expected.
    Done,
    /// It failed and will not be restarted.
    Failed,
}

/// Ingress counters since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections closed because the target does not exist, the service refused them, or the limit was reached.
    pub refused: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

/// What the enclave sends after its hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FromGuest {
    /// The status, sent immediately and after each change, with as many services as fit.
    Status(Head),
    /// Further services of the preceding status.
    Services(Page),
    /// The answer to the request with this id.
    Reply {
        /// The request's id.
        id: u64,
        /// The result.
        reply: Reply,
    },
}

/// What the host, or a local program, sends after its hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromHost {
    /// Chosen by the sender and repeated in the reply.
    pub id: u64,
    /// The request.
    pub request: Request,
}

/// A request to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Check that the supervisor responds.
    Ping,
    /// Shut the enclave down cleanly. Answered immediately; the state shows the progress.
    Stop,
    /// Refuse new ingress connections and let the open ones finish.
    Drain,
    /// Send a signal to a service's main process. The host may do this only if the manifest's `control` lists `signal`.
    Signal {
        /// The service.
        service: String,
        /// The signal's number, 1 to 64.
        signal: u8,
    },
    /// The sender has read the final state with this sequence number.
    Seen {
        /// [`Status::seq`].
        seq: u64,
    },
    /// Start, stop or restart one service. The host may do this only if the manifest's `control` lists the verb.
    Service {
        /// The service.
        service: String,
        /// The operation.
        verb: Verb,
    },
    /// Get the resource use of each service, from its cgroup.
    Stats,
    /// Get the confinement of a service, read back from the kernel.
    Inspect {
        /// The service.
        service: String,
    },
}

/// An operation on one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Start it if it is not running.
    Start,
    /// Stop it and leave it stopped.
    Stop,
    /// Stop it and start it again.
    Restart,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Reply {
    /// The request succeeded or is in progress.
    Done,
    /// The request was refused.
    Refused {
        /// Why, human-readable.
        why: String,
    },
    /// The answer to [`Request::Stats`].
    Stats(Stats),
    /// The answer to [`Request::Inspect`].
    Inspect(Confinement),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_state_has_these_bytes() {
        let state = State::Signaled { service: "web".into(), signal: 9, cause: Cause::OutOfMemory };
        assert_eq!(
            serde_json::to_string(&state).unwrap(),
            r#"{"state":"signaled","service":"web","signal":9,"cause":"out-of-memory"}"#
        );
    }

    #[test]
    fn a_request_has_these_bytes() {
        let stop = FromHost { id: 3, request: Request::Stop };
        assert_eq!(serde_json::to_string(&stop).unwrap(), r#"{"id":3,"request":{"type":"stop"}}"#);
    }

    #[test]
    fn a_reply_has_these_bytes() {
        let refused = FromGuest::Reply { id: 3, reply: Reply::Refused { why: "no".into() } };
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"type":"reply","id":3,"reply":{"type":"refused","why":"no"}}"#
        );
    }

    #[test]
    fn a_decoded_status_is_the_encoded_one() {
        let status = Status {
            seq: 4,
            state: State::Fatal { stage: "manifest".into(), error: "a \"quote\"\nand a line".into() },
            platform: "virtual".into(),
            uptime_ms: 12,
            supervisor_restarts: 0,
            boot: vec![FinishedStage { name: "mounts".into(), at_us: 1, took_us: 2 }],
            services: vec![],
            servants: vec![],
            ingress: IngressCounters::default(),
            registers: vec![Register { index: 0, value: "00ff".into(), locked: true }],
            time: Some(Time { trusted: false, source: TimeSource::Host, bound_ms: None }),
        };
        let text = serde_json::to_string(&FromGuest::Status(status.clone().into())).unwrap();
        assert_eq!(serde_json::from_str::<FromGuest>(&text).unwrap(), FromGuest::Status(status.into()));
    }

    #[test]
    fn an_undefined_request_is_refused() {
        assert!(
            serde_json::from_str::<FromHost>(r#"{"id":1,"request":{"type":"exec","argv":["sh"]}}"#).is_err()
        );
    }

    #[test]
    fn only_exited_signaled_and_fatal_are_final() {
        assert!(State::Fatal { stage: String::new(), error: String::new() }.is_final());
        assert!(!State::Ready.is_final());
        assert!(!State::Stopping { why: String::new() }.is_final());
    }
}
