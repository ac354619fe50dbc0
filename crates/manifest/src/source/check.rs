//! Checks constraints between the fields of a manifest, before any image is read.
//!
//! Invariant: each check considers the values that exist; a value that could not be read was already reported and is skipped.

use std::collections::{BTreeMap, BTreeSet};

use super::defaults;
use super::document::{
    ControlEntry, Document, IngressEntry, Live, Ready, ReadyProbe, RestartEntry, RestartRules, Service,
};
use super::graph::{self, Named};
use super::listeners;
use super::names::ServiceName;
use super::platforms;
use super::problem::{Kind, Problem, Problems, Span};
use super::read::Spanned;
use super::units::Port;
use crate::model::{self, Policy};

/// A manifest whose fields agree with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) document: Document,
    /// In start order.
    pub(super) services: Vec<Named>,
    /// `None` if the image decides.
    pub(super) ingress: Option<Vec<Route>>,
}

/// One port that can be reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) port: u16,
    pub(super) service: String,
    pub(super) target: u16,
    pub(super) proxy_protocol: bool,
}

/// Checks a document and puts it into its final form.
pub(super) fn check(document: Document, problems: &mut Problems) -> Plan {
    let declared = declared(&document, problems);
    let names: BTreeSet<&str> = declared.iter().map(|service| service.name.as_str()).collect();
    if names.len() > model::MAX_SERVICES {
        let at = document.services.as_ref().map_or_else(Span::default, |services| services.span);
        let what = format!("{} services; the maximum is {}", names.len(), model::MAX_SERVICES);
        problems.push(Problem::new(Kind::Limit, at, what));
        return Plan { document, services: Vec::new(), ingress: None };
    }
    graph::check_names(&declared, &names, problems);
    let attestation = document.attestation.as_ref().and_then(|rules| rules.value.port.as_ref());
    let ingress = document.ingress.as_ref().map(|list| routes(&list.value, attestation, &names, problems));
    for named in &declared {
        check_service(named, problems);
    }
    if let Some(list) = &document.platforms {
        no_repeats(&list.value, problems);
        platforms::check(list, problems);
    }
    check_control(&document, &names, problems);
    check_attestation(&document, &names, problems);
    check_stop_timeout(&document, &declared, problems);
    listeners::check(&document, &declared, problems);
    let services = graph::start_order(declared, problems);
    Plan { document, services, ingress }
}

/// Only existing services can be given control.
fn check_control(document: &Document, names: &BTreeSet<&str>, problems: &mut Problems) {
    let Some(ControlEntry::Rules(rules)) = document.control.as_ref().map(|control| &control.value) else {
        return;
    };
    for name in rules.services.iter().flat_map(|list| &list.value) {
        if !names.contains(name.0.as_str()) {
            problems.push(graph::unknown_service(name, names));
        }
    }
}

/// Only existing services can be given access to the attestor.
fn check_attestation(document: &Document, names: &BTreeSet<&str>, problems: &mut Problems) {
    let rules = document.attestation.as_ref().and_then(|rules| rules.value.services.as_ref());
    for (name, _) in rules.iter().flat_map(|map| &map.value.0) {
        if !names.contains(name.0.as_str()) {
            problems.push(graph::unknown_service(name, names));
        }
    }
}

/// The services, in any of the three forms in which they can be defined.
fn declared(document: &Document, problems: &mut Problems) -> Vec<Named> {
    match (&document.service, &document.services) {
        (Some(one), Some(many)) => {
            let problem = Problem::new(Kind::Conflict, one.span, "both `service` and `services` are given");
            problems.push(problem.related(many.span, "and here").hint("move it into `services`"));
            Vec::new()
        }
        (Some(one), None) => vec![unnamed(one.value.clone(), one.span, problems)],
        (None, None) => vec![unnamed(Service::default(), Span::default(), problems)],
        (None, Some(many)) if many.0.is_empty() && !problems.any_within(many.span) => {
            let problem = Problem::new(Kind::MissingField, many.span, "no service is defined");
            problems.push(problem.hint("add one: `services: {web: {}}`; its settings come from the image"));
            Vec::new()
        }
        (None, Some(many)) => {
            many.0.iter().map(|(name, service)| named(name, service.as_ref(), problems)).collect()
        }
    }
}

fn unnamed(service: Service, span: Span, problems: &Problems) -> Named {
    let name_span = Span { start: span.start, end: span.start };
    Named { name: defaults::NAME.to_owned(), name_span, service, span, damaged: problems.any_within(span) }
}

fn named(name: &Spanned<ServiceName>, service: Option<&Spanned<Service>>, problems: &Problems) -> Named {
    let end = service.map_or(name.span.end, |service| service.span.end.max(name.span.end));
    let span = Span { start: name.span.start, end };
    Named {
        name: name.0.clone(),
        name_span: name.span,
        service: service.map(|service| service.value.clone()).unwrap_or_default(),
        span,
        damaged: service.is_none() || problems.any_within(span),
    }
}

