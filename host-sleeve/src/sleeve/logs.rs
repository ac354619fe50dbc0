//! The log channel: the services' output, from the enclave into the host's log.
//!
//! Invariant: each record is written once. After a broken connection, reading resumes at the next sequence number; when the
//! enclave ends, the channel is read up to its end marker.

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
use super::lifecycle::Event;

/// The pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// Size of one read: several frames of the maximum size.
const PIECE: usize = 128 * 1024;

/// The reader.
#[derive(Debug)]
struct LogReader {
    transport: Arc<dyn Transport>,
    log: Rotating,
    /// The next expected sequence number.
    next: u64,
    /// Whether the last write failed: a failure is reported once.
    failing: bool,
}

/// Reads until the enclave has sent the end marker and `drain` has become true; then sends [`Event::Drained`].
///
/// The same connection is read to its end: the enclave sends the end marker once its final state is certain and everything
/// was sent. Closing it here and subscribing again would discard data in transit in the vsock device.
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
    /// Reads up to the end marker. A connection that breaks means that the supervisor has crashed or is not running yet; the
    /// lifecycle decides for how long to retry.
    async fn follow(&mut self, mut drain: watch::Receiver<bool>) {
        while !self.read().await.unwrap_or(false) {
            time::sleep(PAUSE).await;
        }
        // An error means that the sender is gone: there is nothing to wait for.
        drop(drain.wait_for(|drain| *drain).await);
    }

    /// Reads one connection. Returns whether it was read up to the end marker.
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
                if self.is_new(&record) {
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

    /// Whether a record is new. The enclave's sequence numbers are used for nothing else.
    const fn is_new(&mut self, record: &Record) -> bool {
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

    /// Appends to the log. If the disk is full, records are lost, which shows as a gap in their numbers; the enclave is not
    /// delayed.
    fn write(&mut self, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        let kept = self.log.before_rotation(kept::keep);
        // Even if older output could not be preserved, the new records are appended.
        let written = self.log.append(batch).and(kept);
        if let (Err(error), false) = (&written, self.failing) {
            crate::output::note(&format!("warning: cannot write the log: {error}"));
        }
        self.failing = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logbook::reader::Reader;
    use crate::logbook::rotating::Content;
    use crate::state::{Dir, Home};
    use crate::transport::Hybrid;
    use cloister_wire::frame::Decoder;
    use cloister_wire::logs;

    fn reader(dir: &std::path::Path) -> LogReader {
        let home = Home::new(Dir::open(dir).unwrap());
        let log = Rotating::create(home, "log", Content::Records, 1 << 20).unwrap();
        let transport = Arc::new(Hybrid::new(dir.join("vsock.sock"), watch::channel(true).1));
        LogReader { transport, log, next: 0, failing: false }
    }

    #[test]
    fn a_flood_from_one_service_does_not_displace_the_output_of_another() {
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
        reader.write(&encoded(&record(0, "quiet", b"last line")));
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
        assert_eq!(found.first(), Some(&0), "the output of the quiet service");
        assert_eq!(found.last(), Some(&199));
        assert!(found.is_sorted_by(|a, b| a < b), "not in order, or not each once");
    }

    #[test]
    fn a_record_received_twice_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = reader(dir.path());
        let output = |seq| Record::Output {
            seq,
            time_ns: 0,
            service: "web".into(),
            stream: logs::Stream::Stdout,
            bytes: Vec::new(),
        };
        assert!(reader.is_new(&output(0)));
        assert!(reader.is_new(&output(1)));
        assert!(!reader.is_new(&output(1)));
        assert!(reader.is_new(&Record::Gap { first: 2, count: 5 }));
        assert!(!reader.is_new(&output(4)));
        assert!(reader.is_new(&output(7)));
    }
}
