//! What is judged at the end.
//!
//! Its law: a number is judged only against another that was counted elsewhere, against itself at rest before, or against
//! what the design allows.

use std::fmt;

use serde_json::Value;

use super::load::Traffic;
use super::log::Said;
use super::warden::{Census, Process};
use super::{GATEWAY, SUPERVISOR, VICTIMS};

/// What a process may have grown by, in kibibytes: pages of its allocator that it once needed together. A leak at each of
/// some thousand restarts and some ten thousand requests is more.
const PROCESS_SLACK_KIB: u64 = 512;

/// What the machine may have grown by, in kibibytes: slabs and the services' own pages, which come and go by this much.
const MACHINE_SLACK_KIB: u64 = 8 * 1024;

/// What init may hold at rest, in kibibytes: a megabyte, since what PID 1 holds is taken from every application and is never
/// given back.
const INIT_LIMIT_KIB: u64 = 1_000_000 / 1024;

/// What the supervisor may hold at rest, in kibibytes: eight megabytes, a sixty-fourth of the memory that an enclave gets where
/// nobody says how much.
const SUPERVISOR_LIMIT_KIB: u64 = 8_000_000 / 1024;

/// Everything that was counted.
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
    /// What the log says.
    pub(super) said: Said,
}

/// One line of the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    what: &'static str,
    seen: String,
    /// What is wrong, if anything is.
    pub(super) fault: Option<String>,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.fault.is_none() { "ok    " } else { "FAILED" };
        write!(f, "{word}  {:<44}  {}", self.what, self.seen)?;
        self.fault.as_ref().map_or(Ok(()), |fault| write!(f, "\n          {fault}"))
    }
}

/// Judges.
pub(super) fn checks(evidence: &Evidence) -> Vec<Check> {
    let (before, after) = (&evidence.before, &evidence.after);
    vec![
        traffic(evidence.traffic),
        exits(evidence),
        crashes(evidence),
        gateway(evidence),
        lines(evidence),
        zombies(evidence),
        descriptors("init's descriptors are as many as before", before.init, after.init),
        descriptors("the supervisor's, too", before.supervisor, after.supervisor),
        descriptors("and the gateway's", before.gateway, after.gateway),
        memory(
            "init's memory has not grown",
            before.init.resident_kib,
            after.init.resident_kib,
            PROCESS_SLACK_KIB,
        ),
        memory(
            "nor has the supervisor's",
            before.supervisor.resident_kib,
            after.supervisor.resident_kib,
            PROCESS_SLACK_KIB,
        ),
        memory(
            "nor has the gateway's",
            before.gateway.resident_kib,
            after.gateway.resident_kib,
            PROCESS_SLACK_KIB,
        ),
        memory(
            "nor has the machine's, without its files",
            before.used_kib,
            after.used_kib,
            MACHINE_SLACK_KIB,
        ),
        limit("init holds what it may at rest", before.init, after.init, INIT_LIMIT_KIB),
        limit("so does the supervisor", before.supervisor, after.supervisor, SUPERVISOR_LIMIT_KIB),
    ]
}

fn traffic(seen: Traffic) -> Check {
    let (gap, request) = (seen.longest_gap.as_secs_f32(), seen.longest_request.as_secs_f32());
    Check {
        what: "requests were answered all along",
        seen: format!(
            "{} answered, {} not; longest request {request:.2} s, longest gap {gap:.2} s",
            seen.answered, seen.failed
        ),
        fault: (seen.answered == 0).then(|| "none was answered".to_owned()),
    }
}

/// Every kill is an exit that init reaped and the supervisor counted as a restart, and every restart is a run that spoke.
fn exits(evidence: &Evidence) -> Check {
    let mut faults = Vec::new();
    let mut total = 0_u64;
    for name in VICTIMS {
        let kills = evidence.after.kills.get(name).copied().unwrap_or_default();
        let restarts = restarts(&evidence.status, name);
        let runs = evidence.said.accounts.get(name).map_or(0, |account| account.runs);
        total = total.saturating_add(kills);
        if restarts != Some(kills) || runs != kills.saturating_add(1) {
            faults.push(format!("{name}: {kills} kills, {restarts:?} restarts, {runs} runs"));
        }
    }
    Check {
        what: "each killed service was started again, once",
        seen: format!("{total} kills"),
        fault: list(&faults),
    }
}

fn crashes(evidence: &Evidence) -> Check {
    let kills = evidence.after.kills.get(SUPERVISOR).copied();
    let restarts = evidence.status.pointer("/status/supervisor_restarts").and_then(Value::as_u64);
    Check {
        what: "so was the supervisor",
        seen: format!("{} kills", kills.unwrap_or_default()),
        fault: (kills != restarts).then(|| format!("the status says {restarts:?} restarts")),
    }
}

