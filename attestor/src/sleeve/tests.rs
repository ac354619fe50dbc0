//! The module as a sleeve serves it, with the one register that matters here.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use cloister_nsm::Pcr;
use cloister_nsm::server::{Refusal, Request as Asked, Response};
use cloister_wire::frame;
use cloister_wire::hello::{Hello, Protocol, Role};
use cloister_wire::module::{RESPONSE_LIMIT, response};

use super::*;

/// The registers of a machine: they outlive every connection.
type Register = Arc<Mutex<Pcr>>;

fn register(locked: bool, value: &[u8]) -> Register {
    Arc::new(Mutex::new(Pcr { locked, value: value.to_vec() }))
}

fn booted() -> [u8; 48] {
    Log::booted().nitro_register(BOOT_REGISTER)
}

/// A connection of a sleeve that answers so many requests, and then closes it.
fn connection(register: &Register, mut requests: usize) -> OwnedFd {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let register = Arc::clone(register);
    drop(thread::spawn(move || {
        let hello = Hello::new(Protocol::SecurityModule, Role::Host);
        theirs.write_all(&frame::encode(&hello, RESPONSE_LIMIT).unwrap()).unwrap();
        drop(next(&mut theirs));
        while requests > 0
            && let Some(asked) = next(&mut theirs)
        {
            let answer = perform(&mut register.lock().unwrap(), &Asked::read(&asked).unwrap());
            theirs.write_all(&response(&answer).unwrap()).unwrap();
            requests -= 1;
        }
    }));
    ours.into()
}

fn next(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn perform(register: &mut Pcr, asked: &Asked<'_>) -> Vec<u8> {
    match asked {
        Asked::Random => Response::Random(b"random").encode(),
        Asked::Pcr { index: BOOT_REGISTER } => Response::Pcr(register).encode(),
        Asked::Extend { index: BOOT_REGISTER, data } if !register.locked => {
            assert!(register.value.iter().all(|byte| *byte == 0), "it is extended once");
            assert_eq!(*data, Log::booted().events()[0].extension());
            register.value = booted().to_vec();
            Response::Extended(&register.value).encode()
        }
        Asked::Lock { index: BOOT_REGISTER } if !register.locked => {
            register.locked = true;
            Response::Locked.encode()
        }
        _ => Response::Refused(Refusal::ReadOnlyIndex).encode(),
    }
}

/// The reason why requests are refused.
fn unavailable(sleeve: &mut Sleeve) -> String {
    match sleeve.answer(&Request::Random) {
        Err(ModuleError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_boot_is_extended_once_however_often_the_program_is_restarted() {
    let register = register(false, &[0; 48]);
    for _ in 0..3 {
        let mut sleeve = Sleeve::default();
        assert_eq!(unavailable(&mut sleeve), NOT_YET);
        sleeve.connect(connection(&register, 10));
        assert_eq!(sleeve.answer(&Request::Random).unwrap(), b"random");
        let now = register.lock().unwrap();
        assert_eq!((now.locked, now.value.as_slice()), (true, booted().as_slice()));
    }
}

/// A predecessor may have ended after any request.
#[test]
fn a_boot_that_was_interrupted_is_completed() {
    for requests in 0..4 {
        let register = register(false, &[0; 48]);
        let mut sleeve = Sleeve::default();
        sleeve.connect(connection(&register, requests));
        assert!(sleeve.answer(&Request::Random).is_err(), "after {requests} requests");
        sleeve.connect(connection(&register, 10));
        assert_eq!(sleeve.answer(&Request::Random).unwrap(), b"random", "after {requests} requests");
        assert_eq!(register.lock().unwrap().value, booted());
    }
}

#[test]
fn a_register_with_another_value_is_reported_to_every_caller() {
    for locked in [false, true] {
        let mut sleeve = Sleeve::default();
        sleeve.connect(connection(&register(locked, &[7; 48]), 10));
        for _ in 0..2 {
            let why = unavailable(&mut sleeve);
            assert!(why.contains("PCR16") && why.contains(&"07".repeat(48)), "{why}");
        }
    }
    let mut sleeve = Sleeve::default();
    sleeve.connect(connection(&register(true, &[0; 48]), 10));
    assert!(unavailable(&mut sleeve).contains("launch the enclave again"));
}

#[test]
fn a_connection_that_fails_is_replaced_by_the_next_one() {
    let register = register(true, &booted());
    let mut sleeve = Sleeve::default();
    sleeve.connect(connection(&register, 1));
    assert!(matches!(sleeve.answer(&Request::Random), Err(ModuleError::Nsm(NsmError::Device(_)))));
    assert_eq!(unavailable(&mut sleeve), NOT_YET);
    sleeve.connect(connection(&register, 10));
    assert_eq!(sleeve.answer(&Request::Random).unwrap(), b"random");
}

#[test]
fn a_peer_that_is_no_sleeve_is_not_used() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(&[0xff; 8]).unwrap();
    let mut sleeve = Sleeve::default();
    sleeve.connect(ours.into());
    assert!(unavailable(&mut sleeve).starts_with("the sleeve's connection could not be used: "));
}
