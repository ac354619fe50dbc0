//! Which requests are retried, and after what pause.
//!
//! Invariant: only temporary errors are retried, a bounded number of times. The pause is the one that the registry requests
//! (`Retry-After`, RFC 9110, 10.2.3); without one it doubles. Jitter keeps builds that failed together from retrying together.

use std::time::{Duration, SystemTime};

use ureq::http::HeaderMap;

use super::error::RegistryError;

/// Maximum number of consecutive attempts without progress, including the first. With the pauses below they take about eight seconds.
const MAX_TRIES: u32 = 5;

/// The first pause: long enough for a proxy to find another server.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause that a registry may request. Docker Hub's limit counts hours; a build waiting that long would seem to hang.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(2);

/// Counts the attempts of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    tried: u32,
    first: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { tried: 0, first: FIRST_PAUSE }
    }
}

impl Retry {
    /// A counter with another first pause than the default.
    #[cfg(test)]
    pub(super) fn after(first: Duration) -> Self {
        Self { tried: 0, first }
    }

    /// Data has arrived: the count of consecutive attempts is reset.
    pub(super) fn progress(&mut self) {
        self.tried = 0;
    }

    /// The pause before the next attempt, if there should be one.
    pub(super) fn pause(&mut self, error: &RegistryError) -> Option<Duration> {
        let asked = error.retry_after();
        if !error.is_passing() {
            return None;
        }
        self.tried = self.tried.saturating_add(1);
        if self.tried >= MAX_TRIES || asked.is_some_and(|asked| asked > MAX_RETRY_AFTER) {
            return None;
        }
        let doubled = self.first.saturating_mul(1 << (self.tried - 1));
        let pause = jitter(doubled);
        Some(asked.map_or(pause, |asked| asked.saturating_add(jitter(self.first))))
    }
}

/// A random time between half of `pause` and all of it.
fn jitter(pause: Duration) -> Duration {
    let mut drawn = [0; 1];
    // Without random bits there is no jitter, which is not a reason to fail.
    rustix::rand::getrandom(&mut drawn, rustix::rand::GetRandomFlags::empty()).ok();
    pause / 2 + pause / 2 * u32::from(drawn[0]) / 256
}

/// The pause that a response requests, as seconds or as a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_many(retry_after: Option<Duration>) -> RegistryError {
        RegistryError::TooMany { registry: "q.io".to_owned(), retry_after }
    }

    #[test]
    fn pauses_double_and_are_limited() {
        let mut retry = Retry::default();
        let pauses: Vec<_> = std::iter::from_fn(|| retry.pause(&too_many(None))).collect();
        assert_eq!(pauses.len(), 4);
        for (pause, most) in pauses.iter().zip([500, 1000, 2000, 4000]) {
            let most = Duration::from_millis(most);
            assert!((most / 2..=most).contains(pause), "{pause:?} of {most:?}");
        }
        retry.progress();
        assert!(retry.pause(&too_many(None)).is_some());
    }

    #[test]
    fn a_requested_pause_is_observed_unless_it_takes_hours() {
        let pause = Retry::default().pause(&too_many(Some(Duration::from_secs(7)))).unwrap();
        assert!((Duration::from_secs(7)..Duration::from_secs(8)).contains(&pause), "{pause:?}");
        assert_eq!(Retry::default().pause(&too_many(Some(Duration::from_hours(6)))), None);
        assert_eq!(Retry::default().pause(&RegistryError::NoRoots), None);
    }

    #[test]
    fn seconds_and_dates_are_parsed() {
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([("retry-after".parse().unwrap(), text.parse().unwrap())]);
            retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777))
        };
        assert_eq!(read("90"), Some(Duration::from_secs(90)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:30 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }
}
