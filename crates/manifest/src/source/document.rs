//! The fields that people write, each with the description that editors show and its default.
//!
//! Its law: this is the one place where a field is declared; reader, schema and hints come from it. Defaults are filled in
//! by [`super::defaults`] and [`mod@super::resolve`], where their reasons stand; what must hold between fields is checked in
//! [`super::check`].

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::fault::Faults;
use super::names::{Capability, EnvName, GroupSpec, HttpPath, Path, ServiceName, Syscall, UserSpec};
use super::read::{FromScalar, Read, Spanned, either, no_value, record, words, wrong_type};
use super::signal::Signal;
use super::tree::{Entry, Node, Scalar, Value};
use super::units::{Count, Cpu, DebugFlag, Duration, Flag, Mode, Period, Port, Size, Text, Version};
use crate::model::{ControlVerb, Kind, Logs, Policy};

record! {
    /// What an enclave runs, who may reach it and what confines it.
    #[schemars(extend("not" = { "required": ["service", "services"] }))]
    struct Document: "a manifest", may_be_empty = false {
        /// The version of this format: `1`.
        #[schemars(required)]
        required version: Version,
        /// The name an operator sees where none is given at launch. Default: the only service's name, else `app`.
        optional name: ServiceName,
        /// The only service, where one is all there is. With neither `service` nor `services`, the image's own command is
        /// the only service, and its name is `app`.
        optional service: Service,
        /// The services by name, where there are several or the name matters.
        optional services: Services,
        /// The TCP ports that can be reached from outside. Default: those the image exposes, if there is one service.
        optional ingress: Vec<Spanned<IngressEntry>>,
        /// The file system that the services share.
        optional root: Root,
        /// What may be asked of a running enclave beyond reading its state and stopping it. Default: nothing.
        optional control: ControlEntry,
        /// How long a stop may take in all before what is left is killed. Default: what the slowest chain of dependent
        /// services may take, and 5 seconds.
        optional stop_timeout: Duration,
        /// Whether the image is for development, with commands that can be run inside. Not supported yet: only `false` is
        /// accepted, which is also the default.
        optional debug: DebugFlag,
    }
}

record! {
    /// One service or job. What is left out comes from the image, else from the defaults.
    struct Service: "a service", may_be_empty = true {
        /// Whether it is meant to run on (`service`) or to end (`job`). Default: `service`.
        optional kind: Kind,
        /// The program and its arguments, instead of the image's entrypoint and command.
        optional command: Vec<Spanned<Text>>,
        /// The arguments, instead of the image's command; its entrypoint, or the `command` given here, stays in front.
        optional args: Vec<Spanned<Text>>,
        /// Environment variables, added to the image's.
        optional env: Map<EnvName, Text>,
        /// The working directory. Default: the image's, else `/`.
        optional working_dir: Path,
        /// The user, with or without a group. Default: the image's, else `root`.
        optional user: UserSpec,
        /// Supplementary groups. Default: those that the image's `/etc/group` lists the user in, or none if `user` names a
        /// group.
        optional groups: Vec<Spanned<GroupSpec>>,
        /// Services that must be ready before this one starts (a job: done), if they start at all. Default: none.
        optional after: Vec<Spanned<ServiceName>>,
        /// Services it cannot do without: it starts after them and stops when one of them ends for good. Default: none.
        optional requires: Vec<Spanned<ServiceName>>,
        /// What makes it ready. Default: connections to its first `ingress` target, where the manifest names one; else
        /// that it has started. A job is ready when it has ended with code 0.
        optional ready: Ready,
        /// How long it may take to become ready; a job: to end. Default: `60s`; a job: no limit but `24h`.
        optional start_timeout: Period,
        /// How it is checked once it is ready. Default: only that it runs.
        optional live: Live,
        /// When it is started again: a policy, or a map of the policy and its timing. Default: `on-failure`; a job: `never`.
        optional restart: RestartEntry,
        /// Whether the enclave ends with it, with its exit code. Default: `true` for the only service, else `false`.
        optional critical: Flag,
        /// The signal that asks it to end. Default: the image's, else `SIGTERM`.
        optional stop_signal: Signal,
        /// How long it may take to end after that signal. Default: `10s`.
        optional stop_timeout: Duration,
        /// What happens to its output. Default: `forward`.
        optional logs: Logs,
        /// Limits of its cgroup and process.
        optional limits: Limits,
        /// The capabilities it keeps. Default: none, for root as well.
        optional capabilities: Vec<Spanned<Capability>>,
        /// System calls it may make although the default filter refuses them. Default: none.
        optional allow_syscalls: Vec<Spanned<Syscall>>,
        /// The paths below which it may write; `/tmp` and `/dev` are always among them. Default: wherever its user may.
        optional writable: Vec<Spanned<Path>>,
        /// Read-only files that it finds in its root, by path: the content, or a map of content and mode.
        optional files: Map<Path, FileEntry>,
        /// Texts that it is handed in sealed memory: the variable of each name holds the path to read it by, `/dev/fd/N`.
        optional sealed: Map<EnvName, Text>,
    }
}

