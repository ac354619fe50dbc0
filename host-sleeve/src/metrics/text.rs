//! A record as Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats>).
//!
//! Its law: pure. Times are in seconds, sizes in bytes, and what only rises ends in `_total`, as Prometheus' naming
//! practices have it.

use std::fmt::Write as _;

use cloister_wire::control::{Phase, ServiceStats, State, Status};

use crate::state::Record;
use crate::state::record::now_ms;

/// One family of metrics.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

/// Everything about one enclave.
pub(super) fn render(record: &Record, stats: &[ServiceStats]) -> String {
    let mut families = enclave(record);
    if let Some(status) = &record.status {
        families.extend(supervisor(status));
        families.extend(services(status));
    }
    families.extend(usage(stats));
    let mut out = String::new();
    for family in families {
        // Writing to a string cannot fail.
        write_family(&mut out, &record.name, &family).unwrap_or_default();
    }
    out
}

fn enclave(record: &Record) -> Vec<Family> {
    let state = record.status.as_ref().map(|status| &status.state);
    let machine = record.machine.as_ref().map_or_else(String::new, |machine| machine.kind.clone());
    let info = vec![
        ("image", record.image.name.clone()),
        ("digest", record.image.digest.clone()),
        ("backend", record.backend.clone()),
        ("machine", machine),
    ];
    let uptime = record.booted_ms.map_or(0, |booted| now_ms().saturating_sub(booted));
    vec![
        Family {
            name: "cloister_enclave_info",
            kind: "gauge",
            help: "What the enclave is; always 1.",
            samples: vec![(info, 1.0)],
        },
        one(
            "cloister_enclave_ready",
            "gauge",
            "Whether every service is ready.",
            flag(state == Some(&State::Ready)),
        ),
        one(
            "cloister_enclave_degraded",
            "gauge",
            "Whether the enclave serves although something in it does not.",
            flag(matches!(state, Some(State::Degraded { .. }))),
        ),
        one(
            "cloister_enclave_uptime_seconds",
            "gauge",
            "Time since the enclave's boot.",
            number(uptime) / 1000.0,
        ),
        one("cloister_enclave_memory_bytes", "gauge", "Memory given to the enclave.", number(record.memory)),
    ]
}

fn supervisor(status: &Status) -> Vec<Family> {
    let ingress = &status.ingress;
    let count = |name, help, value| one(name, "counter", help, number(value));
    vec![
        count(
            "cloister_supervisor_restarts_total",
            "How often the supervisor was started again after a crash.",
            u64::from(status.supervisor_restarts),
        ),
        count("cloister_ingress_connections_total", "Connections carried.", ingress.accepted),
        one("cloister_ingress_connections_open", "gauge", "Connections open now.", number(ingress.open)),
        count("cloister_ingress_refused_total", "Connections closed unserved.", ingress.refused),
        count("cloister_ingress_received_bytes_total", "Bytes from clients.", ingress.bytes_in),
        count("cloister_ingress_sent_bytes_total", "Bytes to clients.", ingress.bytes_out),
    ]
}

fn services(status: &Status) -> Vec<Family> {
    let each = |value: &dyn Fn(&cloister_wire::control::ServiceStatus) -> f64| {
        status.services.iter().map(|service| (label(&service.name), value(service))).collect()
    };
    let ready = each(&|service| flag(matches!(service.phase, Phase::Ready | Phase::Done)));
    let failed = each(&|service| flag(service.phase == Phase::Failed));
    let restarts = each(&|service| f64::from(service.restarts));
    vec![
        many("cloister_service_ready", "gauge", "Whether the service is ready, or a job done.", ready),
        many("cloister_service_failed", "gauge", "Whether the service will not be started again.", failed),
        many(
            "cloister_service_restarts_total",
            "counter",
            "How often the service was started again.",
            restarts,
        ),
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
        many("cloister_service_memory_peak_bytes", "gauge", "The most memory in use so far.", peak),
        many("cloister_service_pids", "gauge", "Processes and threads.", pids),
        many(
            "cloister_service_oom_kills_total",
            "counter",
            "How often the out-of-memory killer struck.",
            kills,
        ),
    ]
}

type Samples = Vec<(Vec<(&'static str, String)>, f64)>;

const fn many(name: &'static str, kind: &'static str, help: &'static str, samples: Samples) -> Family {
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

/// A count as Prometheus has it: past 2^53 it loses its last digits.
fn number(value: u64) -> f64 {
    let high = u32::try_from(value >> 32).unwrap_or_default();
    let low = u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

fn write_family(out: &mut String, enclave: &str, family: &Family) -> std::fmt::Result {
    if family.samples.is_empty() {
        return Ok(());
    }
    writeln!(out, "# HELP {} {}", family.name, family.help)?;
    writeln!(out, "# TYPE {} {}", family.name, family.kind)?;
    for (labels, value) in &family.samples {
        write!(out, "{}{{enclave=\"{}\"", family.name, escape(enclave))?;
        for (label, text) in labels {
            write!(out, ",{label}=\"{}\"", escape(text))?;
        }
        writeln!(out, "}} {value}")?;
    }
    Ok(())
}

/// Backslash, quote and line feed are the only characters that a label's value escapes.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::tests::launched;
    use cloister_wire::control::{IngressCounters, ServiceStatus};

    fn record() -> Record {
        let service = ServiceStatus {
            name: "web".into(),
            phase: Phase::Ready,
            pid: Some(7),
            since_ms: 5,
            restarts: 3,
            last_exit: None,
            text: None,
        };
        let status = Status {
            seq: 1,
            state: State::Ready,
            platform: "virtual".into(),
            uptime_ms: 10,
            supervisor_restarts: 2,
            boot: Vec::new(),
            services: vec![service],
            ingress: IngressCounters {
                accepted: 9,
                open: 1,
                refused: 0,
                bytes_in: 5_000_000_000,
                bytes_out: 6,
            },
            registers: Vec::new(),
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
        let text = render(&record(), &[stats]);
        for line in [
            r#"cloister_enclave_ready{enclave="a\"b"} 1"#,
            r#"cloister_supervisor_restarts_total{enclave="a\"b"} 2"#,
            r#"cloister_ingress_received_bytes_total{enclave="a\"b"} 5000000000"#,
            r#"cloister_service_restarts_total{enclave="a\"b",service="web"} 3"#,
            r#"cloister_service_cpu_seconds_total{enclave="a\"b",service="web"} 1.5"#,
            r#"cloister_service_oom_kills_total{enclave="a\"b",service="web"} 1"#,
            "# TYPE cloister_service_memory_bytes gauge",
        ] {
            assert!(text.lines().any(|have| have == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn an_enclave_that_has_said_nothing_is_not_ready() {
        let text = render(&launched("web"), &[]);
        assert!(text.contains("cloister_enclave_ready{enclave=\"web\"} 0"));
        assert!(!text.contains("cloister_service"));
    }

    #[test]
    fn large_counts_keep_their_size() {
        assert!((number(5_000_000_000) - 5e9).abs() < 1.0);
        assert!((number(u64::MAX) - 1.8e19).abs() < 1e18);
    }
}
