//! `stats`: resource usage of the services of running enclaves.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::Stats;
use crate::client::usage::{Usage, by_servant, by_service, query_all};
use crate::error::{Error, Result};
use crate::output::{self, Table};
use crate::state::Root;
use crate::state::record::Seen;
use crate::values::{show_duration, show_size};

use super::{DONE, block_on};
use crate::values::word;

/// The pause between two tables of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);

/// One enclave in `stats --json`.
#[derive(Serialize)]
struct Entry {
    name: String,
    services: Vec<Usage>,
    /// Cloister's own programs that run beside them.
    servants: Vec<Usage>,
}

/// CPU time by enclave and service, and when it was read, for computing CPU shares.
type Before = HashMap<(String, String), (u64, Instant)>;

/// Shows resource usage.
pub(crate) fn stats(args: &Stats, json: bool) -> Result<u8> {
    let root = Root::open()?;
    let mut before = Before::new();
    loop {
        let entries = entries(&root, args)?;
        if json {
            output::json(&entries)?;
        } else {
            output::data(&table(&entries, &before))?;
        }
        if !args.watch {
            return Ok(DONE);
        }
        before = remember(&entries);
        block_on(async {
            tokio::time::sleep(PAUSE).await;
            Ok(())
        })?;
    }
}

fn entries(root: &Root, args: &Stats) -> Result<Vec<Entry>> {
    let seen: Vec<Seen> = if args.names.is_empty() {
        root.list()?.into_iter().filter_map(|(_, seen)| seen.ok().filter(|seen| seen.alive)).collect()
    } else {
        args.names.iter().map(|name| running(root, name)).collect::<Result<_>>()?
    };
    let refs: Vec<&Seen> = seen.iter().collect();
    let answers = query_all(root, &refs).into_iter().zip(&seen);
    Ok(answers
        .map(|(stats, seen)| Entry {
            name: seen.record.name.clone(),
            servants: stats.as_ref().map(|stats| by_servant(stats, seen)).unwrap_or_default(),
            services: stats.map(|stats| by_service(stats, seen)).unwrap_or_default(),
        })
        .collect())
}

fn running(root: &Root, name: &str) -> Result<Seen> {
    let seen = root.find(name)?.must_see()?;
    if seen.alive {
        return Ok(seen);
    }
    Err(Error::operator(format!("{name} is not running")).hint("`host-sleeve ps` lists running enclaves"))
}

fn table(entries: &[Entry], before: &Before) -> String {
    let mut table = Table::new(&[
        "ENCLAVE",
        "SERVICE",
        "PHASE",
        "FOR",
        "RESTARTS",
        "CPU",
        "CPU TIME",
        "MEMORY",
        "PEAK",
        "PIDS",
        "OOM KILLS",
    ]);
    for entry in entries {
        if entry.services.is_empty() {
            table.row([entry.name.clone(), "does not respond".to_owned()]);
        }
        for usage in entry.services.iter().chain(&entry.servants) {
            table.row(row(entry, usage, before));
        }
    }
    table.render()
}

fn row(entry: &Entry, usage: &Usage, before: &Before) -> Vec<String> {
    let stats = &usage.stats;
    let earlier = before.get(&(entry.name.clone(), stats.name.clone()));
    let span = |ms| show_duration(Duration::from_millis(ms));
    vec![
        entry.name.clone(),
        stats.name.clone(),
        usage.phase.as_ref().map_or_else(String::new, word),
        usage.since_ms.map_or_else(String::new, span),
        usage.restarts.to_string(),
        earlier.map_or_else(String::new, |(cpu_us, at)| {
            share(stats.cpu_us.saturating_sub(*cpu_us), at.elapsed())
        }),
        show_duration(Duration::from_micros(stats.cpu_us)),
        show_size(stats.memory),
        show_size(stats.memory_peak),
        stats.pids.to_string(),
        stats.oom_kills.to_string(),
    ]
}

fn remember(entries: &[Entry]) -> Before {
    let now = Instant::now();
    let all = entries
        .iter()
        .flat_map(|entry| entry.services.iter().chain(&entry.servants).map(move |usage| (entry, usage)));
    all.map(|(entry, usage)| ((entry.name.clone(), usage.stats.name.clone()), (usage.stats.cpu_us, now)))
        .collect()
}

/// CPU time as a share of one CPU, in whole percent.
fn share(cpu_us: u64, elapsed: Duration) -> String {
    let elapsed = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
    format!("{} %", cpu_us.saturating_mul(100) / elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_relative_to_one_cpu() {
        assert_eq!(share(500_000, Duration::from_secs(1)), "50 %");
        assert_eq!(share(3_000_000, Duration::from_secs(2)), "150 %");
        assert_eq!(share(7, Duration::ZERO), "700 %");
    }
}
