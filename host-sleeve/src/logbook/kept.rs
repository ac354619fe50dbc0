//! The end of each stream, retained when the older file of the services' log is replaced.
//!
//! Invariant: a service that writes a lot displaces its own output, never another's. Names and sizes come from the enclave and
//! are bounded here.
//!
//! It is a third file of frames, read before the other two and rewritten at each rotation.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cloister_wire::frame::{Decoder, HOST_LIMIT, encode_bytes};
use cloister_wire::logs::Record;

use super::rotating::older;

/// Maximum number of bytes retained per stream: several hundred lines, enough to include a service's last messages.
const STREAM_LIMIT: usize = 64 * 1024;

/// Maximum number of streams: stdout, stderr and the supervisor's messages for each of sixty services, and about as many again
/// under names that an enclave invents. With [`STREAM_LIMIT`], at most the size of one of the other files.
const MAX_STREAMS: usize = 256;

/// Size of a read in bytes.
const PIECE: usize = 64 * 1024;

/// The end of each stream.
#[derive(Debug, Default)]
struct Ends {
    streams: BTreeMap<(String, u8), Stream>,
}

/// The end of one stream: its frames by number, oldest first.
#[derive(Debug, Default)]
struct Stream {
    frames: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
}

/// The path of the retained ends of the log at `path`.
pub(crate) fn kept(path: &Path) -> PathBuf {
    path.with_added_extension("kept")
}

/// Retains the ends of the streams in the file that the log at `path` is about to replace, if there is one. Idempotent.
pub(crate) fn keep(path: &Path) -> io::Result<()> {
    let mut ends = Ends::default();
    for file in [kept(path), older(path)] {
        match File::open(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if file == older(path) {
                    return Ok(());
                }
            }
            file => ends.read(file?)?,
        }
    }
    let new = kept(path).with_added_extension("new");
    let written = File::create(&new).and_then(|file| ends.write(file));
    written.and_then(|()| fs::rename(&new, kept(path)))
}

impl Ends {
    /// Adds the records of a file, up to the first malformed one.
    fn read(&mut self, mut file: File) -> io::Result<()> {
        let mut decoder = Decoder::new(HOST_LIMIT);
        let mut piece = vec![0; PIECE];
        loop {
            let count = file.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            decoder.push(piece.get(..count).unwrap_or_default());
            loop {
                match decoder.next_frame() {
                    Ok(Some(body)) => self.take(body),
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    /// Adds one record. Gaps are not stored: the record numbers show them.
    fn take(&mut self, body: &[u8]) {
        let Ok(Record::Output { seq, service, stream, .. }) = Record::from_bytes(body) else { return };
        let Ok(frame) = encode_bytes(body, HOST_LIMIT) else { return };
        let key = (service, stream.to_byte());
        if self.streams.len() < MAX_STREAMS || self.streams.contains_key(&key) {
            self.streams.entry(key).or_default().push(seq, frame);
        }
    }

    /// Writes all records in the order of their numbers.
    fn write(self, file: File) -> io::Result<()> {
        let mut frames: Vec<_> = self.streams.into_values().flat_map(|stream| stream.frames).collect();
        frames.sort_unstable_by_key(|(seq, _)| *seq);
        let mut file = io::BufWriter::new(file);
        frames.iter().try_for_each(|(_, frame)| file.write_all(frame))?;
        file.flush()
    }
}

impl Stream {
    fn push(&mut self, seq: u64, frame: Vec<u8>) {
        if self.frames.back().is_some_and(|(last, _)| *last >= seq) {
            return;
        }
        self.bytes = self.bytes.saturating_add(frame.len());
        self.frames.push_back((seq, frame));
        while self.bytes > STREAM_LIMIT
            && let Some((_, oldest)) = self.frames.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_wire::logs;

    fn frame(seq: u64, service: &str, length: usize) -> Vec<u8> {
        let bytes = vec![b'x'; length];
        let stream = logs::Stream::Stdout;
        let record = Record::Output { seq, time_ns: seq, service: service.into(), stream, bytes };
        encode_bytes(&record.to_bytes().unwrap(), HOST_LIMIT).unwrap()
    }

    /// The numbers and services of the retained records.
    fn retained(path: &Path) -> Vec<(u64, String)> {
        let mut decoder = Decoder::new(HOST_LIMIT);
        decoder.push(&fs::read(kept(path)).unwrap());
        let mut all = Vec::new();
        while let Some(body) = decoder.next_frame().unwrap() {
            if let Record::Output { seq, service, .. } = Record::from_bytes(body).unwrap() {
                all.push((seq, service));
            }
        }
        all
    }

    #[test]
    fn the_end_of_each_stream_is_retained() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let output = |from: u64| (from..from + 10).flat_map(|seq| frame(seq, "loud", 16 * 1024));
        let quiet = frame(0, "quiet", 10);
        fs::write(older(&path), quiet.into_iter().chain(output(1)).collect::<Vec<u8>>()).unwrap();
        keep(&path).unwrap();
        let loud = |seqs: std::ops::Range<u64>| seqs.map(|seq| (seq, "loud".to_owned()));
        let expected: Vec<_> = [(0, "quiet".to_owned())].into_iter().chain(loud(8..11)).collect();
        assert_eq!(retained(&path), expected);
        keep(&path).unwrap();
        assert_eq!(retained(&path), expected, "the same file again adds nothing");
        fs::write(older(&path), output(11).collect::<Vec<u8>>()).unwrap();
        keep(&path).unwrap();
        assert_eq!(
            retained(&path),
            [(0, "quiet".to_owned())].into_iter().chain(loud(18..21)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_enclave_that_invents_names_takes_bounded_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let names = (0..1000).flat_map(|n| frame(n, &format!("made-up-{n}"), 1));
        fs::write(older(&path), names.chain(*b"\xff\xff\xff\xffno frame").collect::<Vec<u8>>()).unwrap();
        keep(&path).unwrap();
        assert_eq!(retained(&path).len(), MAX_STREAMS);
    }

    #[test]
    fn nothing_is_retained_without_a_log() {
        let dir = tempfile::tempdir().unwrap();
        keep(&dir.path().join("log")).unwrap();
        assert!(!kept(&dir.path().join("log")).exists());
    }
}
