//! Properties of the logs wherever a crash interrupts: each byte that left a pipe is reported once, in order, under
//! numbers without gaps; and if more was written than a ring holds, the end of it is reported.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use cloister_wire::frame::Decoder;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};

use super::*;
use crate::logs::history::MAX_OUTPUT_BYTES;
use cloister_wire::logs::RING_BYTES;

/// An event of one of two streams, or of all of them.
#[derive(Clone, Debug)]
enum Turn {
    Writes(usize, usize),
    Taken(usize),
    /// A crash after the bytes were moved and before they were indexed.
    CrashBeforeNote(usize),
    /// A crash after some of the records were written.
    CrashWithinNote(usize),
    Crash,
    Logs,
}

fn turns(max: usize) -> impl Strategy<Value = Vec<Turn>> {
    let stream = 0usize..2;
    let turn = prop_oneof![
        4 => (stream.clone(), 1..max).prop_map(|(stream, bytes)| Turn::Writes(stream, bytes)),
        4 => stream.clone().prop_map(Turn::Taken),
        1 => stream.clone().prop_map(Turn::CrashBeforeNote),
        1 => stream.prop_map(Turn::CrashWithinNote),
        1 => Just(Turn::Crash),
        1 => Just(Turn::Logs),
    ];
    prop::collection::vec(turn, 0..60)
}

/// Two streams of a service, the memfds that init holds, and everything that was written.
struct Held {
    memfds: Vec<OwnedFd>,
    pipes: Vec<(OwnedFd, File)>,
    written: [Vec<u8>; 2],
    lines: usize,
}

impl Held {
    fn new() -> Self {
        let memfd = |_| memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
        let pipe = |_| {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
            (read, File::from(write))
        };
        Self {
            memfds: (0..3).map(memfd).collect(),
            pipes: (0..2).map(pipe).collect(),
            written: Default::default(),
            lines: 0,
        }
    }

    /// The next supervisor's logs.
    fn resume(&self) -> Store {
        let mut copies = self.memfds.iter().map(|fd| fd.try_clone().unwrap());
        let mut next = || copies.next().unwrap();
        let memfds = Memfds { own: next(), outputs: vec![Some((next(), next())), None] };
        Store::resume(vec!["web".into(), "db".into()], memfds, Moment::from_millis(1)).unwrap()
    }

    /// The service writes `bytes` bytes of a text that repeats late, or as many as its pipe takes.
    fn write(&mut self, stream: usize, bytes: usize) {
        let start = self.written[stream].len();
        let byte = |n: usize| u8::try_from(n % 251).unwrap() ^ u8::try_from(n / 251 % 256).unwrap();
        let text: Vec<u8> = (start..start + bytes).map(byte).collect();
        if let Ok(count) = self.pipes[stream].1.write(&text) {
            self.written[stream].extend_from_slice(&text[..count]);
        }
    }

    fn play(&mut self, store: &mut Store, turn: &Turn) {
        let now = Moment::from_millis(2);
        match *turn {
            Turn::Writes(stream, bytes) => self.write(stream, bytes),
            Turn::Taken(stream) => drop(store.take(output(stream), &self.pipes[stream].0, now)),
            Turn::CrashBeforeNote(stream) => {
                drop(store.history_mut(0, output(stream).stream).unwrap().take(&self.pipes[stream].0));
                *store = self.resume();
            }
            Turn::CrashWithinNote(stream) => {
                let history = store.history_mut(0, output(stream).stream).unwrap();
                let moved = history.take(&self.pipes[stream].0);
                if let Ok(span) = moved {
                    let first = Span { len: span.len.min(MAX_OUTPUT_BYTES), ..span };
                    store.append(first, 0, output(stream).stream, now).unwrap();
                }
                *store = self.resume();
            }
            Turn::Crash => *store = self.resume(),
            Turn::Logs => {
                store.log(None, "a line", now).unwrap();
                self.lines += 1;
            }
        }
    }

    /// Performs the turns, crashes again, drains the pipes, and returns what a reader from the beginning is sent.
    fn records(&mut self, turns: &[Turn]) -> Vec<Record> {
        let mut store = self.resume();
        for turn in turns {
            self.play(&mut store, turn);
        }
        store = self.resume();
        for stream in 0..2 {
            while store.take(output(stream), &self.pipes[stream].0, Moment::from_millis(3)).is_ok() {}
        }
        records_of(&store)
    }
}

