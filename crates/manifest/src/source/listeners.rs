//! The ports on which services listen, as far as the manifest names them.
//!
//! Invariant: no two services listen on the same port.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Document, HttpEntry, IngressEntry, Ready, Service};
use super::graph::Named;
use super::problem::{Kind, Problem, Problems, Span};
use super::read::Spanned;
use super::units::Port;

/// All services share one loopback interface, so only one of them can listen on a port.
pub(super) fn check(document: &Document, services: &[Named], problems: &mut Problems) {
    let mut owner: BTreeMap<u16, (String, Span)> = BTreeMap::new();
    let mut reported = BTreeSet::new();
    for (port, service) in listeners(document, services) {
        match owner.get(&port.value.0) {
            Some((other, at)) if *other != service => {
                if !reported.insert(port.value.0) || problems.any_within(port.span) {
                    continue;
                }
                let what = format!("`{other}` and `{service}` would both listen on port {}", port.value.0);
                let hint = "services share one network: choose another port for one of them";
                let problem = Problem::new(Kind::Conflict, port.span, what);
                problems.push(problem.related(*at, format!("`{other}` listens on it here")).hint(hint));
            }
            Some(_) => {}
            None => drop(owner.insert(port.value.0, (service, port.span))),
        }
    }
}

/// Every port on which a service listens according to the manifest.
fn listeners(document: &Document, services: &[Named]) -> Vec<(Spanned<Port>, String)> {
    let mut found = Vec::new();
    for named in services {
        let ports = [ready_port(&named.service), live_port(&named.service)];
        found.extend(ports.into_iter().flatten().map(|port| (port, named.name.clone())));
    }
    let entries = document.ingress.iter().flat_map(|list| list.value.iter());
    for entry in entries {
        if let IngressEntry::Rule(rule) = &entry.value
            && let Some(service) = &rule.service
            && let Some(port) = rule.target.as_ref().or(rule.port.as_ref())
        {
            found.push((port.clone(), service.0.clone()));
        }
    }
    found
}

fn ready_port(service: &Service) -> Option<Spanned<Port>> {
    match &service.ready.as_ref()?.value {
        Ready::Probe(probe) => probe.tcp.clone().or_else(|| probe.http.as_ref().and_then(http_port)),
        Ready::Keyword(_) => None,
    }
}

fn live_port(service: &Service) -> Option<Spanned<Port>> {
    let live = service.live.as_ref()?;
    live.tcp.clone().or_else(|| live.http.as_ref().and_then(http_port))
}

fn http_port(http: &Spanned<HttpEntry>) -> Option<Spanned<Port>> {
    match &http.value {
        HttpEntry::Port(port) => Some(Spanned { value: port.clone(), span: http.span }),
        HttpEntry::Request(request) => request.port.clone(),
    }
}
