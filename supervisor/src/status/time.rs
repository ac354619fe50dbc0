//! How far the date can be trusted, and the socket at which programs inside ask.
//!
//! Invariant: every program may ask and gets an answer, and nothing that it sends is interpreted. The answer describes this moment.

use std::convert::Infallible;

use cloister_clock::{Date, EARLIEST};
use cloister_net::{Entrance, Gate, Stream, accept_each};
use cloister_wire::control::{Time, TimeSource};
use rustix::time::{ClockId, clock_gettime};

use crate::clock::Moment;

/// Concurrent connections; further ones wait to be accepted. Each is answered and closed without waiting for the client, so they
/// need no limit per service.
const CONNECTIONS: usize = 16;

/// How much of what a client has sent is discarded at once, in bytes.
const DISCARDED: usize = 4096;

/// Answers each connection with one line of JSON, which is what `time` returns then, and closes it.
pub async fn serve<F: Fn() -> Time + Send + 'static>(entrance: Entrance, time: F) -> Infallible {
    let handle = move |stream: Stream, _| {
        let line = serde_json::to_vec(&time());
        async move {
            let Ok(mut line) = line else { return };
            line.push(b'\n');
            // A line fits in the empty buffer of the socket. If it is not taken, the client is gone.
            stream.send_all(&line).await.unwrap_or_default();
            discard_received(&stream).await;
        }
    };
    accept_each(entrance, Gate::new(CONNECTIONS), handle).await
}

/// Discards what the client has sent: if that were unread when the socket is closed, the client would read an error after the
/// line (`ECONNRESET`, `unix_release_sock` in `net/unix/af_unix.c`). More cannot arrive, so this ends.
async fn discard_received(stream: &Stream) {
    if stream.end_receiving().is_ok() {
        let mut discarded = [0; DISCARDED];
        while matches!(stream.recv(&mut discarded).await, Ok(1..)) {}
    }
}

/// The time of an enclave whose date no source has corrected.
pub(super) fn uncorrected() -> Time {
    let now = clock_gettime(ClockId::Realtime);
    let source = origin(Date::from_parts(now.tv_sec, now.tv_nsec), Moment::now());
    Time { trusted: false, source, bound_ms: None }
}

/// Where the date comes from. Init sets it to [`EARLIEST`] if it is implausible: then the boot seems to have begun before that,
/// which no plausible date of the host's says.
fn origin(date: Option<Date>, now: Moment) -> TimeSource {
    let boot = date.map(|date| date.before(now.since(Moment::default())));
    if boot.is_some_and(|boot| boot >= EARLIEST) { TimeSource::Host } else { TimeSource::None }
}

#[cfg(test)]
mod tests {
    use cloister_net::Listener;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    const LINE: &str = "{\"trusted\":false,\"source\":\"host\"}\n";

    /// Serves at a new socket, but not before the first await of the caller.
    fn served() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join("time")).unwrap();
        let entrance = Entrance::services(Listener::from_unix(listener).unwrap(), "/proc".into());
        let host = || Time { trusted: false, source: TimeSource::Host, bound_ms: None };
        drop(tokio::spawn(serve(entrance, host)));
        folder
    }

    fn connect(folder: &tempfile::TempDir) -> UnixStream {
        let client = std::os::unix::net::UnixStream::connect(folder.path().join("time")).unwrap();
        client.set_nonblocking(true).unwrap();
        UnixStream::from_std(client).unwrap()
    }

    #[tokio::test]
    async fn clients_that_connect_at_once_are_all_answered() {
        let folder = served();
        let clients: Vec<UnixStream> = (0..20).map(|_| connect(&folder)).collect();
        for mut client in clients {
            let mut line = String::new();
            client.read_to_string(&mut line).await.unwrap();
            assert_eq!(line, LINE);
        }
    }

    #[tokio::test]
    async fn a_client_that_sends_something_reads_the_line_and_no_error() {
        let folder = served();
        let mut client = connect(&folder);
        client.write_all(&[b'x'; 3 * DISCARDED + 1]).await.unwrap();
        let mut line = String::new();
        client.read_to_string(&mut line).await.unwrap();
        assert_eq!(line, LINE);
    }

    #[test]
    fn a_date_that_init_has_set_has_no_source() {
        let after = |seconds, nanos| Date::from_parts(EARLIEST.seconds() + seconds, nanos);
        // Init's stage was 2 s after the boot, and this is a second later.
        let now = Moment::from_millis(3000);
        assert_eq!(origin(after(1, 0), now), TimeSource::None);
        assert_eq!(origin(after(3, 0), now), TimeSource::Host);
        assert_eq!(origin(after(86_400, 0), now), TimeSource::Host);
        assert_eq!(origin(None, now), TimeSource::None);
    }

    #[test]
    fn a_date_of_the_host_is_not_trusted() {
        let host = Time { trusted: false, source: TimeSource::Host, bound_ms: None };
        assert_eq!(uncorrected(), host);
    }
}
