//! The fields of the YAML source, each with the description that editors show and its default.
//!
//! Invariant: this is the only place where a field is declared; reader, schema and hints are derived from it. Defaults are
//! filled in by [`super::defaults`] and [`mod@super::resolve`], which give their reasons; constraints between fields are
//! checked in [`super::check`].

use schemars::JsonSchema;

use super::capabilities::Capabilities;
use super::map::Map;
use super::names::{EnvName, GroupSpec, HttpPath, Path, ServiceName, Syscall, UserSpec};
use super::read::{Spanned, either, keywords, record};
use super::signal::Signal;
use super::units::{Count, Cpu, DebugFlag, Duration, Flag, Mode, Period, Port, Size, Text, Version};
use crate::model::{AttestationVerb, ControlVerb, FirstProcess, Kind, Logs, Policy};
use crate::platform::Platform;

record! {
    /// What an enclave runs, who can reach it and how it is confined.
    #[schemars(extend("not" = { "required": ["service", "services"] }))]
    struct Document: "a manifest", may_be_empty = false {
        /// The version of this format: `1`.
        #[schemars(required)]
        required version: Version,
        /// The host name inside the enclave, and the enclave's name if none is given at launch. Default: the only service's
        /// name, else `app`.
        optional name: ServiceName,
        /// The platforms that the image may run on; on any other, nothing is started. Default: all of them.
        #[schemars(extend("minItems" = 1, "uniqueItems" = true))]
        optional platforms: Vec<Spanned<Platform>>,
        /// A single service. With neither `service` nor `services`, the image's own command is the only service. In both
        /// cases its name is `app`.
        optional service: Service,
        /// The services by name, if there are several or the name matters.
        optional services: Services,
        /// The TCP ports that can be reached from outside. Default: those the image exposes, if there is one service.
        optional ingress: Vec<Spanned<IngressEntry>>,
        /// The file system that the services share.
        optional root: Root,
        /// Requests that a running enclave accepts in addition to reading its state and stopping it. Default: nothing.
        optional control: ControlEntry,
        /// Which services may use the security module from inside. Default: none, and the attestor is not started.
        optional attestation: AttestationRules,
        /// Time limit for stopping the whole enclave; what still runs then is killed. Default: the time that the slowest
        /// chain of dependent services may take, plus 5 seconds.
        optional stop_timeout: Duration,
        /// Whether the image is for development, in which commands can be executed. Not supported yet: only `false`, the
        /// default, is accepted.
        optional debug: DebugFlag,
    }
}

record! {
    /// One service or job. Omitted fields come from the image, else from the defaults.
    struct Service: "a service", may_be_empty = true {
        /// Whether it keeps running (`service`) or runs to completion (`job`). Default: `service`.
        optional kind: Kind,
        /// The program and its arguments, instead of the image's entrypoint and command.
        optional command: Vec<Spanned<Text>>,
        /// Arguments that replace the image's command; they are appended to its entrypoint or to `command`.
        optional args: Vec<Spanned<Text>>,
        /// Environment variables, added to the image's. `PATH`, `HOME` and `HOSTNAME` have defaults if neither sets them.
        optional env: Map<EnvName, Text>,
        /// The working directory. Default: the image's, else `/`.
        optional working_dir: Path,
        /// Process 1 of its PID namespace: `cloister`, a small program that reaps orphans and forwards signals, or `service`,
        /// its own program, for images that must be process 1. Default: `cloister`.
        optional first_process: FirstProcess,
        /// The user, with or without a group. Default: the image's, else `root`.
        optional user: UserSpec,
        /// Supplementary groups. Default: the groups in the image's `/etc/group` that list the user, or none if `user`
        /// includes a group.
        optional groups: Vec<Spanned<GroupSpec>>,
        /// Services that must be ready (a job: completed) before this one starts, if they start at all. Default: none.
        optional after: Vec<Spanned<ServiceName>>,
        /// Services it depends on: it starts after them and stops when one of them ends and will not be restarted. Default:
        /// none.
        optional requires: Vec<Spanned<ServiceName>>,
        /// When it counts as ready. Default: when its first `ingress` target accepts connections, if the manifest names one;
        /// else when it has started. A job is ready when it has exited with code 0.
        optional ready: Ready,
        /// Time limit for becoming ready; for a job, for completing. Default: `60s`; a job: `24h`.
        optional start_timeout: Period,
        /// The liveness check, made once it is ready. Default: only that it runs.
        optional live: Live,
        /// When it is restarted: a policy, or a map of the policy and its timing. Default: `on-failure`; a job: `never`.
        optional restart: RestartEntry,
        /// Whether the enclave ends when it ends, with its exit code. Default: `true` for the only service, else `false`.
        optional critical: Flag,
        /// The signal that requests termination. Default: the image's, else `SIGTERM`.
        optional stop_signal: Signal,
        /// Time limit for termination after that signal. Default: `10s`.
        optional stop_timeout: Duration,
        /// What happens to its output. Default: `forward`.
        optional logs: Logs,
        /// Resource limits of its cgroup and process.
        optional limits: Limits,
        /// The capabilities it keeps: a list, or `docker` for docker's default set. Default: none, even for root.
        optional capabilities: Capabilities,
        /// System calls to allow although the default filter refuses them. Default: none.
        optional allow_syscalls: Vec<Spanned<Syscall>>,
        /// The paths it may write below, besides `/tmp`, `/dev` and `/proc`; everything else is mounted read-only. Default:
        /// everywhere its user may.
        optional writable: Vec<Spanned<Path>>,
        /// Read-only files mounted into its root, by path: the content, or a map of content and mode.
        optional files: Map<Path, FileEntry>,
        /// Texts passed in sealed memory: the variable of each name holds the path to read the text from, `/dev/fd/N`.
        optional sealed: Map<EnvName, Text>,
    }
}

