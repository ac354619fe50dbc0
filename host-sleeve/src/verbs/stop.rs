//! `stop`: stops enclaves cleanly, and kills those that do not stop in time.

use std::time::Duration;

use cloister_wire::control::Reply;
use serde::Serialize;

use crate::backends::leftovers;
use crate::cli::Stop;
use crate::client::{Client, SleeveRequest};
use crate::error::{Error, Result};
use crate::output;
use crate::state::process::ProcessId;
use crate::state::{EnclaveDir, End, Root, enclave_dir};

use super::{DONE, block_on};

/// One enclave in `stop --json`.
#[derive(Serialize)]
struct Stopped {
    name: String,
    end: Option<End>,
}

/// Stops all enclaves in parallel and waits for each. One that cannot be stopped does not prevent the others from being stopped.
pub(crate) fn stop(args: &Stop, json: bool) -> Result<u8> {
    let root = Root::open()?;
    let directories: Vec<EnclaveDir> =
        args.names.iter().map(|name| root.find(name)).collect::<Result<_>>()?;
    let requests: Vec<Result<Requested>> =
        directories.iter().map(|directory| request(directory, args)).collect();
    let mut stopped = Vec::new();
    let mut failed: Option<Error> = None;
    for (directory, requested) in directories.iter().zip(requests) {
        match requested.and_then(|requested| wait(directory, requested)) {
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

/// The receiver of a stop request: by the time it is waited for, the directory may belong to another enclave.
struct Requested {
    /// The connection to the sleeve, unless it has ended.
    client: Option<Client>,
    sleeve: Option<ProcessId>,
}

/// Sends the stop request to the sleeve, if it is running.
fn request(directory: &EnclaveDir, args: &Stop) -> Result<Requested> {
    let sleeve = directory.named();
    let connected = match Client::connect(directory) {
        // An unreachable sleeve is killed as the process named in its record, and its machine dies with it.
        Err(_) if args.kill && sleeve.is_some_and(ProcessId::end) => None,
        other => other?,
    };
    let Some(mut client) = connected else {
        return Ok(Requested { client: None, sleeve });
    };
    let sleeve = sleeve.or_else(|| directory.named());
    let grace_ms = args.grace.map(|grace: Duration| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    let request = if args.kill { SleeveRequest::Kill } else { SleeveRequest::Stop { grace_ms } };
    match client.request(request)? {
        Reply::Refused { why } => Err(Error::enclave(format!("{} was not stopped", directory.name()))
            .because(std::io::Error::other(why))),
        _ => Ok(Requested { client: Some(client), sleeve }),
    }
}

fn wait(directory: &EnclaveDir, requested: Requested) -> Result<Stopped> {
    let name = directory.name().to_owned();
    let was_running = requested.client.is_some();
    let printing = match requested.client {
        Some(client) => client.wait_end(directory, requested.sleeve)?,
        None => directory.wait_end(requested.sleeve, false),
    };
    if let Some(process) = printing {
        output::note(&format!("cloister: {}", enclave_dir::printing(&name, process)));
    }
    let seen = match directory.seen() {
        Ok(Some(seen)) => seen,
        Ok(None) => return Ok(Stopped { name, end: None }), // run --rm
        Err(error) => {
            block_on(leftovers::terminate(directory))?;
            if !was_running {
                output::note(&format!("{name} is not running; {error}"));
            }
            return Ok(Stopped { name, end: None });
        }
    };
    if !seen.alive {
        block_on(leftovers::terminate_recorded(&seen.record))?;
    }
    if !was_running {
        output::note(&format!("{name} had already ended: {}", leftovers::summary(&seen)));
    }
    Ok(Stopped { name, end: seen.record.end })
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::process::{Child, Command};
    use std::sync::mpsc;

    use cloister_wire::frame::{self, HOST_LIMIT};

    use super::*;
    use crate::client::SOCKET;
    use crate::state::Record;
    use crate::state::record::tests::launched;

    /// Longer than [`enclave_dir`] waits for a printing sleeve, and much shorter than a process of [`a_sleeve`] runs.
    const TEST_LIMIT: Duration = Duration::from_secs(20);

    /// A process and a record that names it as its sleeve.
    pub(in super::super) fn a_sleeve() -> (Child, Record) {
        let sleeve = Command::new("sleep").arg("1000").spawn().unwrap();
        let record = Record { sleeve: ProcessId::of(sleeve.id()), ..launched("web") };
        (sleeve, record)
    }

    /// Kills a process and returns whether it was still running.
    pub(in super::super) fn reap(mut sleeve: Child) -> bool {
        let ran = sleeve.try_wait().unwrap().is_none();
        sleeve.kill().unwrap();
        sleeve.wait().unwrap();
        ran
    }

    /// An empty root.
    pub(in super::super) fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(&dir.path().join("state")).unwrap();
        (dir, root)
    }

    fn args(kill: bool) -> Stop {
        Stop { names: vec!["web".to_owned()], grace: None, kill }
    }

    /// The result of `work`, if it returns in time.
    fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (result, received) = mpsc::channel();
        std::thread::spawn(move || result.send(work()));
        received.recv_timeout(TEST_LIMIT).ok()
    }

    #[test]
    fn stopping_an_ended_enclave_does_not_wait_for_its_successor() {
        let (_dir, root) = root();
        let (first, record) = a_sleeve();
        root.claim(Some("web"), "web", false).unwrap().writer().write(0, &record).unwrap();
        reap(first);
        let found = root.find("web").unwrap();
        let client = request(&found, &args(false));
        let (second, record) = a_sleeve();
        let held = root.claim(Some("web"), "web", true).unwrap();
        held.writer().write(0, &record).unwrap();
        let stopped = in_time(move || client.and_then(|client| wait(&found, client)));
        assert!(reap(second));
        assert!(stopped.is_some_and(|stopped| stopped.is_ok()), "it waited for another enclave");
    }

    #[test]
    fn killing_an_enclave_without_a_record_does_not_wait_for_the_sleeve_that_appears() {
        let (_dir, root) = root();
        let held = root.claim(Some("web"), "web", false).unwrap();
        let found = EnclaveDir::open(held.path()).unwrap();
        let client = request(&found, &args(true));
        let (sleeve, record) = a_sleeve();
        held.writer().write(0, &record).unwrap();
        let stopped = in_time(move || client.and_then(|client| wait(&found, client)));
        assert!(reap(sleeve));
        assert!(
            stopped.expect("it waited for a sleeve that it did not kill").is_err(),
            "nothing was stopped"
        );
    }

    #[test]
    fn stopping_returns_although_the_end_was_not_recorded_and_the_output_is_not_read() {
        let (_dir, root) = root();
        let held = root.claim(Some("web"), "web", false).unwrap();
        let (sleeve, record) = a_sleeve();
        held.writer().write(0, &record).unwrap();
        let listener = UnixListener::bind(held.socket(SOCKET)).unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(&frame::encode(&Reply::Done, HOST_LIMIT).unwrap()).unwrap();
        });
        let found = root.find("web").unwrap();
        let stopped = in_time(move || request(&found, &args(false)).and_then(|client| wait(&found, client)));
        assert!(reap(sleeve));
        served.join().unwrap();
        assert!(stopped.is_some_and(|stopped| stopped.is_ok()), "it waited for the output");
    }
}
