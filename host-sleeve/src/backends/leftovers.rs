//! Terminates what a dead sleeve has left running.
//!
//! Invariant: a record is not deleted while something that it names may still be running, unless the operator forces it.

use tokio::time;

use crate::error::{Error, Result};
use crate::state::EnclaveDir;
use crate::state::handle::Handle;
use crate::state::record::{Record, Seen};

use super::list;
use super::options::Chosen;

/// Terminates what is left of the enclave in this directory, if its sleeve is gone. Of a record that is damaged or of another
/// version, the backend's handle may be readable; processes that it names are killed when the directory is removed.
pub(crate) async fn terminate(directory: &EnclaveDir) -> Result<()> {
    match directory.seen() {
        Ok(Some(Seen { record, alive: false })) => terminate_recorded(&record).await,
        Err(_) if !directory.is_alive() => match directory.handle() {
            Some(handle) => terminate_handle(directory.name(), &handle, directory.has_ended()).await,
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The same for the record of a sleeve that is gone.
pub(crate) async fn terminate_recorded(record: &Record) -> Result<()> {
    match record.handle() {
        Some(handle) => terminate_handle(&record.name, &handle, record.end.is_some()).await,
        None => Ok(()),
    }
}

/// The text of what the backend has recorded about what it created, for people who must find it without this program.
pub(crate) fn data(directory: &EnclaveDir) -> Option<String> {
    let handle = match directory.seen() {
        Ok(seen) => seen?.record.handle(),
        Err(_) => directory.handle(),
    };
    handle.map(|handle| handle.text())
}

/// The state of an enclave, as `ps` shows it.
pub(crate) fn summary(seen: &Seen) -> String {
    if seen.alive || !is_unknown(&seen.record) {
        return seen.summary();
    }
    format!(
        "unknown: it may still be running on the backend {}, which this host-sleeve does not have",
        seen.record.backend
    )
}

/// Whether the record of a sleeve that is gone states no end, and names a backend that this host-sleeve does not have.
pub(crate) fn is_unknown(record: &Record) -> bool {
    let handle = record.handle().filter(|_| record.end.is_none());
    handle.is_some_and(|handle| list::open(&handle.backend, &Chosen::default()).is_err())
}

/// Terminates what this handle refers to. `ended` means that the record states how the enclave ended.
async fn terminate_handle(name: &str, handle: &Handle, ended: bool) -> Result<()> {
    let hint = format!(
        "use the host-sleeve that launched it, or a newer one; `host-sleeve rm --force {name}` deletes the record and leaves the enclave \
         as it is"
    );
    let backend = match list::open(&handle.backend, &Chosen::default()) {
        Ok(backend) => backend,
        // Nothing is left.
        Err(_) if ended => return Ok(()),
        Err(error) => {
            let what =
                format!("{name} may still be running on a backend that this host-sleeve does not have");
            return Err(Error::operator(what).because(error).hint(hint));
        }
    };
    let Some(mut left) = backend.reattach(handle).await.map_err(|error| error.hint(hint))? else {
        return Ok(());
    };
    let limits = backend.limits();
    left.kill();
    let ended = time::timeout(limits.kill, left.ended()).await;
    drop(time::timeout(limits.destroy, left.destroy()).await);
    match ended {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::host(format!("what is left of {name} did not exit after it was killed"))
            .hint("`host-sleeve ps` lists its processes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::process::{ProcessId, boot_id};
    use crate::state::record::tests::launched;
    use serde_json::json;
    use std::process::Command;

    fn record_with(handle: Handle) -> Record {
        Record { handle: Some(handle), ..launched("web") }
    }

    #[tokio::test]
    async fn what_a_dead_sleeve_has_left_is_terminated() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        let parts = json!({"boot": boot_id(), "processes": [["qemu", process]]});
        terminate_recorded(&record_with(Handle::created("qemu", &parts))).await.unwrap();
        assert!(!process.exists());
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_with_the_number_of_one_from_an_earlier_boot_is_not_killed() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        let parts = json!({"boot": "an earlier boot", "processes": [["qemu", process]]});
        terminate_recorded(&record_with(Handle::created("qemu-nitro", &parts))).await.unwrap();
        assert!(process.exists());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn an_intent_from_which_nothing_was_created_leaves_nothing_to_terminate() {
        terminate_recorded(&record_with(Handle::creating("qemu"))).await.unwrap();
        terminate_recorded(&launched("web")).await.unwrap();
    }

    #[tokio::test]
    async fn a_record_with_an_unknown_backend_is_not_deleted_before_its_enclave_has_ended() {
        let mut record = record_with(Handle::created("cray", &json!({"node": 7})));
        let error = terminate_recorded(&record).await.unwrap_err();
        assert!(error.reasons().concat().contains("no backend named cray"), "{error:?}");
        record.end = Some(
            serde_json::from_value(json!({"code": 0, "outcome": "killed", "why": "x", "at_ms": 1})).unwrap(),
        );
        terminate_recorded(&record).await.unwrap();
    }

    /// A directory whose record consists of these bytes.
    fn recorded(bytes: &[u8]) -> (tempfile::TempDir, EnclaveDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("state.json"), bytes).unwrap();
        let directory = EnclaveDir::open(&path).unwrap();
        (dir, directory)
    }

    #[tokio::test]
    async fn a_record_of_another_version_or_a_truncated_one_is_not_deleted_while_its_enclave_may_be_running()
    {
        let mut value =
            serde_json::to_value(record_with(Handle::created("cray", &json!({"node": 7})))).unwrap();
        value["backend"] = json!("cray");
        let truncated = value.to_string();
        let truncated = truncated.split_once("\"cpus\"").unwrap().0.as_bytes().to_vec();
        value["version"] = json!(2);
        let other_version = value.to_string().into_bytes();
        for bytes in [&other_version, &truncated] {
            let (_dir, directory) = recorded(bytes);
            assert!(directory.seen().is_err());
            let error = terminate(&directory).await.unwrap_err();
            assert!(error.to_string().starts_with("web may still be running"), "{error}");
        }
        value["end"] = json!({"code": 0});
        let (_dir, directory) = recorded(value.to_string().as_bytes());
        terminate(&directory).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_record_of_another_version_has_left_on_a_known_backend_is_terminated() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        let parts = json!({"boot": boot_id(), "processes": [["qemu", process]]});
        let value = json!({"version": 2, "handle": Handle::created("qemu", &parts)});
        let (_dir, directory) = recorded(value.to_string().as_bytes());
        terminate(&directory).await.unwrap();
        assert!(!process.exists());
        child.wait().unwrap();
    }

    #[test]
    fn an_enclave_on_an_unknown_backend_is_unknown_and_not_killed() {
        let handle = Handle::created("cray", &json!({"node": 7}));
        let record = Record { backend: "cray".into(), ..record_with(handle) };
        let (_dir, directory) = recorded(&serde_json::to_vec(&record).unwrap());
        let seen = directory.must_see().unwrap();
        assert!(summary(&seen).starts_with("unknown: it may still be running on the backend cray"));
        assert!(data(&directory).unwrap().contains(r#""node":7"#));
        let known = Seen { record: record_with(Handle::created("qemu", &json!({}))), alive: false };
        assert_eq!(summary(&known), "killed: the sleeve died");
    }
}
