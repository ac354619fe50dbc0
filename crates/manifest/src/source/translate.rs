//! Translates fields of the document into fields of the model, with defaults for omitted ones.
//!
//! Nothing here depends on the image or can fail: the input has been checked.

use std::collections::BTreeMap;

use super::check::Route;
use super::defaults;
use super::document::{Document, HttpEntry, Live, Ready, ReadyKeyword, RestartEntry, Service};
use super::read::Spanned;
use super::units::Duration;
use crate::model;

pub(super) fn kind(service: &Service) -> model::Kind {
    service.kind.as_ref().map_or(model::Kind::Service, |kind| kind.value)
}

pub(super) fn ingress(route: Route) -> model::Ingress {
    let Route { port, service, target, proxy_protocol } = route;
    model::Ingress { port, service, target, proxy_protocol }
}

pub(super) fn ready(ready: &Ready) -> Option<model::Ready> {
    match ready {
        Ready::Keyword(ReadyKeyword::Started) => Some(model::Ready::Started),
        Ready::Keyword(ReadyKeyword::Notify) => Some(model::Ready::Notify),
        Ready::Probe(probe) => {
            let tcp = probe.tcp.as_ref().map(|port| model::Ready::Tcp(port.0));
            let http = || probe.http.as_ref().and_then(|http| http_parts(&http.value));
            let file = || probe.file.as_ref().map(|path| model::Ready::File(path.0.clone()));
            let log = || probe.log.as_ref().map(|text| model::Ready::Log(text.0.clone()));
            tcp.or_else(|| http().map(|(port, path)| model::Ready::Http { port, path }))
                .or_else(file)
                .or_else(log)
        }
    }
}

fn http_parts(http: &HttpEntry) -> Option<(u16, String)> {
    match http {
        HttpEntry::Port(port) => Some((port.0, "/".to_owned())),
        HttpEntry::Request(request) => {
            let path = request.path.as_ref().map_or("/", |path| &path.0).to_owned();
            request.port.as_ref().map(|port| (port.0, path))
        }
    }
}

pub(super) fn live(live: &Live) -> Option<model::Live> {
    let tcp = live.tcp.as_ref().map(|port| model::Check::Tcp(port.0));
    let http = || {
        let (port, path) = http_parts(&live.http.as_ref()?.value)?;
        Some(model::Check::Http { port, path })
    };
    let watchdog = live.watchdog.as_ref();
    let interval = watchdog.or(live.interval.as_ref());
    Some(model::Live {
        check: tcp.or_else(http).or_else(|| watchdog.map(|_| model::Check::Watchdog))?,
        interval_ms: interval.map_or(defaults::LIVE_INTERVAL_MS, |time| time.0),
        timeout_ms: live.timeout.as_ref().map_or(defaults::LIVE_TIMEOUT_MS, |time| time.0),
        threshold: live.threshold.as_ref().map_or(defaults::LIVE_THRESHOLD, |count| count.0),
    })
}

pub(super) fn restart(service: &Service, job: bool) -> model::Restart {
    let (policy, rules) = match service.restart.as_ref().map(|restart| &restart.value) {
        None => (None, None),
        Some(RestartEntry::Policy(policy)) => (Some(*policy), None),
        Some(RestartEntry::Rules(rules)) => (rules.policy.as_ref().map(|policy| policy.value), Some(rules)),
    };
    let own = if job { model::Policy::Never } else { model::Policy::OnFailure };
    let delay_ms = millis(rules.and_then(|rules| rules.delay.as_ref()), defaults::RESTART_DELAY_MS);
    let stable = rules.and_then(|rules| rules.stable.as_ref());
    model::Restart {
        policy: policy.unwrap_or(own),
        delay_ms,
        max_delay_ms: millis(
            rules.and_then(|rules| rules.max_delay.as_ref()),
            defaults::RESTART_MAX_DELAY_MS,
        ),
        stable_ms: stable.map_or(defaults::RESTART_STABLE_MS, |time| time.0),
        burst: rules.and_then(|rules| rules.burst.as_ref()).map_or(defaults::RESTART_BURST, |count| count.0),
    }
}

pub(super) fn limits(service: &Service) -> model::Limits {
    let given = service.limits.as_deref();
    let pids = given.and_then(|limits| limits.pids.as_ref());
    let open_files = given.and_then(|limits| limits.open_files.as_ref());
    model::Limits {
        memory: given.and_then(|limits| limits.memory.as_ref()).map(|size| size.0),
        cpu_millis: given.and_then(|limits| limits.cpu.as_ref()).map(|cpu| cpu.0),
        pids: pids.map(|count| count.0),
        open_files: open_files.map_or(defaults::OPEN_FILES, |count| count.0),
    }
}

pub(super) fn sealed(service: &Service) -> BTreeMap<String, String> {
    let given = service.sealed.iter().flat_map(|map| map.0.iter());
    given.filter_map(|(name, text)| Some((name.0.clone(), text.as_ref()?.0.clone()))).collect()
}

pub(super) fn writable_bytes(document: &Document) -> u64 {
    let size = document.root.as_ref().and_then(|root| root.writable.as_ref());
    size.map_or(defaults::ROOT_WRITABLE, |size| size.0)
}

pub(super) fn millis(given: Option<&Spanned<Duration>>, default: u64) -> u64 {
    given.map_or(default, |time| time.0)
}
