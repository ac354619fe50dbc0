//! `ps`: lists enclaves.

use std::time::Duration;

use cloister_manifest::Platform;
use serde::Serialize;

use crate::backends::{leftovers, list, platform};
use crate::cli::Ps;
use crate::client::usage::{Usage, by_servant, by_service, query_all};
use crate::error::{ErrorDocument, Result};
use crate::output::{self, Table};
use crate::state::record::{OtherVersion, Seen, now_ms};
use crate::state::{End, Root, Verified};
use crate::values::{Publish, show_duration, show_size};

use super::DONE;

/// Maximum length of a state in `ps`, in characters: the last output of a program may be four kilobytes, and `inspect` shows all
/// of it.
const MAX_STATE: usize = 120;

/// One enclave in `ps --json`.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    alive: bool,
    state: String,
    /// Whether its sleeve has verified it, apart from whether it is ready.
    verified: Verified,
    image: &'a str,
    digest: &'a str,
    backend: &'a str,
    /// What attests it: `virtual` for nothing. `None` if this host-sleeve does not have its backend.
    platform: Option<&'static str>,
    machine: Option<&'a str>,
    created_ms: u64,
    services: String,
    publish: &'a [Publish],
    end: Option<&'a End>,
    /// The resource usage of the services, if the enclave reported it.
    usage: Option<Vec<Usage>>,
    /// The same for the servants, whose names begin with `@`.
    servants: Option<Vec<Usage>>,
    /// Processes that outlived their sleeve, which should not happen.
    orphans: Vec<u32>,
}

/// An enclave whose record cannot be read, or was written by another version.
#[derive(Serialize)]
struct Unreadable<'a> {
    name: &'a str,
    alive: bool,
    state: &'static str,
    error: ErrorDocument,
}

/// Lists enclaves.
pub(crate) fn ps(args: &Ps, json: bool) -> Result<u8> {
    let root = Root::open()?;
    let wanted = |seen: &Result<Seen>| match seen {
        Ok(seen) => {
            args.all || seen.alive || !seen.orphans().is_empty() || leftovers::is_unknown(&seen.record)
        }
        Err(_) => true,
    };
    let found: Vec<(String, Result<Seen>)> =
        root.list()?.into_iter().filter(|(_, seen)| wanted(seen)).collect();
    if args.quiet && !json {
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        return output::data(&names.join("\n")).map(|()| DONE);
    }
    let alive: Vec<&Seen> =
        found.iter().filter_map(|(_, seen)| seen.as_ref().ok().filter(|s| s.alive)).collect();
    let mut usage = query_all(&root, &alive).into_iter();
    let mut table = Table::new(&[
        "NAME", "STATE", "VERIFIED", "SERVICES", "RESTARTS", "MEMORY", "AGE", "PORTS", "MACHINE", "IMAGE",
    ]);
    let mut values = Vec::new();
    for (name, seen) in &found {
        match seen {
            Ok(seen) => {
                let stats = if seen.alive { usage.next().flatten() } else { None };
                let servants = stats.as_ref().map(|stats| by_servant(stats, seen));
                let usage = stats.map(|stats| by_service(stats, seen));
                table.row(row(seen, usage.as_deref()));
                values.push(serde_json::to_value(entry(seen, usage, servants)).unwrap_or_default());
            }
            Err(error) => {
                let foreign =
                    error.details().because.as_ref().is_some_and(|cause| cause.is::<OtherVersion>());
                let state = if foreign { "another-version" } else { "unreadable" };
                let why = error.reasons().into_iter().next().unwrap_or_default();
                let shown = format!("{}: {why}", state.replace('-', " "));
                table.row([name.clone(), output::truncate(&shown, MAX_STATE)]);
                let alive = root.find(name).is_ok_and(|directory| directory.is_alive());
                let unreadable = Unreadable { name, alive, state, error: ErrorDocument::from(error) };
                values.push(serde_json::to_value(unreadable).unwrap_or_default());
            }
        }
    }
    if json {
        output::json(&values)?;
    } else {
        output::data(&table.render())?;
    }
    Ok(DONE)
}

fn entry(seen: &Seen, usage: Option<Vec<Usage>>, servants: Option<Vec<Usage>>) -> Entry<'_> {
    let record = &seen.record;
    Entry {
        name: &record.name,
        alive: seen.alive,
        state: leftovers::summary(seen),
        verified: record.verified,
        image: &record.image.name,
        digest: &record.image.digest,
        backend: &record.backend,
        platform: list::platform(&record.backend).map(Platform::name),
        machine: record.machine.as_ref().map(|machine| machine.kind.as_str()),
        created_ms: record.created_ms,
        services: seen.services(),
        publish: &record.publish,
        end: record.end.as_ref(),
        usage,
        servants,
        orphans: seen.orphans().iter().map(|(_, process)| process.pid).collect(),
    }
}

fn row(seen: &Seen, usage: Option<&[Usage]>) -> Vec<String> {
    let record = &seen.record;
    let ports: Vec<String> = record.publish.iter().map(|p| format!("{}→{}", p.listen, p.ingress)).collect();
    let mut state = output::truncate(&leftovers::summary(seen), MAX_STATE);
    for (part, process) in seen.orphans() {
        let orphan =
            format!("; {part} {} is still running, `host-sleeve rm {}` kills it", process.pid, record.name);
        state.push_str(&orphan);
    }
    vec![
        record.name.clone(),
        state,
        record.verified.word().to_owned(),
        seen.services(),
        restarts(seen),
        usage.map_or_else(String::new, |all| show_size(all.iter().map(|one| one.stats.memory).sum())),
        show_duration(Duration::from_millis(now_ms().saturating_sub(record.created_ms))),
        if seen.alive { ports.join(" ") } else { String::new() },
        platform::machine(record),
        record.image.name.clone(),
    ]
}

/// The number of restarts of all services together.
fn restarts(seen: &Seen) -> String {
    let services = seen.record.status.iter().flat_map(|status| &status.services);
    services.map(|service| u64::from(service.restarts)).sum::<u64>().to_string()
}
