//! How far the date can be trusted, and the socket at which programs inside ask.
//!
//! Invariant: every program may ask, and nothing that it sends is read. The answer describes this moment.

use std::convert::Infallible;

use cloister_clock::{Date, EARLIEST};
use cloister_net::places::{Limits, Places};
use cloister_net::{Entrance, Stream, accept_each};
use cloister_wire::control::{Time, TimeSource};
use rustix::time::{ClockId, clock_gettime};

use crate::clock::Moment;

/// Concurrent connections. Each is answered and closed at once; one more per service may be waiting for its turn.
const CONNECTIONS: Limits = Limits { host: 0, service: 2, shared: 16 };

/// Answers each connection with one line of JSON, which is what `time` returns then, and closes it.
pub async fn serve<F: Fn() -> Time + Send + 'static>(entrance: Entrance, time: F) -> Infallible {
    let handle = move |stream: Stream, _| {
        let line = serde_json::to_vec(&time());
        async move {
            let Ok(mut line) = line else { return };
            line.push(b'\n');
            // A line fits in the empty buffer of the socket. If it is not taken, the client is gone.
            stream.send_all(&line).await.unwrap_or_default();
        }
    };
    accept_each(entrance, Places::new(CONNECTIONS), handle).await
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
    use super::*;

    #[test]
    fn a_date_that_init_has_set_comes_from_nowhere() {
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
