//! `rm`: forgets ended enclaves.

use crate::cli::Rm;
use crate::error::Result;
use crate::output;
use crate::sleeve::requests::{Asked, Client};
use crate::state::Root;

use super::DONE;

/// Removes what is left of enclaves.
pub(crate) fn rm(asked: &Rm, json: bool) -> Result<u8> {
    let root = Root::open()?;
    let names = if asked.all { ended(&root)? } else { asked.names.clone() };
    for name in &names {
        let folder = root.find(name)?;
        if let Some(mut client) = Client::connect(&folder)?.filter(|_| asked.force) {
            client.ask(Asked::Kill)?;
            client.wait_end(&folder)?;
        }
        folder.remove()?;
        if !json {
            output::data(name)?;
        }
    }
    if json {
        output::json(&names)?;
    }
    Ok(DONE)
}

fn ended(root: &Root) -> Result<Vec<String>> {
    let all = root.list()?.into_iter();
    Ok(all.filter(|(_, seen)| seen.as_ref().map_or(true, |seen| !seen.alive)).map(|(name, _)| name).collect())
}
