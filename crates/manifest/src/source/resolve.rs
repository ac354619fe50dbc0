//! Resolves a checked plan and an image into the manifest that is measured.
//!
//! Invariant: the result is complete. Each value comes from the manifest, else from the image, else from
//! [`super::defaults`]; names of users and groups are numbers; every path that must exist does.

use std::collections::BTreeMap;

use super::accounts::{Accounts, Identity, Unknown};
use super::check::{Plan, Route};
use super::command::{self, Place, check_strings};
use super::defaults;
use super::document::ControlEntry;
use super::graph::Named;
use super::hint;
use super::image::{
    EntryKind, Image, ImageConfig, PRIVATE_DIRECTORIES, find, hidden_by, is_created_inside, walk,
};
use super::names::MAX_ID;
use super::platforms;
use super::problem::{Kind, Problem, Problems, Span};
use super::read::Spanned;
use super::signal::Signal;
use super::translate::{self, kind, millis};
use super::view::{self, Pins};
use crate::model::{self, Manifest};

/// Resolves everything, and collects all problems. The result is complete only if there are none.
pub(super) fn resolve(plan: &Plan, image: &Image<'_>, problems: &mut Problems) -> Manifest {
    let accounts = Accounts::read(image.root);
    let scope = Scope { plan, image, accounts: &accounts };
    let attestation = scope.attestation();
    let mut ingress = plan.ingress.clone().unwrap_or_else(|| exposed(plan, image.config));
    // The manifest's own port takes precedence over one that only the image exposes; others were checked.
    ingress.retain(|route| Some(route.port) != attestation.port);
    command::check_repeats(plan, problems);
    let mut pins = Pins::default();
    let services: Vec<_> =
        plan.services.iter().map(|named| scope.service(named, &mut pins, problems)).collect();
    let document = &plan.document;
    Manifest {
        version: model::VERSION,
        name: scope.host_name(),
        platforms: platforms::allowed(document),
        stop_timeout_ms: millis(document.stop_timeout.as_ref(), total_stop_timeout(&services)),
        services,
        ingress: ingress.into_iter().map(translate::ingress).collect(),
        root: view::root(image, &scope.host_name(), translate::writable_bytes(document), pins, problems),
        control: scope.control(),
        attestation,
        debug: document.debug.as_ref().is_some_and(|flag| flag.0),
    }
}

/// Everything a service is resolved against.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    plan: &'a Plan,
    pub(super) image: &'a Image<'a>,
    accounts: &'a Accounts,
}

