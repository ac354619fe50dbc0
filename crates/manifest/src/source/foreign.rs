//! Field names of other tools, and their equivalents here.
//!
//! Invariant: advice names only fields that exist. Users of compose files, Kubernetes, systemd or Dockerfiles find the field
//! they want without reading the reference.

/// The foreign field, the field that must exist here for the advice to apply (empty: none), and the advice.
const ADVICE: &[(&str, &str, &str)] = &[
    ("build", "", "the image is given on the command line: `--image`"),
    (
        "cap_add",
        "capabilities",
        "use `capabilities`: `docker` for docker's default set, `[docker, NAME]` to add to it",
    ),
    ("cap_drop", "capabilities", "a service has only the capabilities that `capabilities` lists"),
    ("cmd", "command", "use `command` for the whole command line, or `args` to keep the image's entrypoint"),
    ("container_name", "name", "use `name`"),
    ("cpus", "cpu", "use `cpu`"),
    ("cpus", "limits", "use `limits: {cpu: …}`"),
    ("cwd", "working_dir", "use `working_dir`"),
    ("depends_on", "after", "use `after` for ordering, or `requires` to also stop with it"),
    ("deploy", "limits", "use `limits` and `restart`"),
    ("entrypoint", "command", "use `command`"),
    ("environment", "env", "use `env`"),
    ("execstart", "command", "use `command`"),
    ("exec_start", "command", "use `command`"),
    ("expose", "ingress", "use `ingress`"),
    ("expose", "ready", "list ports in the top-level field `ingress`"),
    ("group", "user", "use `user: name:group`"),
    ("group_add", "groups", "use `groups`"),
    ("healthcheck", "live", "use `ready` for startup and `live` afterwards"),
    ("image", "", "the image is given on the command line: `--image`"),
    ("init", "", "every enclave has an init that reaps orphans"),
    ("limit_nofile", "limits", "use `limits: {open_files: …}`"),
    ("livenessprobe", "live", "use `live`"),
    ("local_users", "services", "list the services that may send requests, regardless of their users"),
    ("logging", "logs", "use `logs`"),
    ("mem_limit", "limits", "use `limits: {memory: …}`"),
    ("memory", "limits", "use `limits: {memory: …}`"),
    ("network_mode", "", "an enclave has its own network; `ingress` lists the ports reachable from outside"),
    ("nofile", "open_files", "use `open_files`"),
    ("oneshot", "kind", "use `kind: job`"),
    ("pids_limit", "limits", "use `limits: {pids: …}`"),
    ("ports", "ingress", "use `ingress`"),
    ("ports", "ready", "list ports in the top-level field `ingress`"),
    (
        "privileged",
        "capabilities",
        "use `capabilities: docker`, and list what is needed beyond it there and in `allow_syscalls`",
    ),
    ("read_only", "writable", "use `writable: []`"),
    ("readinessprobe", "ready", "use `ready`"),
    ("secrets", "sealed", "use `sealed`, or `files`"),
    ("security_opt", "allow_syscalls", "use `allow_syscalls`"),
    ("startup_timeout", "start_timeout", "use `start_timeout`"),
    ("stop_grace_period", "stop_timeout", "use `stop_timeout`"),
    ("tmpfs", "writable", "each service has its own /tmp"),
    ("type", "kind", "use `kind`"),
    ("ulimits", "limits", "use `limits: {open_files: …}`"),
    ("volumes", "files", "nothing is mounted from the host; use `files` for small files"),
    ("volumes", "", "nothing is mounted from the host"),
    ("wants", "after", "use `after`"),
    ("watchdog_sec", "live", "use `live: {watchdog: …}`"),
    ("workdir", "working_dir", "use `working_dir`"),
];

/// The advice for a field name; `known` are the fields that exist at its place.
pub(super) fn advice(word: &str, known: &[&str]) -> Option<&'static str> {
    let word = word.to_lowercase().replace('-', "_");
    let fits = |field: &str| field.is_empty() || known.contains(&field);
    let found = ADVICE.iter().find(|(foreign, field, _)| *foreign == word && fits(field))?;
    Some(found.2)
}
