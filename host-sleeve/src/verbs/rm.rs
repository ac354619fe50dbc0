//! `rm`: removes ended enclaves and their logs.

use std::time::Duration;

use crate::backends::leftovers;
use crate::cli::Rm;
use crate::client::{Client, SleeveRequest};
use crate::error::{Error, Result};
use crate::output;
use crate::state::process::ProcessId;
use crate::state::{EnclaveDir, Root, enclave_dir};

use super::{DONE, block_on};

/// Time limit for a sleeve's reply to a kill request, after which the sleeve itself is killed.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Removes enclaves. One that cannot be removed does not prevent the others from being removed.
pub(crate) fn rm(args: &Rm, json: bool) -> Result<u8> {
    let root = Root::open()?;
    let directories: Vec<Result<EnclaveDir>> = if args.all {
        // Without --force, running enclaves are not included.
        let all = root.directories()?.into_iter().filter(|directory| args.force || !directory.is_alive());
        all.map(Ok).collect()
    } else {
        args.names.iter().map(|name| root.find(name)).collect()
    };
    let mut removed = Vec::new();
    let mut failed: Option<Error> = None;
    for directory in directories {
        match directory.and_then(|directory| remove(directory, args.force)) {
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
fn remove(directory: EnclaveDir, force: bool) -> Result<String> {
    let name = directory.name().to_owned();
    if force {
        end(&directory)?;
    }
    let left = match block_on(leftovers::terminate(&directory)) {
        Err(error) if force => Some((error, leftovers::data(&directory))),
        done => done.map(|()| None)?,
    };
    directory.remove(force)?;
    if let Some((error, data)) = left {
        let data = data.map_or_else(String::new, |data| format!("; its backend's data: {data}"));
        output::note(&format!("warning: {error}; the record of {name} was deleted nevertheless{data}"));
    }
    Ok(name)
}

/// Kills a running enclave: through its sleeve, or together with its sleeve if that does not respond or does not exit afterwards.
fn end(directory: &EnclaveDir) -> Result<()> {
    let sleeve = directory.named();
    let killed = Client::connect(directory).and_then(|client| match client {
        None => Ok(directory.wait_end(sleeve, false)),
        Some(mut client) => {
            client.limit(ASK_LIMIT)?;
            client.request(SleeveRequest::Kill)?;
            client.wait_end(directory, sleeve.or_else(|| directory.named()))
        }
    });
    match killed {
        Err(error) if !sleeve.is_none_or(ProcessId::end) => Err(error),
        Ok(Some(process)) if process.end() => {
            output::note(&format!(
                "cloister: {}; killed it",
                enclave_dir::printing(directory.name(), process)
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;
    use crate::client::SOCKET;
    use crate::state::Record;
    use crate::state::handle::Handle;
    use crate::state::record::tests::launched;
    use crate::verbs::stop::tests::{a_sleeve, reap, root};

    #[test]
    fn the_successor_of_an_unresponsive_sleeve_is_not_killed() {
        let (_dir, root) = root();
        let held = root.claim(Some("web"), "web", false).unwrap();
        let (first, record) = a_sleeve();
        held.writer().write(0, &record).unwrap();
        let (second, record) = a_sleeve();
        let listener = UnixListener::bind(held.socket(SOCKET)).unwrap();
        let replaced = std::thread::spawn(move || {
            let connection = listener.accept().unwrap();
            held.writer().write(0, &record).unwrap();
            drop(connection);
            held
        });
        end(&root.find("web").unwrap()).unwrap();
        replaced.join().unwrap();
        let (first, second) = (reap(first), reap(second));
        assert!(second, "the successor was killed");
        assert!(!first, "the unresponsive sleeve was not killed");
    }

    #[test]
    fn an_enclave_on_an_unknown_backend_is_removed_only_by_force() {
        let (_dir, root) = root();
        let record = Record { handle: Some(Handle::creating("cray")), ..launched("web") };
        root.claim(Some("web"), "web", false).unwrap().writer().write(0, &record).unwrap();
        let error = remove(root.find("web").unwrap(), false).unwrap_err();
        assert!(error.details().hint.as_deref().unwrap().contains("rm --force web"), "{error:?}");
        remove(root.find("web").unwrap(), true).unwrap();
        root.find("web").unwrap_err();
    }

    #[test]
    fn an_enclave_whose_handle_cannot_be_interpreted_is_removed_only_by_force() {
        for version in [1, 2] {
            let (_dir, root) = root();
            let handle = json!({"backend": "qemu", "created": true, "processes": {"qemu": 7}});
            let mut record = serde_json::to_value(launched("web")).unwrap();
            record["version"] = json!(version);
            record["handle"] = handle;
            let path = root.claim(Some("web"), "web", false).unwrap().file("state.json");
            std::fs::write(path, record.to_string()).unwrap();
            let error = remove(root.find("web").unwrap(), false).unwrap_err();
            assert!(error.to_string().contains("recorded by the backend qemu"), "{error}");
            assert!(error.details().hint.as_deref().unwrap().contains("rm --force web"), "{error:?}");
            remove(root.find("web").unwrap(), true).unwrap();
            root.find("web").unwrap_err();
        }
    }
}
