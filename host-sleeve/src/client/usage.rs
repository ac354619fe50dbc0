//! What several enclaves use at this moment, asked all at once.
//!
//! Its law: an enclave that does not answer costs its own line and nobody's time.

use std::time::Duration;

use cloister_wire::control::{Phase, Reply, Request, ServiceStats, Stats, Status};
use serde::Serialize;

use crate::state::record::{Seen, now_ms};
use crate::state::{Folder, Root};

use super::socket::{Asked, Client};

/// How long an enclave may take to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Enclaves asked at the same time.
const AT_ONCE: usize = 32;

/// What one service uses, and how it has fared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// What its cgroup says.
    #[serde(flatten)]
    pub(crate) stats: ServiceStats,
    /// Where it is in its life.
    pub(crate) phase: Option<Phase>,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// Milliseconds it has been in its phase.
    pub(crate) since_ms: Option<u64>,
}

/// Asks each of these enclaves; nothing where there is no answer.
pub(crate) fn ask_all(root: &Root, enclaves: &[&Seen]) -> Vec<Option<Stats>> {
    let mut answers = Vec::new();
    for group in enclaves.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let asked: Vec<_> = group.iter().map(|seen| scope.spawn(|| ask(root, seen))).collect();
            answers.extend(asked.into_iter().map(|thread| thread.join().unwrap_or_default()));
        });
    }
    answers
}

/// Asks one. One that has never said anything, or is over, is not asked.
pub(crate) fn ask(root: &Root, seen: &Seen) -> Option<Stats> {
    let speaks = seen.record.status.as_ref().is_some_and(|status| !status.state.is_final());
    if !seen.alive || !speaks {
        return None;
    }
    let folder: Folder = root.find(&seen.record.name).ok()?;
    let mut client = Client::connect(&folder).ok()??;
    client.limit(LIMIT).ok()?;
    match client.ask(Asked::Enclave(Request::Stats)) {
        Ok(Reply::Stats(stats)) => Some(stats),
        _ => None,
    }
}

/// What each service uses, beside what the status says of it.
pub(crate) fn by_service(stats: Stats, seen: &Seen) -> Vec<Usage> {
    let uptime = seen.record.booted_ms.map(|booted| now_ms().saturating_sub(booted));
    let told = seen.record.status.as_ref();
    stats.services.into_iter().map(|stats| usage(stats, told, uptime)).collect()
}

/// The same for our own programs inside, which are named with an `@`.
pub(crate) fn by_servant(stats: &Stats, seen: &Seen) -> Vec<Usage> {
    let uptime = seen.record.booted_ms.map(|booted| now_ms().saturating_sub(booted));
    let told = seen.record.status.as_ref();
    stats.servants.iter().map(|stats| usage(stats.clone(), told, uptime)).collect()
}

fn usage(stats: ServiceStats, told: Option<&Status>, uptime_ms: Option<u64>) -> Usage {
    let mut all = told.into_iter().flat_map(|status| status.services.iter().chain(&status.servants));
    let service = all.find(|service| service.name == stats.name);
    Usage {
        stats,
        phase: service.map(|service| service.phase),
        restarts: service.map_or(0, |service| service.restarts),
        since_ms: service.and_then(|service| Some(uptime_ms?.saturating_sub(service.since_ms))),
    }
}
