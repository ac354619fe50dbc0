//! Port 17000, and the local control socket: what state the enclave is in, and the few things that may be asked of it.
//!
//! Its law: nothing here can start code that the manifest does not name, write a file or read memory.
//!
//! Each end sends its [`Hello`](crate::hello::Hello) first. Then the enclave sends its whole [`Status`] at once and after
//! each change, with a rising sequence number: a [`FromGuest::Status`] and, where that has no room for all services, some
//! [`FromGuest::Services`] right behind it ([`frames`], [`Assembly`]). It answers each request by its id. A host that has read a final state says so with [`Request::Seen`], and the enclave powers off without waiting out its deadline.
//!
//! ```text
//! booting → starting → ready ⇄ degraded → stopping → exited | signaled | fatal
//! ```

mod bounds;
mod last;
mod pages;
mod report;

use serde::{Deserialize, Serialize};

pub use bounds::{MAX_ERROR_TEXT, bounded};
pub use last::LastStatus;
pub use pages::{Assembly, Head, MAX_FRAMES, MAX_SERVANTS, MAX_SERVICES, Page, PageError, frames};
pub use report::{Confinement, ServiceStats, Stats};

/// The state of the enclave as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// The supervisor runs and has not read the manifest yet.
    Booting,
    /// Services are being started.
    Starting,
    /// Every service is ready.
    Ready,
    /// The enclave serves, and something in it does not.
    Degraded {
        /// What is amiss, for people.
        why: String,
    },
    /// Services are being stopped.
    Stopping {
        /// Who asked, for people.
        why: String,
    },
    /// The end: the service that decides ended with this code.
    Exited {
        /// The service's name.
        service: String,
        /// Its exit code.
        code: u8,
    },
    /// The end: the service that decides died of this signal.
    Signaled {
        /// The service's name.
        service: String,
        /// The signal's number.
        signal: u8,
        /// Why the kernel sent it, where that is known.
        cause: Cause,
    },
    /// The end: Cloister could not go on.
    Fatal {
        /// The boot stage or the part that failed.
        stage: String,
        /// What happened, for people.
        error: String,
    },
}

impl State {
    /// Whether nothing can follow this state.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Exited { .. } | Self::Signaled { .. } | Self::Fatal { .. })
    }
}

/// Why a process died of a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Somebody sent it, or the process did it to itself.
    Sent,
    /// The kernel's out-of-memory killer (`oom_kill` in the cgroup's `memory.events` rose).
    OutOfMemory,
    /// A system call that its seccomp filter refuses; the call's name where the kernel log tells it.
    Seccomp(Option<String>),
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal {
        /// The signal's number.
        signal: u8,
        /// Why.
        cause: Cause,
    },
    /// It never ran.
    NotStarted {
        /// The step that failed and the system's words, for people.
        error: String,
    },
}

/// Everything the host may know, as one value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Rises with each change.
    pub seq: u64,
    /// The enclave's state.
    #[serde(flatten)]
    pub state: State,
    /// The platform init found: `nitro`, `tdx`, `sev-snp` or `virtual`.
    pub platform: String,
    /// Milliseconds since the enclave's kernel started.
    pub uptime_ms: u64,
    /// How often the supervisor has been started again after a crash.
    pub supervisor_restarts: u32,
    /// The boot stages that init has run, in order.
    pub boot: Vec<FinishedStage>,
    /// The services of the manifest, in its order.
    pub services: Vec<ServiceStatus>,
    /// Our own programs that run beside the services, each named with an `@`. They decide nothing over the enclave's end.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub servants: Vec<ServiceStatus>,
    /// Ingress as the gateway counts it.
    pub ingress: IngressCounters,
    /// The measurement registers as the platform's security module gave them to the supervisor; none on a platform that has
    /// no such module. The enclave's own words, for operators: a verifier asks for evidence.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub registers: Vec<Register>,
}

/// A measurement register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Its number.
    pub index: u16,
    /// Its value in lower-case hexadecimal digits.
    pub value: String,
    /// Whether nobody can extend it any more.
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
    /// Where it is in its life.
    pub phase: Phase,
    /// Its main process while it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Milliseconds since boot at which the phase began.
    pub since_ms: u64,
    /// How often it has been started again.
    pub restarts: u32,
    /// How its last process ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_exit: Option<Exit>,
    /// What it says of itself (`STATUS=` of `sd_notify`), at most [`MAX_STATUS_TEXT`] bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// What it waits for to be ready, or waited for until it was given up, and what was met last: `TCP port 80: nothing listens
    /// on 127.0.0.1:80 or [::1]:80`. At most [`MAX_WAITS_FOR`] bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waits_for: Option<String>,
}

/// The longest [`ServiceStatus::waits_for`], in bytes: a port, two addresses and a reason.
pub const MAX_WAITS_FOR: usize = 160;

/// The longest status text kept for a service, in bytes of JSON ([`bounded`]): a line on a screen.
pub const MAX_STATUS_TEXT: usize = 256;

/// Where a service is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It waits for others.
    Waiting,
    /// It runs and is not ready yet.
    Starting,
    /// It runs and is ready.
    Ready,
    /// It runs and its liveness check fails.
    Unhealthy,
    /// It has been asked to end.
    Stopping,
    /// It ended and will be started again after a pause.
    BackingOff,
    /// It ended and that is all right.
    Done,
    /// It ended and will not be started again.
    Failed,
}

/// Counters of the ingress service since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressCounters {
    /// Connections carried.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections closed because no such target exists, the service refused, or the cap was reached.
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
    /// The status, at once and after each change, with as many services as fit.
    Status(Head),
    /// More services of the status before it.
    Services(Page),
    /// The answer to the request with this id.
    Reply {
        /// The request's id.
        id: u64,
        /// What came of it.
        reply: Reply,
    },
}

/// What the host, or a local program, sends after its hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromHost {
    /// Chosen by the sender; the reply carries it back.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Whether the supervisor answers.
    Ping,
    /// End the enclave in order. Answered at once; the state tells the rest.
    Stop,
    /// Refuse new ingress connections and let the open ones end.
    Drain,
    /// Send a signal to a service's main process. Only where the manifest's `control` allows `signal`.
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
    /// Start, stop or restart one service. Only where the manifest's `control` allows the verb.
    Service {
        /// The service.
        service: String,
        /// What to do with it.
        verb: Verb,
    },
    /// Resource use by service, from the cgroups.
    Stats,
    /// What confines a service, as read back from the kernel.
    Inspect {
        /// The service.
        service: String,
    },
}

/// What can be done with one service.
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

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// It was done, or is under way.
    Done,
    /// It was not done.
    Refused {
        /// Why, for people.
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
        assert_eq!(serde_json::to_string(&stop).unwrap(), r#"{"id":3,"request":{"ask":"stop"}}"#);
    }

    #[test]
    fn a_status_read_back_is_the_status_written() {
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
        };
        let text = serde_json::to_string(&FromGuest::Status(status.clone().into())).unwrap();
        assert_eq!(serde_json::from_str::<FromGuest>(&text).unwrap(), FromGuest::Status(status.into()));
    }

    #[test]
    fn a_request_nobody_defined_is_refused() {
        assert!(
            serde_json::from_str::<FromHost>(r#"{"id":1,"request":{"ask":"exec","argv":["sh"]}}"#).is_err()
        );
    }

    #[test]
    fn only_the_three_ends_are_final() {
        assert!(State::Fatal { stage: String::new(), error: String::new() }.is_final());
        assert!(!State::Ready.is_final());
        assert!(!State::Stopping { why: String::new() }.is_final());
    }
}