/// The services by name.
pub(super) type Services = Map<ServiceName, Service>;

either! {
    /// One port that can be reached from outside: its number, or a map.
    enum IngressEntry: "a port, or a map with `port`, `service` and `target`" {
        /// The same port number outside and inside, with the only service.
        Port(Port),
        /// All fields.
        Rule(IngressRule),
    }
}

record! {
    /// One port that can be reached from outside.
    struct IngressRule: "an ingress port", may_be_empty = false {
        /// The port number outside the enclave: `PORT` in `--publish HOST:PORT`.
        #[schemars(required)]
        required port: Port,
        /// The service that receives the connections. Default: the only service.
        optional service: ServiceName,
        /// The TCP port that the service listens on. Default: the same as `port`.
        optional target: Port,
        /// Whether a PROXY protocol version 2 header with the client's address is sent first. Default: `false`.
        optional proxy_protocol: Flag,
    }
}

record! {
    /// The file system that the services share.
    struct Root: "`root`", may_be_empty = false {
        /// The maximum that can be written on top of the read-only image; it is kept in memory. Default: `64MiB`.
        optional writable: Size,
    }
}

either! {
    /// Requests that a running enclave accepts: the actions that the host may request, or a map.
    enum ControlEntry: "a list of actions, or a map with `host` and `services`" {
        /// Actions on single services that the host may request.
        Host(Vec<Spanned<ControlVerb>>),
        /// All fields.
        Rules(ControlRules),
    }
}

record! {
    /// Who may control the services of a running enclave.
    struct ControlRules: "`control`", may_be_empty = false {
        /// Actions on single services that the host may request. Default: nothing.
        optional host: Vec<Spanned<ControlVerb>>,
        /// Services that may list, start, stop and signal services, and read their logs. Default: none.
        optional services: Vec<Spanned<ServiceName>>,
    }
}

record! {
    /// Who may use the security module of a running enclave, through the attestor.
    struct AttestationRules: "`attestation`", may_be_empty = false {
        /// The port number outside the enclave at which anyone may request evidence over HTTPS. Default: none.
        optional port: Port,
        /// The operations by service. Default: none.
        optional services: Map<ServiceName, Vec<Spanned<AttestationVerb>>>,
    }
}

either! {
    /// When a service counts as ready.
    enum Ready: "`started`, `notify`, or a map with `tcp`, `http`, `file` or `log`" {
        /// By a keyword.
        Keyword(ReadyKeyword),
        /// By a check.
        Probe(ReadyProbe),
    }
}

/// When a service counts as ready, as a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum ReadyKeyword {
    /// Its program has been executed.
    Started,
    /// It sends `READY=1` to `NOTIFY_SOCKET`, as in `sd_notify(3)`.
    Notify,
}

record! {
    /// The check that makes a service ready: one of these.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    struct ReadyProbe: "a readiness check", may_be_empty = false {
        /// It accepts connections on this TCP port.
        optional tcp: Port,
        /// It answers an HTTP request on this port and path with a status from 200 to 399.
        optional http: HttpEntry,
        /// This file exists.
        optional file: Path,
        /// A line of its output contains this text.
        optional log: Text,
    }
}

