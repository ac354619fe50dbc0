//! `rm`: removes ended enclaves and their logs.

use std::time::Duration;

use crate::backends::remains;
use crate::cli::Rm;
use crate::client::{Asked, Client};
use crate::error::{Error, Result};
use crate::output;
use crate::state::process::ProcessId;
use crate::state::{Folder, Root, folder};

use super::{DONE, block_on};

/// Time limit for a sleeve's reply to a kill request, after which the sleeve itself is killed.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Removes enclaves. One that cannot be removed does not prevent the others from being removed.
pub(crate) fn rm(args: &Rm, json: bool) -> Result<u8> {
    let root = Root::open()?;
    let folders: Vec<Result<Folder>> = if args.all {
        // Without --force, running enclaves are not included.
        let all = root.folders()?.into_iter().filter(|folder| args.force || !folder.is_alive());
        all.map(Ok).collect()
    } else {
        args.names.iter().map(|name| root.find(name)).collect()
    };
    let mut removed = Vec::new();
    let mut failed: Option<Error> = None;
    for folder in folders {
        match folder.and_then(|folder| remove(folder, args.force)) {
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

/// Removes one enclave and returns its name.
fn remove(folder: Folder, force: bool) -> Result<String> {
    let name = folder.name().to_owned();
    if force {
        end(&folder)?;
    }
    block_on(remains::end(&folder))?;
    folder.remove()?;
    Ok(name)
}

/// Kills a running enclave: through its sleeve, or together with its sleeve if that does not respond or does not exit afterwards.
fn end(folder: &Folder) -> Result<()> {
    let sleeve = folder.named();
    let killed = Client::connect(folder).and_then(|client| match client {
        None => Ok(folder.wait_end(sleeve, false)),
        Some(mut client) => {
            client.limit(ASK_LIMIT)?;
            client.ask(Asked::Kill)?;
            client.wait_end(folder, sleeve.or_else(|| folder.named()))
        }
    });
    match killed {
        Err(error) if !sleeve.is_none_or(ProcessId::end) => Err(error),
        Ok(Some(process)) if process.end() => {
            output::note(&format!("cloister: {}; killed it", folder::printing(folder.name(), process)));
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
    fn the_successor_of_an_unresponsive_sleeve_is_not_killed() {
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
        assert!(second, "the successor was killed");
        assert!(!first, "the unresponsive sleeve was not killed");
    }
}
