//! The checks at the end.
//!
//! Invariant: a number is compared only with another one that was counted elsewhere, with itself at rest before, or with what
//! the design allows.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::killer::{Census, Process};
use super::load::Traffic;
use super::log::Received;
use super::{GATEWAY, SUPERVISOR, VICTIMS};

/// By how much a process may grow, in kibibytes: pages that its allocator once needed at the same time. A leak at each of some
/// thousand restarts and ten thousand requests is larger.
const PROCESS_SLACK_KIB: u64 = 512;

/// By how much the machine may grow, in kibibytes: slabs and the services' own pages vary by this much.
const MACHINE_SLACK_KIB: u64 = 8 * 1024;

/// How much memory init may use at rest, in kibibytes: one megabyte, since what PID 1 uses is taken from every application and
/// is never returned.
const INIT_LIMIT_KIB: u64 = 1_000_000 / 1024;

/// How much memory the supervisor may use at rest, in kibibytes: eight megabytes, a sixty-fourth of an enclave's default
/// memory.
const SUPERVISOR_LIMIT_KIB: u64 = 8_000_000 / 1024;

/// All counts.
#[derive(Debug)]
pub(super) struct Evidence {
    /// At rest, after everything was killed once.
    pub(super) before: Census,
    /// At rest, at the end.
    pub(super) after: Census,
    /// What `inspect` showed at the end.
    pub(super) status: Value,
    /// What the clients saw.
    pub(super) traffic: Traffic,
    /// How long it took after each kill of the gateway until the next one forwarded a request, shortest first.
    pub(super) recoveries: Vec<Duration>,
    /// What the log contains.
    pub(super) log: Received,
}

/// One line of the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    what: &'static str,
    seen: String,
    /// What is wrong, if anything.
    pub(super) problem: Option<String>,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = if self.problem.is_none() { "ok    " } else { "FAILED" };
        write!(f, "{result}  {:<44}  {}", self.what, self.seen)?;
        self.problem.as_ref().map_or(Ok(()), |problem| write!(f, "\n          {problem}"))
    }
}

/// Performs all checks.
pub(super) fn checks(evidence: &Evidence) -> Vec<Check> {
    let (before, after) = (&evidence.before, &evidence.after);
    vec![
        traffic(evidence.traffic),
        exits(evidence),
        crashes(evidence),
        gateway(evidence),
        lines(evidence),
        zombies(evidence),
        descriptors("init has no more descriptors than before", before.init, after.init),
        descriptors("the supervisor has no more descriptors", before.supervisor, after.supervisor),
        descriptors("the gateway has no more descriptors", before.gateway, after.gateway),
        memory(
            "init's memory has not grown",
            before.init.resident_kib,
            after.init.resident_kib,
            PROCESS_SLACK_KIB,
        ),
        memory(
            "the supervisor's memory has not grown",
            before.supervisor.resident_kib,
            after.supervisor.resident_kib,
            PROCESS_SLACK_KIB,
        ),
        memory(
            "the gateway's memory has not grown",
            before.gateway.resident_kib,
            after.gateway.resident_kib,
            PROCESS_SLACK_KIB,
        ),
        memory("the machine's memory has not grown", before.used_kib, after.used_kib, MACHINE_SLACK_KIB),
        limit("init stays within its memory limit", before.init, after.init, INIT_LIMIT_KIB),
        limit(
            "the supervisor stays within its memory limit",
            before.supervisor,
            after.supervisor,
            SUPERVISOR_LIMIT_KIB,
        ),
    ]
}

fn traffic(seen: Traffic) -> Check {
    let (gap, request) = (seen.longest_gap.as_secs_f32(), seen.longest_request.as_secs_f32());
    Check {
        what: "requests were answered throughout",
        seen: format!(
            "{} answered, {} not; longest request {request:.2} s, longest gap {gap:.2} s",
            seen.answered, seen.failed
        ),
        problem: (seen.answered == 0).then(|| "no request was answered".to_owned()),
    }
}

/// Every kill is an exit that init reaped and the supervisor counted as a restart, and every restart is a run that printed.
fn exits(evidence: &Evidence) -> Check {
    let mut problems = Vec::new();
    let mut total = 0_u64;
    for name in VICTIMS {
        let kills = evidence.after.kills.get(name).copied().unwrap_or_default();
        let restarts = restarts(&evidence.status, name);
        let runs = evidence.log.sequences.get(name).map_or(0, |sequence| sequence.runs);
        total = total.saturating_add(kills);
        if restarts != Some(kills) || runs != kills.saturating_add(1) {
            problems.push(format!("{name}: {kills} kills, {restarts:?} restarts, {runs} runs"));
        }
    }
    Check {
        what: "each killed service was restarted once",
        seen: format!("{total} kills"),
        problem: list(&problems),
    }
}

fn crashes(evidence: &Evidence) -> Check {
    let kills = evidence.after.kills.get(SUPERVISOR).copied();
    let restarts = evidence.status.pointer("/status/supervisor_restarts").and_then(Value::as_u64);
    Check {
        what: "the killed supervisor was restarted",
        seen: format!("{} kills", kills.unwrap_or_default()),
        problem: (kills != restarts).then(|| format!("the status reports {restarts:?} restarts")),
    }
}

/// A gateway that is killed while no supervisor runs is found dead by the next one, which restarts it.
fn gateway(evidence: &Evidence) -> Check {
    let kills = evidence.after.kills.get(GATEWAY).copied().unwrap_or_default();
    let restarts = evidence.status.pointer("/status/servants/0/restarts").and_then(Value::as_u64);
    Check {
        what: "each kill of the gateway is a restart",
        seen: format!("{kills} kills{}", recovery(&evidence.recoveries)),
        problem: (Some(kills) != restarts).then(|| format!("the status reports {restarts:?} restarts")),
    }
}

