//! The log channel: what the services say, from the enclave into the host's log.
//!
//! Its law: each record once. A connection that breaks is taken up again from the next sequence number; at the end the
//! channel is read to where the enclave says it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cloister_net::channel::{self, ChannelError, Limits, Receiver};
use cloister_wire::frame::{self, HOST_LIMIT};
use cloister_wire::hello::{Protocol, Role};
use cloister_wire::logs::{END, Record, Subscribe};
use cloister_wire::ports;
use tokio::sync::{mpsc, watch};
use tokio::time;

use crate::logbook::kept;
use crate::logbook::rotating::Rotating;
use crate::transport::Transport;

use super::control::LIMITS;
use super::life::Event;

/// The pause between two tries to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// One read: some of the largest frames at once.
const PIECE: usize = 128 * 1024;

/// The reader.
#[derive(Debug)]
struct LogReader {
    transport: Arc<dyn Transport>,
    log: Rotating,
    /// The next sequence number wanted.
    next: u64,
    /// Whether the last write failed: told once.
    failing: bool,
}

/// Reads until the enclave says that this was all and `drain` has turned true; tells [`Event::Drained`].
///
/// The connection that follows is the one that is read to its end: the enclave says so when its final state is certain and
/// everything was sent. To close it here and ask anew would throw away what is under way in the vsock device.
pub(crate) async fn run(
    transport: Arc<dyn Transport>,
    log: Rotating,
    drain: watch::Receiver<bool>,
    events: mpsc::Sender<Event>,
) {
    let mut reader = LogReader { transport, log, next: 0, failing: false };
    reader.follow(drain).await;
    drop(events.send(Event::Drained).await);
}

impl LogReader {
    /// Reads to the end that the enclave tells. A connection that breaks off means that the supervisor was away, or is not
    /// there yet; for how long it is worth another try is for the life to say.
    async fn follow(&mut self, mut drain: watch::Receiver<bool>) {
        while !self.read().await.unwrap_or(false) {
            time::sleep(PAUSE).await;
        }
        // Without anybody left who could ask for it, there is nothing to wait for.
        drop(drain.wait_for(|drain| *drain).await);
    }

    /// Reads one connection; whether it was read to the end.
    async fn read(&mut self) -> Result<bool, ChannelError> {
        let stream = self.transport.connect(ports::LOGS).await?;
        let limits = Limits { read: PIECE, ..LIMITS };
        let (receiver, mut sender) = channel::open(stream, Protocol::Logs, Role::Host, limits).await?;
        sender.send(&Subscribe { from: self.next, follow: true }).await?;
        self.records(receiver).await
    }

    async fn records(&mut self, mut receiver: Receiver) -> Result<bool, ChannelError> {
        let mut batch = Vec::new();
        loop {
            let mut ended = false;
            while let Some(body) = receiver.arrived()? {
                if body == END {
                    ended = true;
                    break;
                }
                let record = Record::from_bytes(body).map_err(io::Error::other)?;
                if self.takes(&record) {
                    batch.extend(frame::encode_bytes(body, HOST_LIMIT)?);
                }
            }
            self.write(&batch);
            batch.clear();
            if ended {
                return Ok(true);
            }
            match receiver.fill().await {
                Err(ChannelError::Closed) => return Ok(false),
                filled => filled?,
            }
        }
    }

    /// Whether a record is new. What the enclave counts is believed no further than this.
    const fn takes(&mut self, record: &Record) -> bool {
        let (first, after) = match record {
            Record::Output { seq, .. } => (*seq, seq.saturating_add(1)),
            Record::Gap { first, count } => (*first, first.saturating_add(*count)),
        };
        let new = first >= self.next;
        if new {
            self.next = after;
        }
        new
    }

    /// Appends to the log. A disk that is full loses records, which the reader of the log sees by their numbers, and never
    /// holds up the enclave.
    fn write(&mut self, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        let kept = self.log.before_rotation(kept::keep);
        // What could not be kept is no reason to lose what comes.
        let written = self.log.append(batch).and(kept);
        if let (Err(error), false) = (&written, self.failing) {
            crate::output::note(&format!("warning: the log cannot be written: {error}"));
        }
        self.failing = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logbook::reader::Reader;
    use crate::state::{Dir, Home};
    use crate::transport::Hybrid;
    use cloister_wire::frame::Decoder;
    use cloister_wire::logs;

    fn reader(dir: &std::path::Path) -> LogReader {
        let home = Home::new(Dir::open(dir).unwrap());
        let log = Rotating::create(home, "log", 1 << 20).unwrap();
        let transport = Arc::new(Hybrid::new(dir.join("vsock.sock"), watch::channel(true).1));
        LogReader { transport, log, next: 0, failing: false }
    }

    #[test]
    fn a_flood_of_one_service_erases_no_word_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = reader(dir.path());
        let record = |seq, service: &str, bytes: &[u8]| Record::Output {
            seq,
            time_ns: 0,
            service: service.into(),
            stream: logs::Stream::Stdout,
            bytes: bytes.to_vec(),
        };
        let encoded = |record: &Record| frame::encode_bytes(&record.to_bytes().unwrap(), HOST_LIMIT).unwrap();
        reader.write(&encoded(&record(0, "quiet", b"last words")));
        let flood = vec![b'x'; 30 * 1024];
        for seq in 1..200 {
            reader.write(&encoded(&record(seq, "loud", &flood)));
        }
        let mut read = Reader::open(&Dir::open(dir.path()).unwrap(), "log");
        let (mut decoder, mut found) = (Decoder::new(HOST_LIMIT), Vec::new());
        loop {
            let (piece, fresh) = read.next_piece().unwrap();
            if fresh {
                decoder = Decoder::new(HOST_LIMIT);
            }
            if piece.is_empty() {
                break;
            }
            decoder.push(piece);
            while let Some(body) = decoder.next_frame().unwrap() {
                if let Record::Output { seq, .. } = Record::from_bytes(body).unwrap() {
                    found.push(seq);
                }
            }
        }
        assert_eq!(found.first(), Some(&0), "what the quiet one said");
        assert_eq!(found.last(), Some(&199));
        assert!(found.is_sorted_by(|a, b| a < b), "in order, each once");
    }

    #[test]
    fn a_record_that_came_twice_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = reader(dir.path());
        let output = |seq| Record::Output {
            seq,
            time_ns: 0,
            service: "web".into(),
            stream: logs::Stream::Stdout,
            bytes: Vec::new(),
        };
        assert!(reader.takes(&output(0)));
        assert!(reader.takes(&output(1)));
        assert!(!reader.takes(&output(1)));
        assert!(reader.takes(&Record::Gap { first: 2, count: 5 }));
        assert!(!reader.takes(&output(4)));
        assert!(reader.takes(&output(7)));
    }
}