/// The services by name.
pub(super) type Services = Map<ServiceName, Service>;

either! {
    /// One port that can be reached from outside: its number, or a map.
    enum IngressEntry: "a port, or a map with `port`, `service` and `target`" {
        /// The same number outside and inside, of the only service.
        Port(Port),
        /// All of it.
        Rule(IngressRule),
    }
}

record! {
    /// One port that can be reached from outside.
    struct IngressRule: "an ingress port", may_be_empty = false {
        /// Its number outside the enclave: what `--publish HOST:PORT` names.
        #[schemars(required)]
        required port: Port,
        /// The service behind it. Default: the only service.
        optional service: ServiceName,
        /// The TCP port that service listens on. Default: the same as `port`.
        optional target: Port,
        /// Whether the client's address is sent ahead by the PROXY protocol, version 2. Default: `false`.
        optional proxy_protocol: Flag,
    }
}

record! {
    /// The file system that the services share.
    struct Root: "`root`", may_be_empty = false {
        /// The most that can be written above the read-only image; it is held in memory. Default: `64MiB`.
        optional writable: Size,
    }
}

either! {
    /// What may be asked of a running enclave: the verbs the host may use, or a map.
    enum ControlEntry: "a list of verbs, or a map with `host` and `local_users`" {
        /// What the host may do with single services.
        Host(Vec<Spanned<ControlVerb>>),
        /// All of it.
        Rules(ControlRules),
    }
}

record! {
    /// Who may control the services of a running enclave.
    struct ControlRules: "`control`", may_be_empty = false {
        /// What the host may do with single services. Default: nothing.
        optional host: Vec<Spanned<ControlVerb>>,
        /// Users inside, besides root, who may use the local control socket. Default: nobody.
        optional local_users: Vec<Spanned<UserSpec>>,
    }
}

either! {
    /// What makes a service ready.
    enum Ready: "`started`, `notify`, or a map with `tcp`, `http`, `file` or `log`" {
        /// By a word.
        Word(ReadyWord),
        /// By a check.
        Probe(ReadyProbe),
    }
}

/// What makes a service ready, where a word says it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub(super) enum ReadyWord {
    /// Its program has been executed.
    Started,
    /// It says `READY=1` to `NOTIFY_SOCKET`, as in `sd_notify(3)`.
    Notify,
}

record! {
    /// What makes a service ready: one of these.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    struct ReadyProbe: "a readiness check", may_be_empty = false {
        /// It accepts connections on this TCP port.
        optional tcp: Port,
        /// It answers an HTTP request for this port and path with a status from 200 to 399.
        optional http: HttpEntry,
        /// This file exists.
        optional file: Path,
        /// A line of its output contains this text.
        optional log: Text,
    }
}

either! {
    /// An HTTP check: a port, whose path is `/`, or a map.
    enum HttpEntry: "a port, or a map with `port` and `path`" {
        /// The port; the path is `/`.
        Port(Port),
        /// All of it.
        Request(HttpRequest),
    }
}

record! {
    /// An HTTP check.
    struct HttpRequest: "an HTTP check", may_be_empty = false {
        /// The port that is asked.
        #[schemars(required)]
        required port: Port,
        /// The path that is asked for. Default: `/`.
        optional path: HttpPath,
    }
}

record! {
    /// How a service is checked once it is ready: one of `tcp`, `http` and `watchdog`, and its timing.
    #[schemars(extend("oneOf" = [{ "required": ["tcp"] }, { "required": ["http"] }, { "required": ["watchdog"] }]))]
    struct Live: "a liveness check", may_be_empty = false {
        /// It accepts connections on this TCP port.
        optional tcp: Port,
        /// It answers an HTTP request for this port and path with a status from 200 to 399.
        optional http: HttpEntry,
        /// It says `WATCHDOG=1` to `NOTIFY_SOCKET` at least this often, as in `sd_notify(3)`.
        optional watchdog: Period,
        /// The time between two checks. Default: `10s`.
        optional interval: Period,
        /// How long a check may take. Default: `3s`.
        optional timeout: Period,
        /// Failures in a row that make it unhealthy: it is then killed, and `restart` decides. Default: `3`.
        optional threshold: Count,
    }
}

