//! The log and its memory: what outlives the program, what each service may record, and writes that were cut off.

use proptest::prelude::*;

use super::*;

/// The memory of a machine, and a duplicate for each program that opens it.
struct Memory(File);

impl Memory {
    fn new() -> Self {
        Self(tempfile::tempfile().unwrap())
    }

    fn open(&self, services: usize) -> Events {
        Events::open(self.0.try_clone().unwrap().into(), services).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        contents(&self.0).unwrap()
    }
}

/// The log that a client receives.
fn sent(events: &Events) -> Log {
    let snapshot = events.snapshot();
    Log::parse(&snapshot.piece(0, usize::MAX)).unwrap()
}

#[test]
fn a_new_log_begins_with_the_boot_and_outlives_the_program() {
    let memory = Memory::new();
    let mut events = memory.open(1);
    assert_eq!(sent(&events), Log::booted());
    events.record("web", "config", b"data").unwrap();
    drop(events);
    let events = memory.open(1);
    let log = sent(&events);
    assert!(log.begins_with_the_boot());
    let last = &log.events()[1];
    assert_eq!((last.kind(), last.data(), last.service()), ("service.web.config", &b"data"[..], Some("web")));
    assert_eq!((events.count(), events.digests()), (2, log.digests()));
}

#[test]
fn a_write_that_was_cut_off_leaves_no_trace() {
    let memory = Memory::new();
    memory.open(1).record("web", "config", &[7; 100]).unwrap();
    let whole = memory.bytes();
    for length in Log::booted().encode().len()..whole.len() {
        memory.0.set_len(u64::try_from(length).unwrap()).unwrap();
        let mut events = memory.open(1);
        assert_eq!(sent(&events), Log::booted(), "{length}");
        events.record("web", "config", &[7; 100]).unwrap();
        assert_eq!(memory.bytes(), whole, "{length}");
    }
}

#[test]
fn damaged_memory_is_no_log() {
    let memory = Memory::new();
    drop(memory.open(1));
    memory.0.write_all_at(b"!", 10).unwrap();
    let error = Events::open(memory.0.try_clone().unwrap().into(), 1).unwrap_err();
    assert!(matches!(error, DamagedLog::Contents(_)), "{error}");
}

#[test]
fn an_event_that_was_refused_is_removed_and_was_never_sent() {
    let memory = Memory::new();
    let mut events = memory.open(1);
    let before = (events.snapshot(), events.digests().clone(), memory.bytes());
    events.record_lock("web").unwrap();
    events.remove_last();
    assert_eq!((events.digests(), memory.bytes()), (&before.1, before.2));
    assert!(!events.is_locked() && events.last().is_none());
    events.record("web", "other", b"").unwrap();
    assert_eq!(Log::parse(&before.0.piece(0, usize::MAX)), Ok(Log::booted()), "a snapshot does not change");
}

#[test]
fn a_service_cannot_use_the_part_of_another_or_of_cloister() {
    let memory = Memory::new();
    let mut events = memory.open(2);
    let fill = |events: &mut Events, name: &str| {
        (0..).find_map(|_| events.record(name, "x", &[0; 200]).err()).unwrap()
    };
    let exhausted = |name: &str| Unrecorded::Full(name.into(), SHARE.0 / 2, SHARE.1 / 2);
    assert_eq!(fill(&mut events, "first"), exhausted("first"));
    assert_eq!(fill(&mut events, "second"), exhausted("second"));
    let snapshot = events.snapshot();
    assert!(snapshot.len() <= SHARE.1 + Log::booted().encode().len(), "{}", snapshot.len());
    // A successor has counted the same.
    let mut events = memory.open(2);
    assert_eq!(events.record("first", "x", &[0; 200]), Err(exhausted("first")));
    events.record_lock("first").unwrap();
    assert_eq!(events.record_lock("second"), Err(Unrecorded::Locked("first".into())));
    let why = memory.open(2).record("second", "x", b"").unwrap_err().to_string();
    assert_eq!(why, "no more events are recorded: service first has locked the log");
}

#[test]
fn a_label_cannot_imitate_another_service_or_an_event_of_cloister() {
    let mut events = Memory::new().open(1);
    for label in ["", "A", "a/b", "a b", &"x".repeat(41)] {
        let refused = events.record("web", label, b"").unwrap_err();
        assert!(matches!(refused, Unrecorded::Event(LogError::Event(_))), "{label}: {refused}");
    }
    let event = events.record("web", "other.locked", b"").unwrap();
    assert_eq!((event.service(), event.kind()), (Some("web"), "service.web.other.locked"));
    assert!(!events.is_locked());
}

proptest! {
    #[test]
    fn pieces_together_are_the_log(limit in 1_usize..200, number in 0_usize..20) {
        let mut events = Memory::new().open(1);
        for count in 0..number {
            events.record("web", "x", &vec![0; count]).unwrap();
        }
        let snapshot = events.snapshot();
        let pieces: Vec<u8> =
            (0..snapshot.len()).step_by(limit).flat_map(|position| snapshot.piece(position, limit)).collect();
        prop_assert_eq!(pieces, sent(&events).encode());
    }
}