/// Reports duplicate entries of a list.
pub(super) fn no_repeats<T: Ord>(list: &[Spanned<T>], problems: &mut Problems) {
    let mut first = BTreeMap::new();
    for item in list {
        if let Some(earlier) = first.insert(&item.value, item.span) {
            let problem = Problem::new(Kind::Duplicate, item.span, "this entry is in the list twice");
            problems.push(problem.label("again here").related(earlier, "first here"));
        }
    }
}

/// The ingress ports, with the defaults of their short forms.
fn routes(
    list: &[Spanned<IngressEntry>],
    attestation: Option<&Spanned<Port>>,
    names: &BTreeSet<&str>,
    problems: &mut Problems,
) -> Vec<Route> {
    let attestation = attestation.map(|port| Spanned { value: port.0, span: port.span });
    let ports: Vec<_> = list.iter().filter_map(outside_port).chain(attestation).collect();
    let mut first = BTreeMap::new();
    for port in &ports {
        if let Some(earlier) = first.insert(port.value, port.span) {
            let problem = Problem::new(
                Kind::Conflict,
                port.span,
                format!("ingress port {} is defined twice", port.value),
            );
            let hint = "a port can lead to one target only: choose another `port` for one of them";
            problems.push(problem.label("again here").related(earlier, "first here").hint(hint));
        }
    }
    list.iter().filter_map(|entry| route(entry, names, problems)).collect()
}

fn outside_port(entry: &Spanned<IngressEntry>) -> Option<Spanned<u16>> {
    match &entry.value {
        IngressEntry::Port(port) => Some(Spanned { value: port.0, span: entry.span }),
        IngressEntry::Rule(rule) => rule.port.as_ref().map(|port| Spanned { value: port.0, span: port.span }),
    }
}

fn route(entry: &Spanned<IngressEntry>, names: &BTreeSet<&str>, problems: &mut Problems) -> Option<Route> {
    let port = outside_port(entry)?.value;
    let rule = match &entry.value {
        IngressEntry::Port(_) => None,
        IngressEntry::Rule(rule) => Some(rule),
    };
    let service = match rule.and_then(|rule| rule.service.as_ref()) {
        Some(name) if names.contains(name.0.as_str()) => name.0.clone(),
        Some(name) => {
            problems.push(graph::unknown_service(name, names));
            return None;
        }
        None => only(names, entry.span, port, problems)?,
    };
    let target = rule.and_then(|rule| rule.target.as_ref()).map_or(port, |target| target.0);
    let proxy_protocol = rule.and_then(|rule| rule.proxy_protocol.as_ref()).is_some_and(|flag| flag.0);
    Some(Route { port, service, target, proxy_protocol })
}

/// The only service.
fn only(names: &BTreeSet<&str>, at: Span, port: u16, problems: &mut Problems) -> Option<String> {
    let mut names = names.iter();
    match (names.next(), names.next()) {
        (Some(only), None) => Some((*only).to_owned()),
        (Some(first), Some(_)) => {
            let problem = Problem::new(
                Kind::MissingField,
                at,
                format!("ingress port {port} does not name its service"),
            );
            problems.push(
                problem
                    .hint(format!("there are several services: write `{{port: {port}, service: {first}}}`")),
            );
            None
        }
        (None, _) => None,
    }
}

fn check_service(named: &Named, problems: &mut Problems) {
    let service = &named.service;
    if service.kind.as_ref().is_some_and(|kind| kind.value == model::Kind::Job) {
        check_job(service, problems);
    }
    if let Some(Spanned { value: Ready::Probe(probe), span }) = &service.ready {
        check_one_of(*span, &probe_fields(probe), problems);
    }
    if let Some(live) = &service.live {
        check_live(live, problems);
    }
    if let Some(Spanned { value: RestartEntry::Rules(rules), .. }) = &service.restart {
        check_delays(rules, problems);
    }
    if let Some(list) = &service.capabilities {
        no_repeats(&list.0, problems);
    }
    if let Some(list) = &service.allow_syscalls {
        no_repeats(&list.value, problems);
    }
    if let Some(list) = &service.writable {
        no_repeats(&list.value, problems);
    }
    check_sealed(service, problems);
    check_open_files(service, problems);
    if let Some(list) = &service.command
        && list.value.is_empty()
        && !problems.any_within(list.span)
    {
        let problem = Problem::new(Kind::BadValue, list.span, "the command is empty");
        problems.push(problem.hint("remove the line to use the image's command"));
    }
}

/// A variable has one value only, and each sealed text is a descriptor that is open when the program starts.
fn check_sealed(service: &Service, problems: &mut Problems) {
    let Some(sealed) = &service.sealed else { return };
    if sealed.0.len() > model::MAX_SEALED {
        let what = format!("{} sealed texts; the maximum is {}", sealed.0.len(), model::MAX_SEALED);
        problems.push(Problem::new(Kind::Limit, sealed.span, what).hint("combine several into one"));
    }
    let variables = service.env.iter().flat_map(|env| env.0.iter());
    for (name, _) in variables {
        if let Some((again, _)) = sealed.0.iter().find(|(other, _)| other.value == name.value) {
            let what = format!("`{}` is in both `env` and `sealed`", name.value.0);
            let problem = Problem::new(Kind::Conflict, again.span, what).related(name.span, "and here");
            problems.push(problem.hint("its value is the path of the sealed text: remove it from `env`"));
        }
    }
}

