//! The current resource usage of several enclaves, queried in parallel.
//!
//! Invariant: an enclave that does not respond is listed without its usage, and does not delay the others.

use std::time::Duration;

use cloister_wire::control::{Phase, Reply, Request, ServiceStats, Stats, Status};
use serde::Serialize;

use crate::state::record::{Seen, now_ms};
use crate::state::{EnclaveDir, Root};

use super::socket::{Client, SleeveRequest};

/// How long an enclave may take to reply.
const LIMIT: Duration = Duration::from_secs(2);

/// Number of enclaves queried in parallel.
const AT_ONCE: usize = 32;

/// The resource usage of one service, and its state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// The statistics of its cgroup.
    #[serde(flatten)]
    pub(crate) stats: ServiceStats,
    /// Its current phase.
    pub(crate) phase: Option<Phase>,
    /// How often it was restarted.
    pub(crate) restarts: u32,
    /// Milliseconds it has been in its phase.
    pub(crate) since_ms: Option<u64>,
}

/// Queries each of these enclaves. `None` for those that do not reply.
pub(crate) fn query_all(root: &Root, enclaves: &[&Seen]) -> Vec<Option<Stats>> {
    let mut replies = Vec::new();
    for group in enclaves.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let queries: Vec<_> = group.iter().map(|seen| scope.spawn(|| query(root, seen))).collect();
            replies.extend(queries.into_iter().map(|thread| thread.join().unwrap_or_default()));
        });
    }
    replies
}

/// Queries one enclave, unless it has not yet sent a status or has ended.
pub(crate) fn query(root: &Root, seen: &Seen) -> Option<Stats> {
    let is_up = seen.record.status.as_ref().is_some_and(|status| !status.state.is_final());
    if !seen.alive || !is_up {
        return None;
    }
    let directory: EnclaveDir = root.find(&seen.record.name).ok()?;
    let mut client = Client::connect(&directory).ok()??;
    client.limit(LIMIT).ok()?;
    match client.request(SleeveRequest::Enclave(Request::Stats)) {
        Ok(Reply::Stats(stats)) => Some(stats),
        _ => None,
    }
}

/// The usage of each service, combined with its state from the last status.
pub(crate) fn by_service(stats: Stats, seen: &Seen) -> Vec<Usage> {
    let uptime = seen.record.booted_ms.map(|booted| now_ms().saturating_sub(booted));
    let reported = seen.record.status.as_ref();
    stats.services.into_iter().map(|stats| usage(stats, reported, uptime)).collect()
}

/// The same for Cloister's own programs inside the enclave, whose names begin with `@`.
pub(crate) fn by_servant(stats: &Stats, seen: &Seen) -> Vec<Usage> {
    let uptime = seen.record.booted_ms.map(|booted| now_ms().saturating_sub(booted));
    let reported = seen.record.status.as_ref();
    stats.servants.iter().map(|stats| usage(stats.clone(), reported, uptime)).collect()
}

fn usage(stats: ServiceStats, reported: Option<&Status>, uptime_ms: Option<u64>) -> Usage {
    let mut all = reported.into_iter().flat_map(|status| status.services.iter().chain(&status.servants));
    let service = all.find(|service| service.name == stats.name);
    Usage {
        stats,
        phase: service.map(|service| service.phase),
        restarts: service.map_or(0, |service| service.restarts),
        since_ms: service.and_then(|service| Some(uptime_ms?.saturating_sub(service.since_ms))),
    }
}
