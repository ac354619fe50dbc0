//! `rm`: forgets ended enclaves.

use std::time::Duration;

use crate::backends::remains;
use crate::cli::Rm;
use crate::client::{Asked, Client};
use crate::error::{Error, Result};
use crate::output;
use crate::state::process::ProcessId;
use crate::state::{Folder, Root, folder};

use super::{DONE, block_on};

/// How long a sleeve may take to agree to a kill before it is killed without asking.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Removes what is left of enclaves. One that cannot be removed does not keep the others.
pub(crate) fn rm(asked: &Rm, json: bool) -> Result<u8> {
    let root = Root::open()?;
    let folders: Vec<Result<Folder>> = if asked.all {
        // Without force, those that run are not meant.
        let all = root.folders()?.into_iter().filter(|folder| asked.force || !folder.is_alive());
        all.map(Ok).collect()
    } else {
        asked.names.iter().map(|name| root.find(name)).collect()
    };
    let mut removed = Vec::new();
    let mut failed: Option<Error> = None;
    for folder in folders {
        match folder.and_then(|folder| remove(folder, asked.force)) {
            Ok(name) if json => removed.push(name),
            Ok(name) => output::data(&name)?,
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    output::error(&earlier);
                }
            }
        }
    }
    if json {
        output::json(&removed)?;
    }
    failed.map_or(Ok(DONE), Err)
}

/// Removes one, and answers its name.
fn remove(folder: Folder, force: bool) -> Result<String> {
    let name = folder.name().to_owned();
    if force {
        end(&folder)?;
    }
    block_on(remains::end(&folder))?;
    folder.remove()?;
    Ok(name)
}

/// Ends an enclave that runs: by its sleeve, or with its sleeve if that does not answer, or does not end after it.
fn end(folder: &Folder) -> Result<()> {
    let sleeve = folder.named();
    let asked = Client::connect(folder).and_then(|client| match client {
        None => Ok(folder.wait_end(sleeve, false)),
        Some(mut client) => {
            client.limit(ASK_LIMIT)?;
            client.ask(Asked::Kill)?;
            client.wait_end(folder, sleeve.or_else(|| folder.named()))
        }
    });
    match asked {
        Err(error) if !sleeve.is_none_or(ProcessId::end) => Err(error),
        Ok(Some(process)) if process.end() => {
            output::note(&format!("cloister: {}; it was killed", folder::printing(folder.name(), process)));
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::client::SOCKET;
    use crate::verbs::stop::tests::{a_sleeve, reap, root};

    #[test]
    fn a_sleeve_that_replaced_the_one_asked_is_not_killed() {
        let (_dir, root) = root();
        let held = root.claim(Some("web"), "web", false).unwrap();
        let (first, record) = a_sleeve();
        held.pen().write(0, &record).unwrap();
        let (second, record) = a_sleeve();
        let listener = UnixListener::bind(held.socket(SOCKET)).unwrap();
        let replaced = std::thread::spawn(move || {
            let connection = listener.accept().unwrap();
            held.pen().write(0, &record).unwrap();
            drop(connection);
            held
        });
        end(&root.find("web").unwrap()).unwrap();
        replaced.join().unwrap();
        let (first, second) = (reap(first), reap(second));
        assert!(second, "a successor was killed");
        assert!(!first, "the one that did not answer was left");
    }
}
