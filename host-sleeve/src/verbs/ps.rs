//! `ps`: which enclaves there are.

use std::time::Duration;

use serde::Serialize;

use crate::cli::Ps;
use crate::cli::values::{Publish, show_duration};
use crate::error::{Result, Words};
use crate::output::{self, Table};
use crate::state::record::{Seen, now_ms};
use crate::state::{End, Root};

use super::DONE;

/// One enclave, as `ps --json` shows it.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    alive: bool,
    state: String,
    image: &'a str,
    digest: &'a str,
    backend: &'a str,
    machine: Option<&'a str>,
    created_ms: u64,
    services: String,
    publish: &'a [Publish],
    end: Option<&'a End>,
    /// Processes that outlived their sleeve: there should be none.
    orphans: Vec<u32>,
}

/// A folder whose record cannot be read.
#[derive(Serialize)]
struct Unreadable {
    name: String,
    alive: bool,
    state: &'static str,
    error: Words,
}

/// Lists enclaves.
pub(crate) fn ps(asked: &Ps, json: bool) -> Result<u8> {
    let mut table = Table::new(&["NAME", "STATE", "SERVICES", "AGE", "PORTS", "MACHINE", "IMAGE"]);
    let (mut values, mut names) = (Vec::new(), Vec::new());
    for (name, seen) in Root::open()?.list()? {
        match seen {
            Ok(seen) if asked.all || seen.alive || !seen.orphans().is_empty() => {
                table.row(row(&seen));
                values.push(serde_json::to_value(entry(&seen)).unwrap_or_default());
                names.push(name);
            }
            Ok(_) => {}
            Err(error) => {
                table.row([name.clone(), format!("unreadable: {error}")]);
                let words = Words::from(&error);
                let unreadable =
                    Unreadable { name: name.clone(), alive: false, state: "unreadable", error: words };
                values.push(serde_json::to_value(unreadable).unwrap_or_default());
                names.push(name);
            }
        }
    }
    match (json, asked.quiet) {
        (true, _) => output::json(&values)?,
        (false, true) => output::data(&names.join("\n"))?,
        (false, false) => output::data(&table.render())?,
    }
    Ok(DONE)
}

fn entry(seen: &Seen) -> Entry<'_> {
    let record = &seen.record;
    Entry {
        name: &record.name,
        alive: seen.alive,
        state: seen.words(),
        image: &record.image.name,
        digest: &record.image.digest,
        backend: &record.backend,
        machine: record.machine.as_ref().map(|machine| machine.kind.as_str()),
        created_ms: record.created_ms,
        services: seen.services(),
        publish: &record.publish,
        end: record.end.as_ref(),
        orphans: seen.orphans().iter().map(|(_, process)| process.pid).collect(),
    }
}

fn row(seen: &Seen) -> Vec<String> {
    let record = &seen.record;
    let ports: Vec<String> = record.publish.iter().map(|p| format!("{}→{}", p.listen, p.ingress)).collect();
    let mut state = seen.words();
    for (part, process) in seen.orphans() {
        let orphan = format!("; {part} {} still runs, `host-sleeve rm {}` ends it", process.pid, record.name);
        state.push_str(&orphan);
    }
    vec![
        record.name.clone(),
        state,
        seen.services(),
        show_duration(Duration::from_millis(now_ms().saturating_sub(record.created_ms))),
        if seen.alive { ports.join(" ") } else { String::new() },
        record.machine.as_ref().map_or_else(String::new, |machine| machine.kind.clone()),
        record.image.name.clone(),
    ]
}