either! {
    /// An HTTP check: a port (with the path `/`), or a map.
    enum HttpEntry: "a port, or a map with `port` and `path`" {
        /// The port; the path is `/`.
        Port(Port),
        /// All fields.
        Request(HttpRequest),
    }
}

record! {
    /// An HTTP check.
    struct HttpRequest: "an HTTP check", may_be_empty = false {
        /// The port to connect to.
        #[schemars(required)]
        required port: Port,
        /// The path to request. Default: `/`.
        optional path: HttpPath,
    }
}

record! {
    /// The check of a service that is ready: one of `tcp`, `http` and `watchdog`, and its timing.
    #[schemars(extend("oneOf" = [{ "required": ["tcp"] }, { "required": ["http"] }, { "required": ["watchdog"] }]))]
    struct Live: "a liveness check", may_be_empty = false {
        /// It accepts connections on this TCP port.
        optional tcp: Port,
        /// It answers an HTTP request on this port and path with a status from 200 to 399.
        optional http: HttpEntry,
        /// It sends `WATCHDOG=1` to `NOTIFY_SOCKET` at least this often, as in `sd_notify(3)`.
        optional watchdog: Period,
        /// The time between two checks. Default: `10s`.
        optional interval: Period,
        /// Time limit for one check. Default: `3s`.
        optional timeout: Period,
        /// Consecutive failures that make it unhealthy: it is then killed, and `restart` applies. Default: `3`.
        optional threshold: Count,
    }
}

either! {
    /// When a service is restarted: a policy, or a map.
    enum RestartEntry: "`always`, `on-failure`, `never`, or a map with `policy` and timing" {
        /// The policy, with the default timing.
        Policy(Policy),
        /// All fields.
        Rules(RestartRules),
    }
}

record! {
    /// When a service is restarted.
    struct RestartRules: "`restart`", may_be_empty = false {
        /// The exits after which it is restarted. Default: `on-failure`; a job: `never`.
        optional policy: Policy,
        /// The delay before the first restart, measured from the exit; it doubles with each restart. Default: `200ms`.
        optional delay: Duration,
        /// The maximum delay. Default: `30s`.
        optional max_delay: Duration,
        /// After being ready for this long, delay and restart count are reset. Default: `60s`.
        optional stable: Period,
        /// Restarts without a stable period in between after which it has failed. Default: `5`.
        optional burst: Count,
    }
}

record! {
    /// Limits of a service.
    struct Limits: "`limits`", may_be_empty = false {
        /// Maximum memory; beyond it the kernel kills the service. Default: the enclave's.
        optional memory: Size,
        /// Maximum CPU time, as a number of CPUs. Default: all of them.
        optional cpu: Cpu,
        /// Maximum number of processes and threads. Default: half of what all services may have.
        optional pids: Count,
        /// Maximum number of open files. Default: `65536`.
        optional open_files: Count,
    }
}

either! {
    /// A file's content, or a map.
    enum FileEntry: "the content, or a map with `content` and `mode`" {
        /// The content; the mode is `0444`.
        Content(Text),
        /// All fields.
        Rule(FileRule),
    }
}

record! {
    /// A file.
    struct FileRule: "a file", may_be_empty = false {
        /// The file's content.
        #[schemars(required)]
        required content: Text,
        /// The file's permission bits. Default: `0444`.
        optional mode: Mode,
    }
}

keywords!(Kind: "a kind of service" {
    "service" => Self::Service,
    "job" => Self::Job,
});

keywords!(FirstProcess: "a first process" {
    "cloister" => Self::Cloister,
    "service" => Self::Service,
});

keywords!(Policy: "a restart policy" {
    "always" => Self::Always,
    "on-failure" => Self::OnFailure,
    "never" => Self::Never,
});

keywords!(Logs: "a log policy" {
    "forward" => Self::Forward,
    "drop" => Self::Drop,
});

keywords!(ControlVerb: "a control action" {
    "start" => Self::Start,
    "stop" => Self::Stop,
    "restart" => Self::Restart,
    "signal" => Self::Signal,
});

keywords!(AttestationVerb: "an operation of the attestor" {
    "evidence" => Self::Evidence,
    "random" => Self::Random,
    "extend" => Self::Extend,
    "lock" => Self::Lock,
});

keywords!(ReadyKeyword: "a readiness condition" {
    "started" => Self::Started,
    "notify" => Self::Notify,
});
