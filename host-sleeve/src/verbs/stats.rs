//! `stats`: what the services of running enclaves use.

use std::time::Duration;

use cloister_wire::control::{Reply, Request, ServiceStats};
use serde::Serialize;

use crate::cli::Stats;
use crate::cli::values::{show_duration, show_size};
use crate::error::{Error, Result};
use crate::output::{self, Table};
use crate::state::{Folder, Root};

use super::{DONE, service};

/// One enclave, as `stats --json` shows it.
#[derive(Serialize)]
struct Entry {
    name: String,
    services: Vec<ServiceStats>,
}

/// Shows resource use.
pub(crate) fn stats(asked: &Stats, json: bool) -> Result<u8> {
    let root = Root::open()?;
    let names = if asked.names.is_empty() { running(&root)? } else { asked.names.clone() };
    let entries: Vec<Entry> = names.iter().map(|name| entry(&root.find(name)?)).collect::<Result<_>>()?;
    if json {
        return output::json(&entries).map(|()| DONE);
    }
    let mut table = Table::new(&["ENCLAVE", "SERVICE", "CPU", "MEMORY", "PEAK", "PIDS", "OOM KILLS"]);
    for (entry, service) in entries.iter().flat_map(|entry| entry.services.iter().map(move |s| (entry, s))) {
        table.row([
            entry.name.clone(),
            service.name.clone(),
            show_duration(Duration::from_micros(service.cpu_us)),
            show_size(service.memory),
            show_size(service.memory_peak),
            service.pids.to_string(),
            service.oom_kills.to_string(),
        ]);
    }
    output::data(&table.render())?;
    Ok(DONE)
}

fn running(root: &Root) -> Result<Vec<String>> {
    let all = root.list()?.into_iter();
    Ok(all.filter(|(_, seen)| seen.as_ref().is_ok_and(|seen| seen.alive)).map(|(name, _)| name).collect())
}

fn entry(folder: &Folder) -> Result<Entry> {
    match service::ask(folder, Request::Stats)? {
        Reply::Stats { services } => Ok(Entry { name: folder.name().to_owned(), services }),
        Reply::Refused { why } => {
            Err(Error::enclave(format!("{} refused", folder.name())).because(std::io::Error::other(why)))
        }
        _ => Err(Error::enclave(format!("{} answered something else", folder.name()))),
    }
}
