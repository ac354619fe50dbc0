//! The client against peers that follow a script.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use cloister_wire::module::response;

use super::*;
use crate::{Module, NsmError};

/// A limit that a test can wait for.
const SHORT: Duration = Duration::from_millis(200);

/// A limit that no test reaches.
const LONG: Duration = Duration::from_mins(1);

/// The sleeve's hello.
fn hello() -> Vec<u8> {
    frame::encode(&Hello::new(Protocol::SecurityModule, Role::Host), RESPONSE_LIMIT).unwrap()
}

/// The next frame that the client sends, if there is one.
fn next(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

/// A peer, which returns its end and the frames that it has received.
type Peer = JoinHandle<(UnixStream, Vec<Vec<u8>>)>;

/// A client and its peer, which sends each part of `script` after it has received a frame.
fn scripted(script: Vec<Vec<u8>>, limit: Duration) -> (io::Result<Channel>, Peer) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let peer = thread::spawn(move || {
        let mut seen = Vec::new();
        for part in script {
            seen.extend(next(&mut theirs));
            theirs.write_all(&part).unwrap();
        }
        (theirs, seen)
    });
    (Channel::open_within(ours.into(), "virtual", limit, limit), peer)
}

fn kind(channel: &Channel) -> io::ErrorKind {
    channel.exchange(b"request").unwrap_err().kind()
}

#[test]
fn requests_are_answered_in_turn_and_the_module_is_used_like_a_device() {
    let random = [b"\xa1\x69GetRandom\xa1\x66random\x42".as_slice(), &[7, 8]].concat();
    let refused = b"\xa1\x65Error\x6dReadOnlyIndex";
    let (channel, peer) =
        scripted(vec![hello(), response(&random).unwrap(), response(refused).unwrap()], LONG);
    let channel = channel.unwrap();
    let module = Module::over(|request: &[u8]| channel.exchange(request));
    assert_eq!(module.random().unwrap(), [7, 8]);
    assert!(matches!(module.lock(3), Err(NsmError::Refused(why)) if why == "ReadOnlyIndex"));
    let (_, seen) = peer.join().unwrap();
    let ours: Hello = frame::decode(&seen[0]).unwrap();
    assert_eq!(ours, Hello::new(Protocol::SecurityModule, Role::Guest));
    assert_eq!(seen[1..], [b"\x69GetRandom".to_vec(), b"\xa1\x67LockPCR\xa1\x65index\x03".to_vec()]);
}

#[test]
fn on_a_platform_with_hardware_nothing_is_sent() {
    for platform in ["nitro", "tdx", "snp", "Virtual", ""] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let error = Channel::open(ours.into(), platform).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{platform}");
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "{platform}");
    }
}

#[test]
fn a_stream_in_either_mode_carries_the_longest_request_and_response() {
    for non_blocking in [false, true] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(non_blocking).unwrap();
        let peer = thread::spawn(move || {
            next(&mut theirs).unwrap();
            let answer = [hello(), response(&[9; RESPONSE_LIMIT]).unwrap()].concat();
            let (first, rest) = answer.split_at(hello().len());
            theirs.write_all(first).unwrap();
            let request = next(&mut theirs).unwrap();
            for piece in rest.chunks(1000) {
                theirs.write_all(piece).unwrap();
            }
            request
        });
        let channel = Channel::open(ours.into(), "virtual").unwrap();
        assert_eq!(channel.exchange(&[5; REQUEST_LIMIT]).unwrap(), [9; RESPONSE_LIMIT]);
        assert_eq!(peer.join().unwrap(), [5; REQUEST_LIMIT]);
    }
}

#[test]
fn a_request_over_the_limit_is_not_sent_and_the_connection_goes_on() {
    let (channel, peer) = scripted(vec![hello(), response(b"yes").unwrap()], LONG);
    let channel = channel.unwrap();
    let error = channel.exchange(&[0; REQUEST_LIMIT + 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(channel.exchange(b"request").unwrap(), b"yes");
    assert_eq!(peer.join().unwrap().1.len(), 2);
}

#[test]
fn a_response_over_the_limit_or_followed_by_another_ends_the_connection() {
    let too_long = 0x3001_u32.to_be_bytes().to_vec();
    let two = [response(b"one").unwrap(), response(b"two").unwrap()].concat();
    for answer in [too_long, two] {
        let (channel, peer) = scripted(vec![hello(), answer], LONG);
        let channel = channel.unwrap();
        assert_eq!(kind(&channel), io::ErrorKind::InvalidData);
        assert_eq!(kind(&channel), io::ErrorKind::NotConnected);
        let (mut theirs, _) = peer.join().unwrap();
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "the stream is still open");
    }
}

#[test]
fn a_sleeve_that_ends_is_reported() {
    let (channel, peer) = scripted(vec![hello(), vec![0, 0]], LONG);
    let channel = channel.unwrap();
    let ended = thread::spawn(move || drop(peer.join().unwrap()));
    assert_eq!(kind(&channel), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(&channel), io::ErrorKind::NotConnected);
    ended.join().unwrap();
}

#[test]
fn a_sleeve_that_is_silent_or_answers_byte_by_byte_is_given_up_in_time() {
    let (silent, mut theirs) = UnixStream::pair().unwrap();
    let error = Channel::open_within(silent.into(), "virtual", SHORT, LONG).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    theirs.read_to_end(&mut Vec::new()).unwrap();

    let (channel, peer) = scripted(vec![hello()], SHORT);
    let channel = channel.unwrap();
    let (mut theirs, _) = peer.join().unwrap();
    // A byte comes more often than the limit, and the response would take a minute.
    let trickle = thread::spawn(move || {
        let mut sent = 0;
        for byte in response(&[0; 4000]).unwrap() {
            if theirs.write_all(&[byte]).is_err() {
                break;
            }
            sent += 1;
            theirs.set_read_timeout(Some(Duration::from_millis(15))).unwrap();
            drop(theirs.read(&mut [0; 64]));
        }
        sent
    });
    let started = Instant::now();
    assert_eq!(kind(&channel), io::ErrorKind::TimedOut);
    assert!(started.elapsed() >= SHORT, "{:?}", started.elapsed());
    assert!(trickle.join().unwrap() > 1);
}

#[test]
fn another_version_and_another_channel_are_refused() {
    let other = Hello::new(Protocol::Control, Role::Host);
    let newer = Hello { version: 99, ..Hello::new(Protocol::SecurityModule, Role::Host) };
    let frames = [other, newer].map(|hello| frame::encode(&hello, RESPONSE_LIMIT).unwrap());
    for answer in frames.into_iter().chain([response(b"no hello").unwrap()]) {
        let (channel, peer) = scripted(vec![answer], LONG);
        assert_eq!(channel.unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(peer.join().unwrap());
    }
}

#[test]
fn requests_of_several_threads_do_not_mix() {
    let echo = |stream: &mut UnixStream| {
        while let Some(request) = next(stream) {
            stream.write_all(&response(&request).unwrap()).unwrap();
        }
    };
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let peer = thread::spawn(move || {
        next(&mut theirs).unwrap();
        theirs.write_all(&hello()).unwrap();
        echo(&mut theirs);
    });
    let channel = Channel::open(ours.into(), "virtual").unwrap();
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let channel = &channel;
            scope.spawn(move || {
                for round in 0..50_u8 {
                    assert_eq!(channel.exchange(&[thread, round]).unwrap(), [thread, round]);
                }
            });
        }
    });
    drop(channel);
    peer.join().unwrap();
}
