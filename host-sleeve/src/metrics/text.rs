//! Records in Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats>).
//!
//! Invariant: pure functions. Times are in seconds, sizes in bytes, and names of counters end in `_total`, following Prometheus'
//! naming practices.

use std::fmt::Write as _;

use cloister_wire::control::{IngressCounters, Phase, ServiceStats, State, Stats, Status};

use crate::state::Record;
use crate::state::record::{Seen, now_ms};
use crate::values::word;

/// One enclave at the time of a scrape.
#[derive(Clone, Debug)]
pub(super) struct Enclave {
    /// Whether its sleeve is running.
    pub(super) alive: bool,
    /// Its record.
    pub(super) record: Record,
    /// Its current counters, if it reported them.
    pub(super) now: Option<Stats>,
}

/// One family of metrics.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<Sample>,
}

/// Its labels and its value.
type Sample = (Vec<(&'static str, String)>, f64);

/// All metrics of these enclaves. Each family appears once, with the samples of all enclaves, as the format requires.
pub(super) fn render(enclaves: &[Enclave]) -> String {
    let mut all: Vec<Family> = Vec::new();
    for enclave in enclaves {
        for mut family in families(enclave) {
            for (labels, _) in &mut family.samples {
                labels.insert(0, ("enclave", enclave.record.name.clone()));
            }
            match all.iter_mut().find(|known| known.name == family.name) {
                Some(known) => known.samples.append(&mut family.samples),
                None => all.push(family),
            }
        }
    }
    let mut out = String::new();
    for family in all {
        // Writing to a string cannot fail.
        write_family(&mut out, &family).unwrap_or_default();
    }
    out
}

fn families(enclave: &Enclave) -> Vec<Family> {
    let record = &enclave.record;
    let runs = enclave.alive && record.end.is_none();
    let mut families = about(record);
    families.push(one("cloister_enclave_up", "gauge", "Whether the enclave is running.", flag(runs)));
    if let Some(end) = &record.end {
        let help = "The exit code of the ended run.";
        families.push(one("cloister_enclave_exit_code", "gauge", help, f64::from(end.code)));
    }
    if !runs {
        return families;
    }
    families.extend(state(record));
    if let Some(status) = &record.status {
        let ingress = enclave.now.as_ref().map_or(status.ingress, |now| now.ingress);
        families.extend(supervisor(status, ingress));
        families.extend(services(status, record));
    }
    families.extend(enclave.now.iter().flat_map(|now| usage(&now.services)));
    families
}

fn about(record: &Record) -> Vec<Family> {
    let machine = record.machine.as_ref().map_or_else(String::new, |machine| machine.kind.clone());
    let info = vec![
        ("image", record.image.name.clone()),
        ("digest", record.image.digest.clone()),
        ("backend", record.backend.clone()),
        ("machine", machine),
    ];
    let help = "Properties of the enclave; always 1.";
    vec![
        many("cloister_enclave_info", "gauge", help, vec![(info, 1.0)]),
        one("cloister_enclave_memory_bytes", "gauge", "Memory of the enclave.", number(record.memory)),
    ]
}

fn state(record: &Record) -> Vec<Family> {
    let state = record.status.as_ref().map(|status| &status.state);
    let uptime = record.booted_ms.map_or(0, |booted| now_ms().saturating_sub(booted));
    let gauge = |name, help, value| one(name, "gauge", help, value);
    let name = vec![("state", Seen::state_word(state).to_owned())];
    vec![
        many(
            "cloister_enclave_state",
            "gauge",
            "The state that the enclave is in; always 1.",
            vec![(name, 1.0)],
        ),
        gauge(
            "cloister_enclave_ready",
            "Whether every service is ready.",
            flag(state == Some(&State::Ready)),
        ),
        gauge(
            "cloister_enclave_degraded",
            "Whether the enclave is degraded: some part of it does not serve.",
            flag(matches!(state, Some(State::Degraded { .. }))),
        ),
        gauge(
            "cloister_enclave_answers",
            "Whether the enclave answered the last liveness request.",
            flag(record.unresponsive_since_ms.is_none()),
        ),
        gauge("cloister_enclave_uptime_seconds", "Time since the enclave's boot.", number(uptime) / 1000.0),
    ]
}

fn supervisor(status: &Status, ingress: IngressCounters) -> Vec<Family> {
    let count = |name, help, value| one(name, "counter", help, number(value));
    vec![
        count(
            "cloister_supervisor_restarts_total",
            "Restarts of the supervisor after a crash.",
            u64::from(status.supervisor_restarts),
        ),
        count("cloister_ingress_connections_total", "Connections accepted.", ingress.accepted),
        one("cloister_ingress_connections_open", "gauge", "Connections open now.", number(ingress.open)),
        count("cloister_ingress_refused_total", "Connections refused.", ingress.refused),
        count("cloister_ingress_received_bytes_total", "Bytes from clients.", ingress.bytes_in),
        count("cloister_ingress_sent_bytes_total", "Bytes to clients.", ingress.bytes_out),
    ]
}

fn services(status: &Status, record: &Record) -> Vec<Family> {
    let each = |value: &dyn Fn(&cloister_wire::control::ServiceStatus) -> f64| {
        status.services.iter().map(|service| (label(&service.name), value(service))).collect()
    };
    let phase = |service: &cloister_wire::control::ServiceStatus| {
        (vec![("service", service.name.clone()), ("phase", word(&service.phase))], 1.0)
    };
    let phases = status.services.iter().map(phase).collect();
    let uptime = record.booted_ms.map_or(0, |booted| now_ms().saturating_sub(booted));
    let since = each(&|service| number(uptime.saturating_sub(service.since_ms)) / 1000.0);
    let ready = each(&|service| flag(matches!(service.phase, Phase::Ready | Phase::Done)));
    let failed = each(&|service| flag(service.phase == Phase::Failed));
    let restarts = each(&|service| f64::from(service.restarts));
    vec![
        many("cloister_service_phase", "gauge", "The phase that the service is in; always 1.", phases),
        many("cloister_service_phase_seconds", "gauge", "Time in that phase.", since),
        many("cloister_service_ready", "gauge", "Whether the service is ready, or the job is done.", ready),
        many(
            "cloister_service_failed",
            "gauge",
            "Whether the service has failed and will not be restarted.",
            failed,
        ),
        many("cloister_service_restarts_total", "counter", "Restarts of the service.", restarts),
    ]
}

fn usage(stats: &[ServiceStats]) -> Vec<Family> {
    let each = |value: &dyn Fn(&ServiceStats) -> f64| {
        stats.iter().map(|service| (label(&service.name), value(service))).collect()
    };
    let cpu = each(&|service| number(service.cpu_us) / 1e6);
    let (memory, peak) = (each(&|s| number(s.memory)), each(&|s| number(s.memory_peak)));
    let (pids, kills) = (each(&|s| number(s.pids)), each(&|s| number(s.oom_kills)));
    vec![
        many("cloister_service_cpu_seconds_total", "counter", "CPU time used.", cpu),
        many("cloister_service_memory_bytes", "gauge", "Memory in use.", memory),
        many("cloister_service_memory_peak_bytes", "gauge", "Peak memory in use.", peak),
        many("cloister_service_pids", "gauge", "Processes and threads.", pids),
        many(
            "cloister_service_oom_kills_total",
            "counter",
            "Processes killed by the out-of-memory killer.",
            kills,
        ),
    ]
}

const fn many(name: &'static str, kind: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, kind, help, samples }
}

fn one(name: &'static str, kind: &'static str, help: &'static str, value: f64) -> Family {
    Family { name, kind, help, samples: vec![(Vec::new(), value)] }
}

fn label(service: &str) -> Vec<(&'static str, String)> {
    vec![("service", service.to_owned())]
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// A count as a Prometheus value: above 2^53 it loses its last digits.
fn number(value: u64) -> f64 {
    let high = u32::try_from(value >> 32).unwrap_or_default();
    let low = u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

fn write_family(out: &mut String, family: &Family) -> std::fmt::Result {
    if family.samples.is_empty() {
        return Ok(());
    }
    writeln!(out, "# HELP {} {}", family.name, family.help)?;
    writeln!(out, "# TYPE {} {}", family.name, family.kind)?;
    for (labels, value) in &family.samples {
        let labels: Vec<String> =
            labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escape(text))).collect();
        writeln!(out, "{}{{{}}} {value}", family.name, labels.join(","))?;
    }
    Ok(())
}

/// Backslash, quote and line feed are the only characters escaped in a label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::tests::launched;
    use crate::state::{End, Outcome};
    use cloister_wire::control::ServiceStatus;

    fn enclave(record: Record) -> Enclave {
        Enclave { alive: true, record, now: None }
    }

    fn record() -> Record {
        let service = ServiceStatus {
            name: "web".into(),
            phase: Phase::Ready,
            pid: Some(7),
            since_ms: 5,
            restarts: 3,
            last_exit: None,
            text: None,
            waits_for: None,
        };
        let status = Status {
            seq: 1,
            state: State::Ready,
            platform: "virtual".into(),
            uptime_ms: 10,
            supervisor_restarts: 2,
            boot: Vec::new(),
            services: vec![service],
            servants: Vec::new(),
            ingress: IngressCounters {
                accepted: 9,
                open: 1,
                refused: 0,
                bytes_in: 5_000_000_000,
                bytes_out: 6,
            },
            registers: Vec::new(),
            time: None,
        };
        Record { status: Some(status), ..launched("a\"b") }
    }

    #[test]
    fn a_running_enclave_has_these_lines() {
        let stats = ServiceStats {
            name: "web".into(),
            cpu_us: 1_500_000,
            memory: 3,
            memory_peak: 4,
            pids: 2,
            oom_kills: 1,
        };
        let ingress = IngressCounters { accepted: 11, ..IngressCounters::default() };
        let now = Some(Stats { services: vec![stats], servants: Vec::new(), ingress });
        let text = render(&[Enclave { now, ..enclave(record()) }]);
        for line in [
            r#"cloister_enclave_ready{enclave="a\"b"} 1"#,
            r#"cloister_supervisor_restarts_total{enclave="a\"b"} 2"#,
            r#"cloister_ingress_connections_total{enclave="a\"b"} 11"#,
            r#"cloister_enclave_state{enclave="a\"b",state="ready"} 1"#,
            r#"cloister_service_phase{enclave="a\"b",service="web",phase="ready"} 1"#,
            r#"cloister_service_restarts_total{enclave="a\"b",service="web"} 3"#,
            r#"cloister_service_cpu_seconds_total{enclave="a\"b",service="web"} 1.5"#,
            r#"cloister_service_oom_kills_total{enclave="a\"b",service="web"} 1"#,
            "# TYPE cloister_service_memory_bytes gauge",
        ] {
            assert!(text.lines().any(|have| have == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn an_unresponsive_enclave_is_reported_by_its_last_status() {
        let text = render(&[enclave(record())]);
        assert!(
            text.contains("cloister_ingress_received_bytes_total{enclave=\"a\\\"b\"} 5000000000\n"),
            "{text}"
        );
        assert!(!text.contains("cloister_service_memory_bytes"));
    }

    #[test]
    fn an_enclave_without_a_status_is_not_ready() {
        let text = render(&[enclave(launched("web"))]);
        assert!(text.contains("cloister_enclave_ready{enclave=\"web\"} 0"));
        assert!(text.contains("cloister_enclave_state{enclave=\"web\",state=\"launching\"} 1"));
        assert!(!text.contains("cloister_service"));
    }

    #[test]
    fn a_family_appears_once_for_all_enclaves() {
        let text = render(&[enclave(launched("a")), enclave(launched("b"))]);
        let up = "# TYPE cloister_enclave_up gauge\ncloister_enclave_up{enclave=\"a\"} 1\ncloister_enclave_up{enclave=\"b\"} 1\n";
        assert!(text.contains(up), "{text}");
    }

    #[test]
    fn an_ended_enclave_is_reported_with_its_exit_code_and_without_its_last_status() {
        let outcome = Outcome::Killed { why: "killed on request".into() };
        let end = Some(End { code: 137, outcome, at_ms: 0 });
        let ended = Enclave { alive: false, ..enclave(Record { end, ..record() }) };
        let text = render(&[ended]);
        assert!(text.contains("cloister_enclave_up{enclave=\"a\\\"b\"} 0\n"), "{text}");
        assert!(text.contains("cloister_enclave_exit_code{enclave=\"a\\\"b\"} 137\n"), "{text}");
        assert!(!text.contains("cloister_enclave_ready") && !text.contains("cloister_service"), "{text}");
    }

    #[test]
    fn large_counts_keep_their_magnitude() {
        assert!((number(5_000_000_000) - 5e9).abs() < 1.0);
        assert!((number(u64::MAX) - 1.8e19).abs() < 1e18);
    }
}
