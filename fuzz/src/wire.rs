//! Everything that crosses the enclave's boundary, and the channel between supervisor and init.

use cloister_wire::chunks;
use cloister_wire::control::{FromGuest, FromHost};
use cloister_wire::first::Note;
use cloister_wire::frame::{self, Decoder, HEADER};
use cloister_wire::gateway::{self, FromGateway, ToGateway};
use cloister_wire::hello::Hello;
use cloister_wire::hold::{FromInit, FromSupervisor};
use cloister_wire::ingress::{CHUNK_LIMIT, Header};
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

/// One direction of an ingress connection, cut into pieces as a network does: the first byte says how large they are.
pub fn chunks(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let (pieces, whole) =
        (read_chunks(stream, usize::from(*cut).max(1)), read_chunks(stream, stream.len().max(1)));
    if whole.fault {
        // Of a malformed stream less is passed on where more of it came at once.
        assert!(pieces.fault && pieces.payload.starts_with(&whole.payload));
    } else {
        assert_eq!(pieces, whole, "the cutting of a stream shows in its payload");
    }
    // What was read, in chunks of another size, is the same payload.
    let size = usize::from(*cut).saturating_mul(7).clamp(1, CHUNK_LIMIT);
    let mut again = Vec::new();
    for piece in whole.payload.chunks(size) {
        again.extend(chunks::header(piece.len()).expect("a chunk of this size can be written"));
        again.extend(piece);
    }
    again.extend(chunks::END);
    let read = read_chunks(&again, 1 + size / 2);
    assert!(read.payload == whole.payload && read.ended && !read.fault, "what was written can be read");
}

/// What a stream of chunks came to, up to its break or its first fault.
#[derive(Debug, Default, PartialEq)]
struct Chunks {
    payload: Vec<u8>,
    ended: bool,
    broken: bool,
    fault: bool,
}

fn read_chunks(stream: &[u8], cut: usize) -> Chunks {
    let mut decoder = chunks::Decoder::default();
    let mut read = Chunks::default();
    for piece in stream.chunks(cut) {
        let mut piece = piece.to_vec();
        match decoder.strip(&mut piece) {
            Ok(payload) => {
                let held = decoder.left().saturating_add(payload.len());
                assert!(
                    held <= CHUNK_LIMIT.saturating_add(piece.len()),
                    "more is awaited than a chunk may have"
                );
                read.payload
                    .extend_from_slice(piece.get(payload).expect("the payload lies in what was read"));
            }
            Err(_) => {
                read.fault = true;
                break;
            }
        }
        if decoder.broken() {
            break;
        }
    }
    read.ended = decoder.ended();
    read.broken = decoder.broken();
    read
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
    packet::<ToGateway>(data);
    packet::<FromGateway>(data);
}

/// A packet between the supervisor and the gateway, whose parts have limits of their own.
fn packet<M: DeserializeOwned + Serialize + gateway::Bounded + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(message) = gateway::decode::<M>(data) {
        let written = serde_json::to_vec(&message).expect("what was read can be written");
        if written.len() <= gateway::LIMIT {
            assert_eq!(gateway::decode::<M>(&written).expect("what was written can be read"), message);
        }
    }
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
