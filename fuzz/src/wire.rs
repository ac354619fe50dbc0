//! All messages that cross the enclave's boundary, and the channel between supervisor and init.

use cloister_wire::attestor::{FromAttestor, ToAttestor};
use cloister_wire::chunks;
use cloister_wire::control::{self, Assembly, FromGuest, FromHost, MAX_FRAMES, MAX_SERVICES, Status};
use cloister_wire::first::Note;
use cloister_wire::frame::{self, Decoder, HEADER, HOST_LIMIT};
use cloister_wire::gateway::{FromGateway, ToGateway};
use cloister_wire::hello::Hello;
use cloister_wire::hold::{FromInit, FromSupervisor};
use cloister_wire::ingress::{CHUNK_LIMIT, Header};
use cloister_wire::logs::{Record, Subscribe};
use cloister_wire::module;
use cloister_wire::packet::{self, Bounded};
use cloister_wire::terminator::{FromTerminator, HandOver, Question, Reply, Sign, Signed, ToTerminator};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A limit low enough for a fuzzer's inputs to reach.
const LIMIT: usize = 512;

/// A stream of frames, split into pieces as by a network: the first byte is their size.
pub fn frames(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let pieces = read_frames(stream, usize::from(*cut).max(1));
    assert_eq!(pieces, read_frames(stream, stream.len().max(1)), "splitting a stream changes its frames");
}

/// The frames of a stream up to its first error, and whether there is one.
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
        assert!(decoder.remainder().len() < HEADER + LIMIT, "more than one frame is buffered");
    }
    (bodies, false)
}

/// The channel of the development security module as the host reads it, split into pieces as by a network: the first byte is their
/// size. Frames are within the limit, and the same when they are written again.
pub fn requests(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let mut decoder = Decoder::new(module::REQUEST_LIMIT);
    let mut written = Vec::new();
    for piece in stream.chunks(usize::from(*cut).max(1)) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(body)) => {
                    written.extend(module::request(body).expect("a request that was read can be written"))
                }
                Ok(None) => break,
                Err(_) => return assert!(stream.starts_with(&written)),
            }
        }
        assert!(
            decoder.remainder().len() < HEADER + module::REQUEST_LIMIT,
            "more than one request is buffered"
        );
    }
    assert_eq!([written.as_slice(), decoder.remainder()].concat(), stream);
}

/// One direction of an ingress connection, split into pieces as by a network: the first byte is their size.
pub fn chunks(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let (pieces, whole) =
        (read_chunks(stream, usize::from(*cut).max(1)), read_chunks(stream, stream.len().max(1)));
    if whole.failed {
        // Of a malformed stream, less is forwarded if more of it arrived at once.
        assert!(pieces.failed && pieces.payload.starts_with(&whole.payload));
    } else {
        assert_eq!(pieces, whole, "splitting a stream changes its payload");
    }
    // The same payload in chunks of another size must be read as the same payload.
    let size = usize::from(*cut).saturating_mul(7).clamp(1, CHUNK_LIMIT);
    let mut again = Vec::new();
    for piece in whole.payload.chunks(size) {
        again.extend(chunks::header(piece.len()).expect("a chunk of this size can be written"));
        again.extend(piece);
    }
    again.extend(chunks::END);
    let read = read_chunks(&again, 1 + size / 2);
    assert!(read.payload == whole.payload && read.ended && !read.failed, "written chunks can be read");
}

/// The result of reading a stream of chunks, up to its break or its first error.
#[derive(Debug, Default, PartialEq)]
struct Chunks {
    payload: Vec<u8>,
    ended: bool,
    broken: bool,
    failed: bool,
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
                    "more bytes are expected than a chunk can have"
                );
                read.payload.extend_from_slice(piece.get(payload).expect("the payload is within the piece"));
            }
            Err(_) => {
                read.failed = true;
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
        let bytes = record.to_bytes().expect("a record that was read can be written");
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
    packet::<ToAttestor>(data);
    packet::<FromAttestor>(data);
    packet::<ToTerminator>(data);
    packet::<FromTerminator>(data);
    packet::<HandOver>(data);
    packet::<Question>(data);
    packet::<Reply>(data);
    packet::<Sign>(data);
    packet::<Signed>(data);
}

/// A packet between a servant and the supervisor or another servant; each of its parts has a limit.
fn packet<M: DeserializeOwned + Serialize + Bounded + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(message) = packet::decode::<M>(data) {
        let written = serde_json::to_vec(&message).expect("a packet that was read can be written");
        if written.len() <= packet::LIMIT {
            assert_eq!(packet::decode::<M>(&written).expect("a written packet can be read"), message);
        }
    }
}

/// The control channel as the host reads it: the enclave's frames are assembled into statuses, and at most one status of bounded
/// size is in memory.
pub fn statuses(data: &[u8]) {
    let (mut decoder, mut assembly) = (Decoder::new(HOST_LIMIT), Assembly::default());
    for piece in data.chunks(HOST_LIMIT) {
        decoder.push(piece);
        while let Ok(Some(message)) = decoder.next_message::<FromGuest>() {
            let whole = match message {
                FromGuest::Status(head) => assembly.head(head),
                FromGuest::Services(page) => assembly.page(page),
                FromGuest::Reply { .. } => Ok(None),
            };
            match whole {
                Ok(None) => {}
                Ok(Some(status)) => whole_again(status),
                Err(_) => return,
            }
        }
    }
}

/// A status that was assembled from frames is unchanged when it is encoded and assembled again.
fn whole_again(status: Status) {
    assert!(status.services.len() <= MAX_SERVICES);
    // Values that an enclave may encode more compactly, such as numbers, may be longer in our encoding.
    let Ok(frames) = control::frames(status.clone()) else { return };
    if frames.len() > MAX_FRAMES {
        return;
    }
    let (mut decoder, mut assembly, mut read) = (Decoder::new(HOST_LIMIT), Assembly::default(), None);
    decoder.push(&frames.concat());
    while let Some(message) = decoder.next_message().expect("a written message can be read") {
        assert!(read.is_none(), "a message follows a complete status");
        read = match message {
            FromGuest::Status(head) => assembly.head(head).expect("a written head can be read"),
            FromGuest::Services(page) => assembly.page(page).expect("a written page can be read"),
            FromGuest::Reply { .. } => panic!("no request was sent"),
        };
    }
    assert_eq!(read, Some(status));
}

/// A note of a service's first process is decoded losslessly or not at all.
fn note(data: &[u8]) {
    if let Some(bytes) = data.first_chunk()
        && let Some(note) = Note::decode(*bytes)
    {
        assert_eq!(note.encode(), *bytes);
    }
}

fn message<M: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(message) = frame::decode::<M>(data) {
        let frame = frame::encode(&message, usize::MAX).expect("a message that was read can be written");
        let body = frame.get(HEADER..).unwrap_or_default();
        assert_eq!(frame::decode::<M>(body).expect("a written message can be read"), message);
    }
}
