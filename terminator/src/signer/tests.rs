//! Signatures from an attestor that the test plays, on a thread of its own.

use std::thread::{self, JoinHandle};

use cloister_wire::packet::LIMIT as PACKET;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustls::sign::Signer as _;

use super::*;

/// A signer, and the attestor's end.
fn start() -> (Signer, OwnedFd) {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.unwrap();
    (Signer::new(ours).unwrap(), theirs)
}

fn request(attestor: &OwnedFd) -> Sign {
    let mut buffer = vec![0; PACKET];
    let (count, _) = recv(attestor, &mut buffer, RecvFlags::empty()).unwrap();
    decode(&buffer[..count]).unwrap()
}

fn reply(attestor: &OwnedFd, id: u64, signature: Option<&str>) {
    let signed = Signed { id, signature: signature.map(str::to_owned) };
    send(attestor, &encode(&signed).unwrap(), SendFlags::empty()).unwrap();
}

fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(work)
}

#[test]
fn a_signature_is_that_of_this_request() {
    let (signer, attestor) = start();
    let attestor = in_background(move || {
        let request = request(&attestor);
        assert_eq!(request.content, STANDARD.encode("handshake"));
        reply(&attestor, request.id - 1, Some("b2xk"));
        reply(&attestor, request.id, Some("c2lnbmVk"));
    });
    assert_eq!(signer.sign(b"handshake").unwrap(), b"signed");
    attestor.join().unwrap();
}

#[test]
fn a_lost_request_is_repeated() {
    let (signer, attestor) = start();
    let attestor = in_background(move || {
        let lost = request(&attestor);
        let repeated = request(&attestor);
        assert_eq!(repeated, lost);
        reply(&attestor, repeated.id, Some("c2lnbmVk"));
    });
    assert_eq!(signer.sign(b"handshake").unwrap(), b"signed");
    attestor.join().unwrap();
}

#[test]
fn a_refusal_and_an_attestor_that_is_silent_fail_the_handshake() {
    let (signer, attestor) = start();
    let refusing = in_background(move || {
        reply(&attestor, request(&attestor).id, None);
        attestor
    });
    assert!(signer.sign(b"handshake").unwrap_err().to_string().contains("it was refused"));
    let attestor = refusing.join().unwrap();
    assert!(signer.sign(b"handshake").unwrap_err().to_string().contains("timed out"));
    let first = request(&attestor);
    while let Ok((count, _)) = recv(&attestor, &mut [0; 512], RecvFlags::DONTWAIT) {
        assert!(count > 0);
    }
    assert!(signer.sign(b"another").is_err());
    assert!(
        recv(&attestor, &mut [0; 512], RecvFlags::DONTWAIT).is_err(),
        "nothing is requested for some time after {first:?}"
    );
}
