//! Deadlines: a future within a time, or an error that names what was waited for.
//!
//! Its law: what is late is dropped where it stands, and the error carries the limit that it passed. How long something may
//! take is for the callers to say.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

/// Something that was not done in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} took longer than {limit:?}")]
pub struct Late {
    /// What was waited for.
    pub what: &'static str,
    /// How long it was waited for.
    pub limit: Duration,
}

impl From<Late> for io::Error {
    fn from(late: Late) -> Self {
        Self::new(io::ErrorKind::TimedOut, late)
    }
}

/// Waits for `future`, which is `what`, at most `limit`.
///
/// # Errors
/// [`Late`] when it is not done by then; the future has been dropped.
pub async fn within<F: Future>(limit: Duration, what: &'static str, future: F) -> Result<F::Output, Late> {
    timeout(limit, future).await.map_err(|_| Late { what, limit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn what_is_done_in_time_gives_its_value() {
        let slow = async {
            sleep(LIMIT / 2).await;
            7
        };
        assert_eq!(within(LIMIT, "an answer", slow).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_named_with_its_limit() {
        let began = Instant::now();
        let late = within(LIMIT, "the answer", std::future::pending::<()>()).await.unwrap_err();
        assert_eq!((late.to_string().as_str(), began.elapsed()), ("the answer took longer than 30s", LIMIT));
        assert_eq!(io::Error::from(late).kind(), io::ErrorKind::TimedOut);
    }
}
