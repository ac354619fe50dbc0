//! `stop`: in order, and then not.

use std::time::Duration;

use cloister_wire::control::Reply;
use serde::Serialize;

use crate::cli::Stop;
use crate::error::{Error, Result};
use crate::output;
use crate::sleeve::requests::{Asked, Client};
use crate::state::{End, Folder, Root, folder};

use super::DONE;

/// What became of one enclave, as `stop --json` shows it.
#[derive(Serialize)]
struct Stopped {
    name: String,
    end: Option<End>,
}

/// Stops enclaves, all at once, and waits for each. One that cannot be stopped does not keep the others running.
pub(crate) fn stop(asked: &Stop, json: bool) -> Result<u8> {
    let root = Root::open()?;
    let folders: Vec<Folder> = asked.names.iter().map(|name| root.find(name)).collect::<Result<_>>()?;
    let clients: Vec<Result<Option<Client>>> = folders.iter().map(|folder| ask(folder, asked)).collect();
    let mut stopped = Vec::new();
    let mut failed: Option<Error> = None;
    for (folder, client) in folders.iter().zip(clients) {
        match client.and_then(|client| wait(folder, client)) {
            Ok(one) if json => stopped.push(one),
            Ok(one) => output::data(&one.name)?,
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    output::error(&earlier);
                }
            }
        }
    }
    if json {
        output::json(&stopped)?;
    }
    failed.map_or(Ok(DONE), Err)
}

/// Asks the sleeve to stop. One that is gone needs no asking.
fn ask(folder: &Folder, asked: &Stop) -> Result<Option<Client>> {
    let connected = match Client::connect(folder) {
        // A sleeve that cannot be asked is killed as what its record says it is, and its machine with it.
        Err(_) if asked.kill && folder.kill_sleeve() => None,
        other => other?,
    };
    let Some(mut client) = connected else {
        return Ok(None);
    };
    let grace_ms = asked.grace.map(|grace: Duration| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    let ask = if asked.kill { Asked::Kill } else { Asked::Stop { grace_ms } };
    match client.ask(ask)? {
        Reply::Refused { why } => {
            Err(Error::enclave(format!("{} was not stopped", folder.name()))
                .because(std::io::Error::other(why)))
        }
        _ => Ok(Some(client)),
    }
}

fn wait(folder: &Folder, client: Option<Client>) -> Result<Stopped> {
    let name = folder.name().to_owned();
    let asked = client.is_some();
    let printing = match client {
        Some(client) => client.wait_end(folder)?,
        None => folder.wait_end(),
    };
    if let Some(process) = printing {
        output::note(&format!("cloister: {}", folder::printing(&name, process)));
    }
    let Some(seen) = folder.seen().ok().flatten() else {
        return Ok(Stopped { name, end: None }); // run --rm
    };
    for (_, process) in seen.orphans() {
        process.kill();
    }
    if !asked {
        output::note(&format!("{name} had ended: {}", seen.words()));
    }
    Ok(Stopped { name, end: seen.record.end })
}