impl Scope<'_> {
    /// The enclave's name, which is every service's host name.
    pub(super) fn host_name(&self) -> String {
        match (&self.plan.document.name, self.plan.services.as_slice()) {
            (Some(name), _) => name.0.clone(),
            (None, [only]) => only.name.clone(),
            (None, _) => defaults::NAME.to_owned(),
        }
    }

    /// Every service of the manifest.
    pub(super) fn services(&self) -> impl Iterator<Item = &Named> {
        self.plan.services.iter()
    }

    fn service(&self, named: &Named, pins: &mut Pins, problems: &mut Problems) -> model::Service {
        let given = &named.service;
        let job = kind(given) == model::Kind::Job;
        let identity = self.identity(named, problems);
        let sealed = translate::sealed(given);
        let mut env = self.environment(named, identity.as_ref(), problems);
        env.retain(|name, _| !sealed.contains_key(name));
        let cwd = self.working_dir(named, problems);
        let files = self.files(named, pins, problems);
        let place = Place { env: &env, cwd: &cwd, files: &files };
        let argv = self.argv(named, identity.as_ref(), place, problems);
        check_strings(named, &env, &argv, problems);
        let user = identity.unwrap_or(Identity { uid: 0, gid: 0, groups: Vec::new(), home: String::new() });
        let start_timeout = if job { defaults::JOB_TIMEOUT_MS } else { defaults::START_TIMEOUT_MS };
        model::Service {
            name: named.name.clone(),
            kind: kind(given),
            argv,
            env,
            cwd,
            first_process: given
                .first_process
                .as_ref()
                .map_or(model::FirstProcess::Cloister, |first| first.value),
            uid: user.uid,
            gid: user.gid,
            groups: self.groups(named, user.groups, problems),
            after: sorted(given.after.as_ref(), |name| name.0.clone()),
            requires: sorted(given.requires.as_ref(), |name| name.0.clone()),
            ready: self.ready(named),
            start_timeout_ms: given.start_timeout.as_ref().map_or(start_timeout, |time| time.0),
            live: given.live.as_ref().and_then(|live| translate::live(live)),
            restart: translate::restart(given, job),
            critical: given.critical.as_ref().map_or(self.plan.services.len() == 1, |flag| flag.0),
            stop_signal: self.stop_signal(named, problems),
            stop_timeout_ms: millis(given.stop_timeout.as_ref(), defaults::STOP_TIMEOUT_MS),
            logs: given.logs.as_ref().map_or(model::Logs::Forward, |logs| logs.value),
            limits: translate::limits(given),
            isolation: self.isolation(named, user.uid, pins, problems),
            files,
            sealed,
        }
    }

    /// The user and groups, as set by the manifest or by the image; reports an unknown one.
    fn identity(&self, named: &Named, problems: &mut Problems) -> Option<Identity> {
        let (spec, at, whose) = match &named.service.user {
            Some(user) => (user.0.as_str(), user.span, ""),
            None if self.image.config.user.is_empty() => ("root", named.name_span, ""),
            None => {
                (self.image.config.user.as_str(), named.name_span, "the image's own user does not exist: ")
            }
        };
        match self.accounts.identity(spec) {
            Ok(identity) => Some(identity),
            Err(unknown) => {
                problems.push(self.unknown_account(&unknown, at, whose));
                None
            }
        }
    }

    fn unknown_account(&self, unknown: &Unknown, at: Span, whose: &str) -> Problem {
        let (what, file, guess) = match unknown {
            Unknown::User(name) => {
                ("user", "/etc/passwd", hint::did_you_mean(name, self.accounts.user_names()))
            }
            Unknown::Group(name) => {
                ("group", "/etc/group", hint::did_you_mean(name, self.accounts.group_names()))
            }
        };
        let (Unknown::User(name) | Unknown::Group(name)) = unknown;
        Problem::new(Kind::Image, at, format!("{whose}there is no {what} `{name}` in the image"))
            .label(format!("not in its {file}"))
            .hint(guess.unwrap_or_else(|| {
                let digits = name.bytes().all(|byte| byte.is_ascii_digit());
                if digits {
                    format!("the largest {what} id is {MAX_ID}")
                } else {
                    format!("use a numeric {what} id")
                }
            }))
    }

    fn groups(&self, named: &Named, of_user: Vec<u32>, problems: &mut Problems) -> Vec<u32> {
        let Some(list) = &named.service.groups else { return of_user };
        let mut groups = Vec::new();
        for spec in &list.value {
            match self.accounts.group(&spec.0) {
                Ok(gid) => groups.push(gid),
                Err(unknown) => problems.push(self.unknown_account(&unknown, spec.span, "")),
            }
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn working_dir(&self, named: &Named, problems: &mut Problems) -> String {
        let (path, at) = match &named.service.working_dir {
            Some(path) => (path.0.clone(), path.span),
            None => (absolute(&self.image.config.working_dir), named.name_span),
        };
        if PRIVATE_DIRECTORIES.contains(&path.as_str()) {
            return path;
        }
        let found = find(self.image.root, &path);
        // By the path without links: a directory is created at the target of a link.
        let place = found.as_ref().map_or_else(|_| path.clone(), |found| format!("/{}", found.path));
        if is_created_inside(&place) {
            return place;
        }
        let problem = match found {
            _ if hidden_by(&place).is_some() => Problem::new(
                Kind::Image,
                at,
                format!("the working directory `{path}` is hidden in the enclave"),
            )
            .label(format!("every service has its own `{}`", hidden_by(&place).unwrap_or("/"))),
            Ok(found) if found.entry.kind == EntryKind::Directory => return path,
            Ok(_) => {
                Problem::new(Kind::Image, at, format!("the working directory `{path}` is not a directory"))
            }
            Err(missing) => {
                Problem::new(Kind::Image, at, format!("the working directory `{path}` does not exist"))
                    .label(missing.why(&path))
            }
        };
        problems.push(problem.hint("create it in the image, or set another `working_dir`"));
        path
    }

    /// The manifest's check; else a connection to the first ingress target, if the manifest names one.
    fn ready(&self, named: &Named) -> model::Ready {
        let guess = || {
            let routes = self.plan.ingress.as_ref()?;
            let first = routes.iter().find(|route| route.service == named.name)?;
            (kind(&named.service) == model::Kind::Service).then_some(model::Ready::Tcp(first.target))
        };
        let given = named.service.ready.as_ref().and_then(|ready| translate::ready(&ready.value));
        given.or_else(guess).unwrap_or(model::Ready::Started)
    }

    fn stop_signal(&self, named: &Named, problems: &mut Problems) -> u8 {
        if let Some(signal) = &named.service.stop_signal {
            return signal.0;
        }
        if self.image.config.stop_signal.is_empty() {
            return defaults::STOP_SIGNAL.0;
        }
        match Signal::parse(&self.image.config.stop_signal) {
            Ok(signal) => signal.0,
            Err(invalid) => {
                let what =
                    format!("the image's stop signal `{}` is not a signal", self.image.config.stop_signal);
                let problem = Problem::new(Kind::Image, named.name_span, what).label(invalid.reason);
                problems.push(problem.hint("set the service's `stop_signal`"));
                defaults::STOP_SIGNAL.0
            }
        }
    }

    fn isolation(
        &self,
        named: &Named,
        uid: u32,
        pins: &mut Pins,
        problems: &mut Problems,
    ) -> model::Isolation {
        let service = &named.service;
        model::Isolation {
            capabilities: service.capabilities.as_ref().map(|list| list.names(uid)).unwrap_or_default(),
            allow_syscalls: sorted(service.allow_syscalls.as_ref(), |name| name.0.clone()),
            writable: self.writable(named, pins, problems),
        }
    }

    /// The paths it may write, without links. Its private directories are writable anyway, and with `/` everything is.
    /// The paths are pinned in every view: a service that may write elsewhere could otherwise rename or remove them, or a
    /// directory on the path to them.
    fn writable(&self, named: &Named, pins: &mut Pins, problems: &mut Problems) -> Option<Vec<String>> {
        let list = named.service.writable.as_ref()?;
        let mut paths = Vec::new();
        for path in &list.value {
            match find(self.image.root, &path.0) {
                _ if PRIVATE_DIRECTORIES.contains(&path.0.as_str()) => {}
                Ok(found) => paths.push(format!("/{}", found.path)),
                Err(missing) => {
                    let problem =
                        Problem::new(Kind::Image, path.span, format!("`{}` cannot be made writable", path.0));
                    problems.push(problem.label(missing.why(&path.0)).hint("create it in the image"));
                }
            }
        }
        paths.retain(|path| hidden_by(path).is_none() && !PRIVATE_DIRECTORIES.contains(&path.as_str()));
        paths.sort_unstable();
        paths.dedup();
        if paths.iter().any(|path| path == "/") {
            return None;
        }
        // A single service needs no protection from others, and so no rename is refused to it.
        let all_walked = list.value.iter().filter_map(|path| walk(self.image.root, &path.0).ok());
        for walked in all_walked.filter(|_| self.plan.services.len() > 1) {
            if paths.contains(&format!("/{}", walked.path)) {
                pins.add(&walked);
            }
        }
        Some(paths)
    }

    fn attestation(&self) -> model::Attestation {
        let rules = self.plan.document.attestation.as_ref().map(|rules| &rules.value);
        let port = rules.and_then(|rules| rules.port.as_ref()).map(|port| port.0);
        let entries =
            rules.and_then(|rules| rules.services.as_ref()).into_iter().flat_map(|map| &map.value.0);
        let allowed =
            entries.map(|(name, verbs)| (name.value.0.clone(), sorted(verbs.as_ref(), |verb| *verb)));
        model::Attestation { port, services: allowed.filter(|(_, verbs)| !verbs.is_empty()).collect() }
    }

    fn control(&self) -> model::Control {
        let (host, services) = match self.plan.document.control.as_ref().map(|control| &control.value) {
            None => (None, None),
            Some(ControlEntry::Host(host)) => (Some(host), None),
            Some(ControlEntry::Rules(rules)) => (rules.host.as_deref(), rules.services.as_ref()),
        };
        let mut verbs: Vec<_> = host.into_iter().flatten().map(|verb| verb.value).collect();
        verbs.sort_unstable();
        verbs.dedup();
        model::Control { host: verbs, services: sorted(services, |name| name.0.clone()) }
    }
}

/// An image's working directory as an absolute path.
fn absolute(path: &str) -> String {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

/// The TCP ports that the image exposes, for the only service.
pub(super) fn exposed(plan: &Plan, config: &ImageConfig) -> Vec<Route> {
    let [only] = plan.services.as_slice() else { return Vec::new() };
    let mut ports: Vec<u16> = config.exposed_ports.keys().filter_map(|text| tcp_port(text)).collect();
    ports.sort_unstable();
    ports.dedup();
    let route = |port| Route { port, service: only.name.clone(), target: port, proxy_protocol: false };
    ports.into_iter().map(route).collect()
}

/// `80/tcp` or `80`; the protocol defaults to TCP (image-spec, `ExposedPorts`).
fn tcp_port(text: &str) -> Option<u16> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = port.parse().ok().filter(|port| *port != 0);
    port.filter(|_| protocol == "tcp")
}

/// The time that the slowest chain of services that stop in sequence may take, plus the time for open connections.
fn total_stop_timeout(services: &[model::Service]) -> u64 {
    let mut until: BTreeMap<&str, u64> = BTreeMap::new();
    for service in services {
        let before =
            service.after.iter().chain(&service.requires).filter_map(|name| until.get(name.as_str()));
        let longest = before.max().copied().unwrap_or(0).saturating_add(service.stop_timeout_ms);
        until.insert(&service.name, longest);
    }
    until.into_values().max().unwrap_or(0).saturating_add(defaults::DRAIN_MS)
}

fn sorted<T, K: Ord>(list: Option<&Spanned<Vec<Spanned<T>>>>, key: impl Fn(&T) -> K) -> Vec<K> {
    let mut keys: Vec<K> =
        list.into_iter().flat_map(|list| list.value.iter()).map(|item| key(&item.value)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