/// What a reader from the beginning is sent.
fn records_of(store: &Store) -> Vec<Record> {
    let (mut next, mut decoder, mut records) = (0, Decoder::new(HOST_LIMIT), Vec::new());
    while next < store.next {
        let mut frames = Vec::new();
        next = store.frames(next, 64 * 1024, &mut frames).unwrap();
        decoder.push(&frames);
        while let Some(body) = decoder.next_frame().unwrap() {
            records.push(Record::from_bytes(body).unwrap());
        }
    }
    records
}

fn output(stream: usize) -> Output {
    Output { id: Id(0), stream: [Stream::Stdout, Stream::Stderr][stream] }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The bytes of one stream. Checks that each record or gap begins where the previous one ended.
fn bytes_of(records: &[Record], wanted: Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut next = 0;
    for record in records {
        match record {
            Record::Gap { first, count } => {
                assert_eq!(*first, next);
                next += count;
            }
            Record::Output { seq, stream, bytes: more, .. } => {
                assert_eq!(*seq, next);
                next += 1;
                if *stream == wanted {
                    bytes.extend_from_slice(more);
                }
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn wherever_a_crash_interrupts_each_byte_is_reported_once(turns in turns(16 * 1024)) {
        let mut held = Held::new();
        let records = held.records(&turns);
        let is_gap = |record: &Record| matches!(record, Record::Gap { .. });
        prop_assert!(!records.iter().any(is_gap), "all of it fits");
        for (stream, written) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&held.written) {
            prop_assert!(bytes_of(&records, stream) == *written, "{stream:?}");
        }
        prop_assert_eq!(bytes_of(&records, Stream::Supervisor), b"a line\n".repeat(held.lines));
    }

}

proptest! {
    // Each case moves some megabytes.
    #![proptest_config(cases(32))]

    #[test]
    fn the_end_of_output_that_does_not_fit_is_reported(turns in prop::collection::vec(turns(64 * 1024), 3)) {
        let mut held = Held::new();
        let records = held.records(&turns.concat());
        for (stream, written) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&held.written) {
            let reported = bytes_of(&records, stream);
            prop_assert!(written.ends_with(&reported), "{stream:?}");
            let capacity = usize::try_from(RING_BYTES - MAX_OUTPUT_BYTES).unwrap();
            let expected = written.len().min(capacity);
            prop_assert!(reported.len() >= expected, "{} of {}", reported.len(), written.len());
        }
    }
}

#[test]
fn short_lines_of_one_stream_displace_no_line_of_another() {
    let mut held = Held::new();
    let mut store = held.resume();
    held.write(1, 10);
    store.take(output(1), &held.pipes[1].0, Moment::from_millis(2)).unwrap();
    for _ in 0..70_000 {
        held.write(0, 6);
        store.take(output(0), &held.pipes[0].0, Moment::from_millis(3)).unwrap();
    }
    for store in [store, held.resume()] {
        let records = records_of(&store);
        assert_eq!(bytes_of(&records, Stream::Stderr), held.written[1], "the other stream's output");
        let reported = bytes_of(&records, Stream::Stdout);
        assert!(held.written[0].ends_with(&reported), "the end of the stream");
        assert!(reported.len() >= 6 * 8_000, "{} bytes", reported.len());
        let numbers = |r: &Record| if let Record::Gap { count, .. } = r { *count } else { 1 };
        assert_eq!(records.iter().map(numbers).sum::<u64>(), 70_001, "each number is a record or in a gap");
    }
}

/// The supervisor's lines about a service, or under its own name.
fn lines_about(records: &[Record], name: &str) -> Vec<u8> {
    let about = |record: &Record| match record {
        Record::Output { service, stream: Stream::Supervisor, bytes, .. } if service == name => bytes.clone(),
        _ => Vec::new(),
    };
    records.iter().flat_map(about).collect()
}

#[test]
fn lines_about_one_service_displace_no_lines_about_another() {
    let held = Held::new();
    let mut store = held.resume();
    let now = Moment::from_millis(2);
    store.log(None, "booted", now).unwrap();
    store.log(Some(Id(1)), "ready", now).unwrap();
    for round in 0..20_000 {
        store.log(Some(Id(0)), &format!("restart {round}"), now).unwrap();
    }
    store.log(Some(Id(1)), "stopped", now).unwrap();
    for store in [store, held.resume()] {
        let records = records_of(&store);
        assert_eq!(lines_about(&records, "db"), b"ready\nstopped\n", "the service without outputs");
        assert_eq!(lines_about(&records, "supervisor"), b"booted\n", "the enclave");
        assert!(lines_about(&records, "web").ends_with(b"\nrestart 19999\n"), "the last of the busy one");
        let numbers = |r: &Record| if let Record::Gap { count, .. } = r { *count } else { 1 };
        assert_eq!(records.iter().map(numbers).sum::<u64>(), 20_003, "each number is a record or in a gap");
    }
}
