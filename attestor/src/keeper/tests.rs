//! The module as a sleeve serves it, with the registers that matter here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use cloister_binding::eventlog::{BOOT_REGISTER, FILE_REGISTER, Log};
use cloister_nsm::Pcr;
use cloister_nsm::server::{Refusal, Request as Asked, Response};
use cloister_wire::frame;
use cloister_wire::hello::{Hello, Protocol, Role};
use cloister_wire::module::{RESPONSE_LIMIT, response};
use sha2::{Digest as _, Sha384};

use super::*;
use crate::exchange::Values;

/// A machine: the registers of its module and the memory of its log outlive every program and connection.
#[derive(Clone)]
struct Machine {
    registers: Arc<Mutex<BTreeMap<u16, Pcr>>>,
    memory: Arc<File>,
}

impl Machine {
    fn new() -> Self {
        let zeros = || Pcr { locked: false, value: vec![0; 48] };
        let registers = [BOOT_REGISTER, EVENT_REGISTER, FILE_REGISTER].map(|register| (register, zeros()));
        let memory = Arc::new(tempfile::tempfile().unwrap());
        Self { registers: Arc::new(Mutex::new(registers.into())), memory }
    }

    fn events(&self) -> Events {
        Events::open(self.memory.try_clone().unwrap().into(), 1).unwrap()
    }

    /// An attestor that is not connected yet.
    fn attestor(&self) -> Keeper {
        Keeper::new("virtual", None, self.events())
    }

    fn connected(&self) -> Keeper {
        let mut attestor = self.attestor();
        attestor.connect(self.connection(usize::MAX));
        attestor
    }

    fn register(&self, number: u16) -> (bool, Vec<u8>) {
        let registers = self.registers.lock().unwrap();
        (registers[&number].locked, registers[&number].value.clone())
    }

    fn set(&self, number: u16, locked: bool, value: &[u8]) {
        self.registers.lock().unwrap().insert(number, Pcr { locked, value: value.to_vec() });
    }

    /// A connection of a sleeve that answers so many requests. It performs the next one, and closes the connection instead of
    /// answering it.
    fn connection(&self, mut requests: usize) -> OwnedFd {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let machine = self.clone();
        drop(thread::spawn(move || {
            let hello = Hello::new(Protocol::SecurityModule, Role::Host);
            theirs.write_all(&frame::encode(&hello, RESPONSE_LIMIT).unwrap()).unwrap();
            drop(next(&mut theirs));
            while let Some(asked) = next(&mut theirs) {
                let answer = machine.perform(&Asked::read(&asked).unwrap());
                if requests == 0 {
                    return;
                }
                requests -= 1;
                theirs.write_all(&response(&answer).unwrap()).unwrap();
            }
        }));
        ours.into()
    }

    fn perform(&self, asked: &Asked<'_>) -> Vec<u8> {
        let mut registers = self.registers.lock().unwrap();
        match asked {
            Asked::Random => Response::Random(b"random").encode(),
            Asked::Pcr { index } => Response::Pcr(&registers[index]).encode(),
            Asked::Extend { index, data } if !registers[index].locked => {
                let register = registers.get_mut(index).unwrap();
                register.value =
                    Sha384::new().chain_update(&register.value).chain_update(data).finalize().to_vec();
                Response::Extended(&register.value).encode()
            }
            Asked::Lock { index } if !registers[index].locked => {
                registers.get_mut(index).unwrap().locked = true;
                Response::Locked.encode()
            }
            Asked::Attest(claims) => Response::Document(claims.user_data.unwrap_or(b"none")).encode(),
            _ => Response::Refused(Refusal::ReadOnlyIndex).encode(),
        }
    }
}

