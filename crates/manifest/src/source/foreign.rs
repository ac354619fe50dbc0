//! Words of other tools' files, and what they are called here.
//!
//! Its law: advice names only what exists; people who come from compose files, Kubernetes, systemd or Dockerfiles find the
//! field they want without reading a reference.

/// A field elsewhere, what it is here (the field that must exist for the advice to fit; empty for any), and the advice.
const ADVICE: &[(&str, &str, &str)] = &[
    ("build", "", "the image is named on the command line: `--image`"),
    ("cap_add", "capabilities", "use `capabilities`: `docker` for docker's own, `[docker, NAME]` for more"),
    ("cap_drop", "capabilities", "no capability is there unless `capabilities` names it"),
    ("cmd", "command", "use `command` for the whole command line, or `args` to keep the image's entrypoint"),
    ("container_name", "name", "use `name`"),
    ("cpus", "cpu", "use `cpu`"),
    ("cpus", "limits", "use `limits: {cpu: …}`"),
    ("cwd", "working_dir", "use `working_dir`"),
    ("depends_on", "after", "use `after` for the order, or `requires` to end with it too"),
    ("deploy", "limits", "use `limits` and `restart`"),
    ("entrypoint", "command", "use `command`"),
    ("environment", "env", "use `env`"),
    ("execstart", "command", "use `command`"),
    ("exec_start", "command", "use `command`"),
    ("expose", "ingress", "use `ingress`"),
    ("expose", "ready", "ports are opened by the manifest's `ingress`"),
    ("group", "user", "use `user: name:group`"),
    ("group_add", "groups", "use `groups`"),
    ("healthcheck", "live", "use `ready` for the start and `live` for later"),
    ("image", "", "the image is named on the command line: `--image`"),
    ("init", "", "every enclave has an init that reaps"),
    ("limit_nofile", "limits", "use `limits: {open_files: …}`"),
    ("livenessprobe", "live", "use `live`"),
    ("local_users", "services", "name the services that may, whatever their users are"),
    ("logging", "logs", "use `logs`"),
    ("mem_limit", "limits", "use `limits: {memory: …}`"),
    ("memory", "limits", "use `limits: {memory: …}`"),
    ("network_mode", "", "an enclave has its own network; `ingress` names what is reached from outside"),
    ("nofile", "open_files", "use `open_files`"),
    ("oneshot", "kind", "use `kind: job`"),
    ("pids_limit", "limits", "use `limits: {pids: …}`"),
    ("ports", "ingress", "use `ingress`"),
    ("ports", "ready", "ports are opened by the manifest's `ingress`"),
    (
        "privileged",
        "capabilities",
        "use `capabilities: docker`, and name what is needed beyond it there and in `allow_syscalls`",
    ),
    ("read_only", "writable", "use `writable: []`"),
    ("readinessprobe", "ready", "use `ready`"),
    ("secrets", "sealed", "use `sealed`, or `files`"),
    ("security_opt", "allow_syscalls", "use `allow_syscalls`"),
    ("startup_timeout", "start_timeout", "use `start_timeout`"),
    ("stop_grace_period", "stop_timeout", "use `stop_timeout`"),
    ("tmpfs", "writable", "each service has a /tmp of its own"),
    ("type", "kind", "use `kind`"),
    ("ulimits", "limits", "use `limits: {open_files: …}`"),
    ("volumes", "files", "nothing is mounted from the host; `files` holds small files"),
    ("volumes", "", "nothing is mounted from the host"),
    ("wants", "after", "use `after`"),
    ("watchdog_sec", "live", "use `live: {watchdog: …}`"),
    ("workdir", "working_dir", "use `working_dir`"),
];

/// The advice for a word, where `known` are the fields that could have been meant.
pub(super) fn advice(word: &str, known: &[&str]) -> Option<&'static str> {
    let word = word.to_lowercase().replace('-', "_");
    let fits = |field: &str| field.is_empty() || known.contains(&field);
    let found = ADVICE.iter().find(|(foreign, field, _)| *foreign == word && fits(field))?;
    Some(found.2)
}