/// For information: times depend on the machine's load.
fn recovery(sorted: &[Duration]) -> String {
    let (Some(median), Some(last)) = (sorted.get(sorted.len() / 2), sorted.last()) else {
        return String::new();
    };
    format!(
        "; a request was forwarded again after {} ms (median; at most {})",
        median.as_millis(),
        last.as_millis()
    )
}

fn lines(evidence: &Evidence) -> Check {
    let log = &evidence.log;
    let mut problems: Vec<String> = log
        .sequences
        .iter()
        .flat_map(|(name, sequence)| {
            sequence.deviations.iter().map(move |problem| format!("{name}: {problem}"))
        })
        .collect();
    if log.lost > 0 {
        problems.push(format!("the log reports {} lost records", log.lost));
    }
    let count = log.sequences.values().fold(0_u64, |sum, sequence| sum.saturating_add(sequence.lines));
    Check {
        what: "each printed line is in the log once",
        seen: format!("{count} lines"),
        problem: list(&problems),
    }
}

/// At rest no zombie is left; this shows how many orphans there were to reap.
fn zombies(evidence: &Evidence) -> Check {
    let orphans = evidence.log.sequences.get("forker").map_or(0, |sequence| sequence.lines);
    let zombies = evidence.after.zombies;
    Check {
        what: "every orphan was reaped",
        seen: format!("{orphans} orphans, {zombies} zombies left"),
        problem: (zombies > 0 || orphans == 0).then(|| "init must reap every orphan".to_owned()),
    }
}

fn descriptors(what: &'static str, before: Process, after: Process) -> Check {
    let (before, after) = (before.descriptors, after.descriptors);
    let problem = match (before, after) {
        (0, _) | (_, 0) => Some("the descriptors could not be counted".to_owned()),
        _ => (after > before).then(|| format!("{} more", after.saturating_sub(before))),
    };
    Check { what, seen: format!("{before} before, {after} after"), problem }
}

fn memory(what: &'static str, before: u64, after: u64, slack: u64) -> Check {
    let grown = after.saturating_sub(before);
    let problem = if before == 0 || after == 0 {
        Some("the memory could not be measured".to_owned())
    } else {
        (grown > slack).then(|| format!("{grown} KiB more; the limit is {slack} KiB"))
    };
    Check { what, seen: format!("{before} KiB before, {after} KiB after"), problem }
}

fn limit(what: &'static str, before: Process, after: Process, limit: u64) -> Check {
    let (least, most) =
        (before.resident_kib.min(after.resident_kib), before.resident_kib.max(after.resident_kib));
    let problem = match least {
        0 => Some("the memory could not be measured".to_owned()),
        _ => (most > limit).then(|| format!("the limit is {limit} KiB")),
    };
    Check { what, seen: format!("{most} KiB of {limit}"), problem }
}

fn restarts(status: &Value, name: &str) -> Option<u64> {
    let services = status.pointer("/status/services")?.as_array()?;
    let found = services.iter().find(|service| service.get("name").and_then(Value::as_str) == Some(name))?;
    found.get("restarts")?.as_u64()
}

fn list(problems: &[String]) -> Option<String> {
    (!problems.is_empty()).then(|| problems.join("\n          "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(checks: &[Check]) -> Vec<&'static str> {
        checks.iter().filter(|check| check.problem.is_some()).map(|check| check.what).collect()
    }

    fn evidence() -> Evidence {
        let process = Process { descriptors: 30, resident_kib: 900 };
        let before = Census {
            init: process,
            supervisor: process,
            gateway: process,
            used_kib: 40_000,
            ..Census::default()
        };
        let mut evidence = Evidence {
            after: before.clone(),
            before,
            status: serde_json::json!({"status": {"supervisor_restarts": 2, "services": [], "servants": [{"restarts": 1}]}}),
            traffic: Traffic { answered: 1, ..Traffic::default() },
            recoveries: vec![Duration::from_millis(7)],
            log: Received::default(),
        };
        evidence.after.kills.insert(SUPERVISOR.into(), 2);
        evidence.after.kills.insert(GATEWAY.into(), 1);
        let services = VICTIMS.map(|name| serde_json::json!({"name": name, "restarts": 3}));
        evidence.status["status"]["services"] = serde_json::json!(services);
        for name in VICTIMS {
            evidence.after.kills.insert(name.into(), 3);
            let sequence = evidence.log.sequences.entry(name.into()).or_default();
            (sequence.runs, sequence.lines) = (4, 9);
        }
        evidence
    }

    #[test]
    fn counts_that_agree_pass() {
        assert_eq!(failing(&checks(&evidence())), Vec::<&str>::new());
    }

    #[test]
    fn a_lost_exit_a_lost_line_and_growth_are_reported() {
        let mut wrong = evidence();
        wrong.after.kills.insert("web".into(), 4);
        wrong.log.lost = 1;
        wrong.after.init.descriptors = 31;
        wrong.after.used_kib = 80_000;
        wrong.before.init.resident_kib = 977;
        wrong.after.init.resident_kib = 976;
        wrong.before.supervisor.resident_kib = 7_700;
        wrong.after.supervisor.resident_kib = 7_813;
        let found = [
            "each killed service was restarted once",
            "each printed line is in the log once",
            "init has no more descriptors than before",
            "the machine's memory has not grown",
            "init stays within its memory limit",
            "the supervisor stays within its memory limit",
        ];
        assert_eq!(failing(&checks(&wrong)), found);
    }
}
