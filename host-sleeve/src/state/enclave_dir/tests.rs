//! Directories of enclaves under concurrent commands.

use super::super::record::tests::launched;
use super::*;
use std::fs;

fn taken(claim: Claim) -> EnclaveDir {
    match claim {
        Claim::Taken(directory) => *directory,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_lock_shows_whether_the_sleeve_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    let held = taken(EnclaveDir::claim(&path, false).unwrap());
    held.writer().write(0, &launched("web")).unwrap();
    let reader = EnclaveDir::open(&path).unwrap();
    assert!(reader.seen().unwrap().unwrap().alive);
    drop(held);
    assert!(!reader.seen().unwrap().unwrap().alive);
}

#[test]
fn the_directory_of_an_ended_enclave_is_taken_over_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    taken(EnclaveDir::claim(&path, false).unwrap()).writer().write(0, &launched("web")).unwrap();
    assert!(matches!(EnclaveDir::claim(&path, false).unwrap(), Claim::Ended));
    let again = taken(EnclaveDir::claim(&path, true).unwrap());
    assert!(again.seen().unwrap().is_none());
}

#[test]
fn a_running_enclave_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    let held = taken(EnclaveDir::claim(&path, false).unwrap());
    assert!(EnclaveDir::open(&path).unwrap().remove(false).is_err());
    drop(held);
    EnclaveDir::open(&path).unwrap().remove(false).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_removed_lock_file_does_not_make_a_running_enclave_removable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    let held = taken(EnclaveDir::claim(&path, false).unwrap());
    let mut sleeve = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let record = Record { sleeve: ProcessId::of(sleeve.id()), ..launched("web") };
    held.writer().write(0, &record).unwrap();
    assert!(held.is_in_place(&[]));
    fs::remove_file(path.join(LOCK)).unwrap();
    assert!(!held.is_in_place(&[]), "its sleeve does not notice");
    assert!(matches!(EnclaveDir::claim(&path, true).unwrap(), Claim::Running));
    let other = EnclaveDir::open(&path).unwrap();
    assert!(other.seen().unwrap().unwrap().alive);
    assert!(EnclaveDir::open(&path).unwrap().remove(false).unwrap_err().to_string().contains("is running"));
    assert!(ProcessId::of(sleeve.id()).unwrap().exists(), "a process of a running enclave was killed");
    assert!(other.named().unwrap().end());
    sleeve.wait().unwrap();
    other.remove(false).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_directory_that_was_removed_and_recreated_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    let held = taken(EnclaveDir::claim(&path, false).unwrap());
    held.writer().write(0, &launched("web")).unwrap();
    fs::remove_dir_all(&path).unwrap();
    assert!(!held.is_in_place(&[]));
    let again = taken(EnclaveDir::claim(&path, false).unwrap());
    again.writer().write(0, &launched("web")).unwrap();
    assert!(again.is_in_place(&[]) && !again.is_in_place(&["sleeve.sock"]) && !held.is_in_place(&[]));
}

#[test]
fn a_socket_is_reachable_whatever_the_length_of_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120));
    fs::create_dir(&deep).unwrap();
    let directory = taken(EnclaveDir::claim(&deep.join("web"), false).unwrap());
    let _listener = std::os::unix::net::UnixListener::bind(directory.socket("sleeve.sock")).unwrap();
    assert!(directory.file("sleeve.sock").exists());
    std::os::unix::net::UnixStream::connect(directory.socket("sleeve.sock")).unwrap();
}

#[test]
fn only_the_directory_that_was_opened_is_removed_and_not_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    let first = taken(EnclaveDir::claim(&path, false).unwrap());
    let late = EnclaveDir::open(&path).unwrap();
    first.remove_locked().unwrap();
    let second = taken(EnclaveDir::claim(&path, false).unwrap());
    second.writer().write(0, &launched("web")).unwrap();
    drop(second);
    late.remove(false).unwrap();
    assert!(EnclaveDir::open(&path).unwrap().seen().unwrap().is_some(), "another enclave was removed");
}