either! {
    /// When a service is started again: a policy, or a map.
    enum RestartEntry: "`always`, `on-failure`, `never`, or a map with `policy` and timing" {
        /// The policy; its timing is the default.
        Policy(Policy),
        /// All of it.
        Rules(RestartRules),
    }
}

record! {
    /// When a service is started again.
    struct RestartRules: "`restart`", may_be_empty = false {
        /// When. Default: `on-failure`; a job: `never`.
        optional policy: Policy,
        /// The pause before the first restart, from the exit on; it doubles with each. Default: `200ms`.
        optional delay: Duration,
        /// The longest pause there is. Default: `30s`.
        optional max_delay: Duration,
        /// The time of being ready after which pause and count start over. Default: `60s`.
        optional stable: Period,
        /// Restarts without a stable time in between after which it has failed. Default: `5`.
        optional burst: Count,
    }
}

record! {
    /// Limits of a service.
    struct Limits: "`limits`", may_be_empty = false {
        /// The most memory it may use; past it the kernel kills it. Default: the enclave's.
        optional memory: Size,
        /// The most processor time, as a number of CPUs. Default: all of them.
        optional cpu: Cpu,
        /// The most processes and threads. Default: the kernel's.
        optional pids: Count,
        /// The most open files. Default: `65536`.
        optional open_files: Count,
    }
}

either! {
    /// A file's content, or a map.
    enum FileEntry: "the content, or a map with `content` and `mode`" {
        /// The content; the mode is `0444`.
        Content(Text),
        /// All of it.
        Rule(FileRule),
    }
}

record! {
    /// A file.
    struct FileRule: "a file", may_be_empty = false {
        /// What the file contains.
        #[schemars(required)]
        required content: Text,
        /// The permission bits. Default: `0444`.
        optional mode: Mode,
    }
}

words!(Kind: "a kind of service" {
    "service" => Self::Service,
    "job" => Self::Job,
});

words!(Policy: "a restart policy" {
    "always" => Self::Always,
    "on-failure" => Self::OnFailure,
    "never" => Self::Never,
});

words!(Logs: "a way to treat output" {
    "forward" => Self::Forward,
    "drop" => Self::Drop,
});

words!(ControlVerb: "a verb of control" {
    "start" => Self::Start,
    "stop" => Self::Stop,
    "restart" => Self::Restart,
    "signal" => Self::Signal,
});

words!(ReadyWord: "a sign of readiness" {
    "started" => Self::Started,
    "notify" => Self::Notify,
});

/// A map whose keys are names and mean something, in the order of the file. A value that could not be read is `None`: its
/// name is taken all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map<K, V>(pub(super) Vec<(Spanned<K>, Option<Spanned<V>>)>);

impl<K: FromScalar, V: Read> Read for Map<K, V> {
    fn wanted() -> Cow<'static, str> {
        "a map by name".into()
    }

    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            faults.push(wrong_type::<Self>(node));
            return None;
        };
        Some(Self(entries.iter().filter_map(|entry| read_entry(entry, faults)).collect()))
    }
}

/// A name and what it stands for.
type Pair<K, V> = (Spanned<K>, Option<Spanned<V>>);

fn read_entry<K: FromScalar, V: Read>(entry: &Entry, faults: &mut Faults) -> Option<Pair<K, V>> {
    let scalar = Scalar { text: entry.key.clone(), plain: true };
    let key = Spanned::<K>::read(&Node { span: entry.key_span, value: Value::Scalar(scalar) }, faults);
    let value = if entry.value.value == Value::Null && !V::MAY_BE_EMPTY {
        faults.push(no_value::<V>(&entry.key, entry.key_span));
        None
    } else {
        Spanned::<V>::read(&entry.value, faults)
    };
    Some((key?, value))
}

impl<K: JsonSchema, V: JsonSchema + Read> JsonSchema for Map<K, V> {
    fn schema_name() -> Cow<'static, str> {
        format!("MapOf{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<K>();
        let values = generator.subschema_for::<V>();
        if V::MAY_BE_EMPTY {
            return json_schema!({
                "type": "object",
                "propertyNames": keys,
                "additionalProperties": { "oneOf": [values, { "type": "null" }] },
            });
        }
        json_schema!({ "type": "object", "propertyNames": keys, "additionalProperties": values })
    }
}