/// Files that a program has open before it does anything: the three standard streams and its sealed texts, and those with
/// which its loader finds its libraries.
const MIN_OPEN_FILES: usize = 8;

/// A program that cannot open its own libraries does not start.
fn check_open_files(service: &Service, problems: &mut Problems) {
    let sealed = service.sealed.as_ref().map_or(0, |sealed| sealed.0.len());
    let least = MIN_OPEN_FILES.saturating_add(sealed);
    let limit = service.limits.as_ref().and_then(|limits| limits.open_files.as_ref());
    if let Some(limit) = limit.filter(|limit| usize::try_from(limit.0).is_ok_and(|files| files < least)) {
        let what = format!("no program can start with {} open files", limit.0);
        let problem =
            Problem::new(Kind::Limit, limit.span, what).label("standard streams, sealed texts, libraries");
        problems.push(problem.hint(format!("set at least {least}")));
    }
}

/// Refuses fields that make no sense for a job.
fn check_job(service: &Service, problems: &mut Problems) {
    let mut refuse = |span: Span, what: &str, hint: &str| {
        problems.push(Problem::new(Kind::Conflict, span, what).hint(hint));
    };
    if let Some(ready) = &service.ready {
        refuse(
            ready.span,
            "a job cannot have `ready`: it is ready when it has exited with code 0",
            "remove it",
        );
    }
    if let Some(live) = &service.live {
        refuse(
            live.span,
            "a job cannot have `live`: it is watched until it exits",
            "use `start_timeout` to limit its time",
        );
    }
    let policy = match service.restart.as_ref().map(|restart| &restart.value) {
        Some(RestartEntry::Policy(policy)) => service.restart.as_ref().map(|restart| (*policy, restart.span)),
        Some(RestartEntry::Rules(rules)) => rules.policy.as_ref().map(|policy| (policy.value, policy.span)),
        None => None,
    };
    if let Some((Policy::Always, span)) = policy {
        refuse(
            span,
            "a job that is always restarted never completes",
            "use `on-failure`, or `kind: service`",
        );
    }
}

/// A field's name and the position of its value.
type Given = (&'static str, Option<Span>);

fn probe_fields(probe: &ReadyProbe) -> [Given; 4] {
    [
        ("tcp", probe.tcp.as_ref().map(|v| v.span)),
        ("http", probe.http.as_ref().map(|v| v.span)),
        ("file", probe.file.as_ref().map(|v| v.span)),
        ("log", probe.log.as_ref().map(|v| v.span)),
    ]
}

/// Exactly one of the fields must be given.
fn check_one_of(within: Span, fields: &[Given], problems: &mut Problems) {
    let given: Vec<_> = fields.iter().filter_map(|(name, span)| span.map(|span| (*name, span))).collect();
    let names = super::hint::one_of(fields.iter().map(|(name, _)| *name));
    match given.as_slice() {
        [] if !problems.any_within(within) => {
            problems.push(Problem::new(Kind::MissingField, within, format!("this needs one of {names}")));
        }
        [(first, at), (second, also), ..] => {
            let problem =
                Problem::new(Kind::Conflict, *also, format!("both `{first}` and `{second}` are given"));
            problems.push(problem.related(*at, "and here").hint(format!("use one of {names}")));
        }
        _ => {}
    }
}

fn check_live(live: &Spanned<Live>, problems: &mut Problems) {
    let fields = [
        ("tcp", live.tcp.as_ref().map(|v| v.span)),
        ("http", live.http.as_ref().map(|v| v.span)),
        ("watchdog", live.watchdog.as_ref().map(|v| v.span)),
    ];
    check_one_of(live.span, &fields, problems);
    if let (Some(watchdog), Some(interval)) = (&live.watchdog, &live.interval) {
        let problem = Problem::new(Kind::Conflict, interval.span, "a watchdog cannot have an `interval`");
        problems.push(problem.related(watchdog.span, "this is the interval").hint("remove `interval`"));
    }
}

fn check_delays(rules: &RestartRules, problems: &mut Problems) {
    let Some(delay) = &rules.delay else { return };
    let longest = rules.max_delay.as_ref().map_or(defaults::RESTART_MAX_DELAY_MS, |max| max.0);
    if delay.0 > longest {
        let problem = Problem::new(Kind::Conflict, delay.span, "the first delay is longer than the maximum");
        problems.push(match &rules.max_delay {
            Some(max) => problem.related(max.span, "the maximum"),
            None => problem.hint("`max_delay` defaults to `30s`: set it too"),
        });
    }
}

fn check_stop_timeout(document: &Document, services: &[Named], problems: &mut Problems) {
    let Some(total) = &document.stop_timeout else { return };
    for own in services.iter().filter_map(|named| named.service.stop_timeout.as_ref()) {
        if own.0 > total.0 {
            let problem = Problem::new(
                Kind::Conflict,
                own.span,
                "a service may take longer to stop than the whole enclave",
            );
            problems.push(problem.related(total.span, "the enclave's `stop_timeout`"));
        }
    }
}