#[test]
fn an_enclave_that_has_lost_its_lock_removes_nothing_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    let first = taken(EnclaveDir::claim(&path, false).unwrap());
    fs::remove_file(path.join(LOCK)).unwrap();
    let second = taken(EnclaveDir::claim(&path, false).unwrap());
    second.writer().write(0, &launched("web")).unwrap();
    first.remove_locked().unwrap();
    assert!(second.is_in_place(&[]), "another enclave was removed");
}

#[test]
fn concurrent_claims_and_removals_of_one_name_exclude_each_other() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let (path, holders, taken) = (dir.path().join("web"), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let Claim::Taken(directory) = EnclaveDir::claim(&path, false).unwrap() else { continue };
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold one directory");
                    assert!(directory.lock_is_in_place());
                    taken.fetch_add(1, Ordering::SeqCst);
                    holders.fetch_sub(1, Ordering::SeqCst);
                    directory.remove_locked().unwrap();
                }
            });
        }
    });
    assert!(taken.into_inner() > 0 && !path.exists());
}

#[test]
fn a_lock_held_by_an_exiting_sleeve_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    let held = taken(EnclaveDir::claim(&path, false).unwrap());
    let mut sleeve = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    held.writer().write(0, &Record { sleeve: ProcessId::of(sleeve.id()), ..launched("web") }).unwrap();
    assert!(EnclaveDir::open(&path).unwrap().named().unwrap().end());
    let dies = std::thread::spawn(move || {
        // As long as the last thread of a process may take on a busy machine after the first has exited.
        std::thread::park_timeout(Duration::from_millis(100));
        drop(held);
    });
    EnclaveDir::open(&path).unwrap().remove(false).unwrap();
    assert!(!path.exists());
    dies.join().unwrap();
    sleeve.wait().unwrap();
}

#[test]
fn a_lock_that_is_only_being_probed_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    taken(EnclaveDir::claim(&path, false).unwrap()).writer().write(0, &launched("web")).unwrap();
    let probing = File::open(path.join(LOCK)).unwrap();
    probing.lock_shared().unwrap();
    let locker = std::thread::spawn(move || {
        // As long as a process may be kept from running on a busy machine.
        std::thread::park_timeout(Duration::from_millis(100));
        drop(probing);
    });
    assert!(matches!(EnclaveDir::claim(&path, false).unwrap(), Claim::Ended));
    locker.join().unwrap();
}

#[test]
fn a_truncated_record_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let directory = taken(EnclaveDir::claim(&dir.path().join("web"), false).unwrap());
    fs::write(directory.file(RECORD), b"{\"version\":1,").unwrap();
    assert!(directory.seen().is_err());
}

#[test]
fn a_pipe_in_place_of_the_record_or_of_the_lock_is_refused_and_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    fs::create_dir(&path).unwrap();
    let pipe = |name: &str| {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join(name), mode).unwrap();
    };
    pipe(RECORD);
    pipe(LOCK);
    let directory = EnclaveDir::open(&path).unwrap();
    let (result, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || result.send(directory.seen().map(drop)));
    let seen = received.recv_timeout(Duration::from_secs(20)).expect("it waits for a writer of the pipe");
    assert!(seen.unwrap_err().reasons().concat().contains("not a regular file"));
}

#[test]
fn a_record_has_the_name_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let directory = taken(EnclaveDir::claim(&dir.path().join("web"), false).unwrap());
    directory.writer().write(0, &launched("../other\x1b[31m")).unwrap();
    assert_eq!(directory.must_see().unwrap().record.name, "web");
}

#[test]
fn a_directory_in_place_of_the_record_is_removed_only_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    fs::create_dir_all(path.join(RECORD).join("deep")).unwrap();
    let open = || EnclaveDir::open(&path).unwrap();
    assert!(open().seen().is_err());
    let error = open().remove(false).unwrap_err();
    assert!(error.details().hint.as_deref().unwrap().contains("rm --force web"), "{error:?}");
    open().remove(true).unwrap();
    assert!(!path.exists());
}