/// A gateway that is killed while nobody watches is found dead by the next supervisor, which starts another.
fn gateway(evidence: &Evidence) -> Check {
    let kills = evidence.after.kills.get(GATEWAY).copied().unwrap_or_default();
    let restarts = evidence.status.pointer("/status/servants/0/restarts").and_then(Value::as_u64);
    Check {
        what: "and the gateway",
        seen: format!("{kills} kills"),
        fault: (Some(kills) != restarts).then(|| format!("the status says {restarts:?} restarts")),
    }
}

fn lines(evidence: &Evidence) -> Check {
    let said = &evidence.said;
    let mut faults: Vec<String> = said
        .accounts
        .iter()
        .flat_map(|(name, account)| account.faults.iter().map(move |fault| format!("{name}: {fault}")))
        .collect();
    if said.lost > 0 {
        faults.push(format!("the log says that {} records are missing", said.lost));
    }
    let count = said.accounts.values().fold(0_u64, |sum, account| sum.saturating_add(account.lines));
    Check {
        what: "each line that was said is in the log, once",
        seen: format!("{count} lines"),
        fault: list(&faults),
    }
}

/// Nobody comes to rest with a zombie; here is how many there were to reap.
fn zombies(evidence: &Evidence) -> Check {
    let orphans = evidence.said.accounts.get("forker").map_or(0, |account| account.lines);
    let zombies = evidence.after.zombies;
    Check {
        what: "every orphan was reaped",
        seen: format!("{orphans} orphans, {zombies} zombies left"),
        fault: (zombies > 0 || orphans == 0).then(|| "init reaps what nobody waits for".to_owned()),
    }
}

fn descriptors(what: &'static str, before: Process, after: Process) -> Check {
    let (before, after) = (before.descriptors, after.descriptors);
    let fault = match (before, after) {
        (0, _) | (_, 0) => Some("they could not be counted".to_owned()),
        _ => (after > before).then(|| format!("{} more", after.saturating_sub(before))),
    };
    Check { what, seen: format!("{before} before, {after} after"), fault }
}

fn memory(what: &'static str, before: u64, after: u64, slack: u64) -> Check {
    let grown = after.saturating_sub(before);
    let fault = if before == 0 || after == 0 {
        Some("it could not be measured".to_owned())
    } else {
        (grown > slack).then(|| format!("{grown} KiB more; {slack} KiB are allowed"))
    };
    Check { what, seen: format!("{before} KiB before, {after} KiB after"), fault }
}

fn limit(what: &'static str, before: Process, after: Process, limit: u64) -> Check {
    let (least, most) =
        (before.resident_kib.min(after.resident_kib), before.resident_kib.max(after.resident_kib));
    let fault = match least {
        0 => Some("it could not be measured".to_owned()),
        _ => (most > limit).then(|| format!("{limit} KiB are allowed")),
    };
    Check { what, seen: format!("{most} KiB of {limit}"), fault }
}

fn restarts(status: &Value, name: &str) -> Option<u64> {
    let services = status.pointer("/status/services")?.as_array()?;
    let found = services.iter().find(|service| service.get("name").and_then(Value::as_str) == Some(name))?;
    found.get("restarts")?.as_u64()
}

fn list(faults: &[String]) -> Option<String> {
    (!faults.is_empty()).then(|| faults.join("\n          "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faulty(checks: &[Check]) -> Vec<&'static str> {
        checks.iter().filter(|check| check.fault.is_some()).map(|check| check.what).collect()
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
            said: Said::default(),
        };
        evidence.after.kills.insert(SUPERVISOR.into(), 2);
        evidence.after.kills.insert(GATEWAY.into(), 1);
        let services = VICTIMS.map(|name| serde_json::json!({"name": name, "restarts": 3}));
        evidence.status["status"]["services"] = serde_json::json!(services);
        for name in VICTIMS {
            evidence.after.kills.insert(name.into(), 3);
            let account = evidence.said.accounts.entry(name.into()).or_default();
            (account.runs, account.lines) = (4, 9);
        }
        evidence
    }

    #[test]
    fn numbers_that_agree_are_good() {
        assert_eq!(faulty(&checks(&evidence())), Vec::<&str>::new());
    }

    #[test]
    fn a_lost_exit_a_lost_line_and_growth_are_told() {
        let mut wrong = evidence();
        wrong.after.kills.insert("web".into(), 4);
        wrong.said.lost = 1;
        wrong.after.init.descriptors = 31;
        wrong.after.used_kib = 80_000;
        wrong.before.init.resident_kib = 977;
        wrong.after.init.resident_kib = 976;
        wrong.before.supervisor.resident_kib = 7_700;
        wrong.after.supervisor.resident_kib = 7_813;
        let found = [
            "each killed service was started again, once",
            "each line that was said is in the log, once",
            "init's descriptors are as many as before",
            "nor has the machine's, without its files",
            "init holds what it may at rest",
            "so does the supervisor",
        ];
        assert_eq!(faulty(&checks(&wrong)), found);
    }
}