fn next(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn booted() -> Vec<u8> {
    Log::booted().nitro_register(BOOT_REGISTER).to_vec()
}

fn document(attestor: &mut Keeper) -> Answer {
    attestor.answer(Request::Attest(Fields::default()))
}

fn extend(attestor: &mut Keeper) -> Answer {
    attestor.answer(Request::Extend { service: "web".into(), label: "config".into(), data: b"data".to_vec() })
}

fn lock(attestor: &mut Keeper) -> Answer {
    attestor.answer(Request::Lock { service: "web".into() })
}

/// The reason why a document is refused.
fn unavailable(attestor: &mut Keeper) -> String {
    match document(attestor) {
        Err(ModuleError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_boot_is_extended_once_however_often_the_program_is_restarted() {
    let machine = Machine::new();
    for _ in 0..3 {
        let mut attestor = machine.attestor();
        assert_eq!(unavailable(&mut attestor), NOT_YET);
        attestor.connect(machine.connection(usize::MAX));
        document(&mut attestor).unwrap();
        assert_eq!(machine.register(BOOT_REGISTER), (true, booted()));
    }
}

/// A predecessor may have ended after any request, whether or not the module had performed it.
#[test]
fn a_boot_that_was_interrupted_is_completed() {
    for requests in 0..5 {
        let machine = Machine::new();
        machine.attestor().connect(machine.connection(requests));
        document(&mut machine.connected()).unwrap();
        assert_eq!(machine.register(BOOT_REGISTER), (true, booted()), "after {requests} requests");
    }
}

#[test]
fn an_event_is_in_the_log_and_in_its_register() {
    let machine = Machine::new();
    let mut attestor = machine.connected();
    let Ok(Reply::Recorded { position, head }) = extend(&mut attestor) else { panic!() };
    let events = machine.events();
    assert_eq!((position, head), (1, events.digests().head()));
    let expected = events.digests().nitro_register(EVENT_REGISTER).to_vec();
    assert_eq!(machine.register(EVENT_REGISTER), (false, expected));
    let values = Values { nonce: vec![1; 16], ..Values::default() };
    let expected = values.fields(&head).unwrap().user_data.unwrap();
    let Ok(Reply::Evidence(evidence)) = attestor.answer(Request::Evidence(values)) else { panic!() };
    let (document, log) = (evidence.document, evidence.events);
    assert_eq!(document, expected, "the document binds the log with the event");
    assert_eq!(Log::parse(&log.piece(0, usize::MAX)).unwrap().head(), head);
}

/// The program may end after any request, whether or not the module had performed it: between log and register, too.
#[test]
fn after_an_interruption_at_any_request_log_and_registers_are_equal() {
    for requests in 0..12 {
        let machine = Machine::new();
        let mut attestor = machine.attestor();
        attestor.connect(machine.connection(requests));
        let recorded = [extend(&mut attestor), extend(&mut attestor), lock(&mut attestor)];
        drop(attestor);
        document(&mut machine.connected()).unwrap();
        let events = machine.events();
        for register in [BOOT_REGISTER, EVENT_REGISTER, FILE_REGISTER] {
            let expected = events.digests().nitro_register(register);
            assert_eq!(machine.register(register).1, expected, "PCR{register} after {requests} requests");
        }
        assert_eq!(machine.register(EVENT_REGISTER).0, events.is_locked(), "after {requests} requests");
        let promised = recorded.iter().filter(|answer| answer.is_ok()).count();
        assert!(events.count() > promised, "what was confirmed is in the log");
    }
}

#[test]
fn a_locked_log_refuses_events_and_its_register_is_locked() {
    let machine = Machine::new();
    let mut attestor = machine.connected();
    extend(&mut attestor).unwrap();
    lock(&mut attestor).unwrap();
    assert!(machine.register(EVENT_REGISTER).0);
    for refused in [extend(&mut attestor), lock(&mut attestor), extend(&mut machine.connected())] {
        assert!(matches!(refused, Err(ModuleError::Unrecorded(Unrecorded::Locked(_)))), "{refused:?}");
    }
    document(&mut attestor).unwrap();
}

#[test]
fn a_register_with_another_value_is_reported_to_everyone_who_needs_it() {
    let others = [
        (BOOT_REGISTER, false, [7; 48]),
        (BOOT_REGISTER, true, [0; 48]),
        (EVENT_REGISTER, false, [7; 48]),
        (FILE_REGISTER, true, [7; 48]),
    ];
    for (register, locked, value) in others {
        let machine = Machine::new();
        machine.set(register, locked, &value);
        let mut attestor = machine.connected();
        for _ in 0..2 {
            let why = unavailable(&mut attestor);
            assert!(
                why.contains(&format!("PCR{register} ")) && why.contains("launch the enclave again"),
                "{why}"
            );
        }
        assert!(matches!(extend(&mut attestor), Err(ModuleError::Unavailable(_))));
        assert!(
            matches!(attestor.answer(Request::Random), Ok(Reply::Random(_))),
            "random bytes need no register"
        );
    }
}

/// As by a predecessor that was replaced while it lived, which the supervisor prevents.
#[test]
fn a_register_that_someone_else_extended_is_noticed() {
    let machine = Machine::new();
    let mut attestor = machine.connected();
    machine.set(EVENT_REGISTER, false, &[7; 48]);
    assert!(matches!(extend(&mut attestor), Err(ModuleError::Unavailable(_))));
    assert!(unavailable(&mut attestor).contains("PCR17"));
}

#[test]
fn an_event_that_the_module_refuses_is_not_in_the_log() {
    let machine = Machine::new();
    let mut attestor = machine.connected();
    machine.set(EVENT_REGISTER, true, &[0; 48]);
    assert!(matches!(extend(&mut attestor), Err(ModuleError::Nsm(_))));
    assert_eq!(machine.events().count(), 1);
    document(&mut attestor).unwrap();
}

#[test]
fn a_connection_that_fails_is_replaced_by_the_next_one() {
    let machine = Machine::new();
    let mut attestor = machine.connected();
    attestor.connect(machine.connection(4));
    assert!(matches!(attestor.answer(Request::Random), Ok(Reply::Random(_))));
    assert!(matches!(document(&mut attestor), Err(ModuleError::Nsm(NsmError::Device(_)))));
    assert_eq!(unavailable(&mut attestor), NOT_YET);
    attestor.connect(machine.connection(usize::MAX));
    document(&mut attestor).unwrap();
}

#[test]
fn a_connection_that_fails_during_evidence_is_given_up() {
    let machine = Machine::new();
    let mut attestor = machine.attestor();
    attestor.connect(machine.connection(5));
    let values = || Values { nonce: vec![1; 16], ..Values::default() };
    let failed = (0..6).find_map(|_| attestor.answer(Request::Evidence(values())).err());
    assert!(matches!(failed, Some(ModuleError::Nsm(NsmError::Device(_)))), "{failed:?}");
    let next = attestor.answer(Request::Evidence(values()));
    assert!(matches!(&next, Err(ModuleError::Unavailable(why)) if why == NOT_YET), "{next:?}");
}

/// Other threads see an event once its register contains it.
#[test]
fn an_event_is_published_when_the_module_has_confirmed_it() {
    let mut attestor = Machine::new().connected();
    let log = attestor.log();
    let before = log.snapshot().len();
    attestor.events.record("web", "x", &[1]).unwrap();
    assert_eq!(log.snapshot().len(), before);
    attestor.events.remove_last();
    extend(&mut attestor).unwrap();
    assert_eq!(log.snapshot().len(), attestor.events.snapshot().len());
}

#[test]
fn on_a_platform_with_hardware_a_connection_is_not_used() {
    for platform in ["nitro", "tdx", "snp"] {
        let machine = Machine::new();
        let mut attestor = Keeper::new(platform, None, machine.events());
        attestor.connect(machine.connection(usize::MAX));
        assert!(matches!(attestor.answer(Request::Random), Err(ModuleError::Unavailable(_))), "{platform}");
        assert_eq!(machine.register(BOOT_REGISTER), (false, vec![0; 48]), "{platform}");
    }
}

#[test]
fn a_peer_that_is_no_sleeve_is_not_used() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(&[0xff; 8]).unwrap();
    let mut attestor = Machine::new().attestor();
    attestor.connect(ours.into());
    assert_eq!(unavailable(&mut attestor), NOT_YET);
}
