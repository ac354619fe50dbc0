//! Status as text.
//!
//! Invariant: one line per service, in columns that programs can split at spaces; free text comes last.

use std::io::{self, Write};

use cloister_wire::control::{Exit, Phase, ServiceStatus, State, Status};

/// Every service.
pub(crate) fn list(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let width = status.services.iter().map(|s| s.name.len()).max().unwrap_or(0).max("SERVICE".len());
    writeln!(out, "{:width$}  {:11}  {:>7}  {:>8}  LAST EXIT", "SERVICE", "PHASE", "PID", "RESTARTS")?;
    for service in &status.services {
        let pid = service.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let (phase, exit) = (phase(service.phase), exit(service.last_exit.as_ref()));
        writeln!(out, "{:width$}  {phase:11}  {pid:>7}  {:>8}  {exit}", service.name, service.restarts)?;
    }
    Ok(())
}

/// The enclave.
pub(crate) fn enclave(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "state: {}", state(&status.state))?;
    writeln!(out, "platform: {}", status.platform)?;
    writeln!(out, "uptime: {} ms", status.uptime_ms)?;
    writeln!(out, "supervisor restarts: {}", status.supervisor_restarts)?;
    status.time.map_or(Ok(()), |time| writeln!(out, "time: {time}"))
}

/// One service.
pub(crate) fn service(service: &ServiceStatus, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "phase: {}", phase(service.phase))?;
    if let Some(pid) = service.pid {
        writeln!(out, "pid: {pid}")?;
    }
    writeln!(out, "since: {} ms after boot", service.since_ms)?;
    writeln!(out, "restarts: {}", service.restarts)?;
    writeln!(out, "last exit: {}", exit(service.last_exit.as_ref()))?;
    service.text.as_ref().map_or(Ok(()), |text| writeln!(out, "status text: {text}"))
}

fn state(state: &State) -> String {
    match state {
        State::Booting => "booting".into(),
        State::Starting => "starting".into(),
        State::Ready => "ready".into(),
        State::Degraded { why } => format!("degraded: {why}"),
        State::Stopping { why } => format!("stopping: {why}"),
        State::Exited { service, code } => format!("exited: {service} with code {code}"),
        State::Signaled { service, signal, .. } => format!("signaled: {service} by signal {signal}"),
        State::Fatal { stage, error } => format!("fatal: {stage}: {error}"),
    }
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Unhealthy => "unhealthy",
        Phase::Stopping => "stopping",
        Phase::BackingOff => "backing-off",
        Phase::Done => "done",
        Phase::Failed => "failed",
    }
}

fn exit(exit: Option<&Exit>) -> String {
    match exit {
        None => "-".into(),
        Some(Exit::Code(code)) => format!("code {code}"),
        Some(Exit::Signal { signal, .. }) => format!("signal {signal}"),
        Some(Exit::NotStarted { error }) => format!("not started: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_line_per_service() {
        let web = ServiceStatus {
            name: "web".into(),
            phase: Phase::BackingOff,
            pid: None,
            since_ms: 12,
            restarts: 2,
            last_exit: Some(Exit::Code(3)),
            text: None,
            waits_for: None,
        };
        let status = Status {
            seq: 1,
            state: State::Ready,
            platform: "virtual".into(),
            uptime_ms: 20,
            supervisor_restarts: 0,
            boot: vec![],
            services: vec![web],
            servants: Vec::new(),
            ingress: cloister_wire::control::IngressCounters::default(),
            registers: vec![],
            time: None,
        };
        let mut out = Vec::new();
        list(&status, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "SERVICE  PHASE            PID  RESTARTS  LAST EXIT\nweb      backing-off        -         2  code 3\n";
        assert_eq!(text, expected);
    }
}
