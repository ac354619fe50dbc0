//! Everything that crosses the enclave's boundary, and the channel between supervisor and init.

use cloister_wire::control::{FromGuest, FromHost};
use cloister_wire::first::Note;
use cloister_wire::frame::{self, Decoder, HEADER};
use cloister_wire::hello::Hello;
use cloister_wire::hold::{FromInit, FromSupervisor};
use cloister_wire::ingress::Header;
use cloister_wire::logs::{Record, Subscribe};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A limit that inputs of a fuzzer reach.
const LIMIT: usize = 512;

/// A stream of frames, cut into pieces as a network does: the first byte says how large they are.
pub fn frames(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let pieces = read_frames(stream, usize::from(*cut).max(1));
    assert_eq!(
        pieces,
        read_frames(stream, stream.len().max(1)),
        "the cutting of a stream shows in its frames"
    );
}

/// The frames of a stream up to its first fault, and whether there is one.
fn read_frames(stream: &[u8], cut: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = Decoder::new(LIMIT);
    let mut bodies = Vec::new();
    for piece in stream.chunks(cut) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(body)) => {
                    assert!(body.len() <= LIMIT);
                    bodies.push(body.to_vec());
                }
                Ok(None) => break,
                Err(_) => return (bodies, true),
            }
        }
        assert!(decoder.remainder().len() < HEADER + LIMIT, "more is held than one frame");
    }
    (bodies, false)
}

/// One body of the log channel.
pub fn records(data: &[u8]) {
    if let Ok(record) = Record::from_bytes(data) {
        let bytes = record.to_bytes().expect("what was read can be written");
        assert_eq!(Record::from_bytes(&bytes).as_ref(), Ok(&record));
    }
}

/// One body of each JSON channel.
pub fn messages(data: &[u8]) {
    message::<Hello>(data);
    message::<FromGuest>(data);
    message::<FromHost>(data);
    message::<Header>(data);
    message::<Subscribe>(data);
    message::<FromInit>(data);
    message::<FromSupervisor>(data);
    note(data);
}

/// A first process's note is read as it was written, or not at all.
fn note(data: &[u8]) {
    if let Some(bytes) = data.first_chunk()
        && let Some(note) = Note::decode(*bytes)
    {
        assert_eq!(note.encode(), *bytes);
    }
}

fn message<M: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(message) = frame::decode::<M>(data) {
        let frame = frame::encode(&message, usize::MAX).expect("what was read can be written");
        let body = frame.get(HEADER..).unwrap_or_default();
        assert_eq!(frame::decode::<M>(body).expect("what was written can be read"), message);
    }
}
