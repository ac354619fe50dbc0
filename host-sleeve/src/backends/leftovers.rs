//! Terminates what a dead sleeve has left running.
//!
//! Invariant: a record is not deleted while something that it names may still be running.

use tokio::time;

use crate::error::{Error, Result};
use crate::state::EnclaveDir;
use crate::state::record::{Record, Seen};

use super::list;
use super::options::Chosen;

/// Terminates what is left of the enclave in this directory, if its sleeve is gone. From a record that is damaged or of another
/// version only its processes can be read; those are killed when the directory is removed.
pub(crate) async fn terminate(directory: &EnclaveDir) -> Result<()> {
    match directory.seen() {
        Ok(Some(Seen { record, alive: false })) => terminate_recorded(&record).await,
        _ => Ok(()),
    }
}

/// The same for the record of a sleeve that is gone.
pub(crate) async fn terminate_recorded(record: &Record) -> Result<()> {
    let Some(handle) = record.handle() else {
        return Ok(());
    };
    let backend = match list::open(&handle.backend, &Chosen::default()) {
        Ok(backend) => backend,
        // The record states how the enclave ended: nothing is left.
        Err(_) if record.end.is_some() => return Ok(()),
        Err(error) => {
            return Err(Error::operator(format!(
                "{} may still be running on a backend that this host-sleeve does not have",
                record.name
            ))
            .because(error)
            .hint("use the host-sleeve that launched it, or a newer one"));
        }
    };
    let Some(mut left) = backend.reattach(&handle).await? else {
        return Ok(());
    };
    let limits = backend.limits();
    left.kill();
    let ended = time::timeout(limits.kill, left.ended()).await;
    drop(time::timeout(limits.destroy, left.destroy()).await);
    match ended {
        Ok(_) => Ok(()),
        Err(_) => {
            Err(Error::host(format!("what is left of {} did not exit after it was killed", record.name))
                .hint("`host-sleeve ps` lists its processes"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::handle::Handle;
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
}
