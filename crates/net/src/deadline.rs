//! Deadlines: a future with a time limit, and an error that names the operation.
//!
//! Invariant: a future that exceeds its limit is dropped, and the error contains the limit. Callers choose the limits.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

/// An operation exceeded its time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} took longer than {limit:?}")]
pub struct Late {
    /// The operation.
    pub what: &'static str,
    /// Its time limit.
    pub limit: Duration,
}

impl From<Late> for io::Error {
    fn from(late: Late) -> Self {
        Self::new(io::ErrorKind::TimedOut, late)
    }
}

/// Waits at most `limit` for `future`; `what` names it in the error.
///
/// # Errors
/// [`Late`] if it takes longer; the future has then been dropped.
pub async fn within<F: Future>(limit: Duration, what: &'static str, future: F) -> Result<F::Output, Late> {
    timeout(limit, future).await.map_err(|_| Late { what, limit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_future_that_finishes_in_time_returns_its_value() {
        let slow = async {
            sleep(LIMIT / 2).await;
            7
        };
        assert_eq!(within(LIMIT, "an answer", slow).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_future_is_reported_with_its_name_and_limit() {
        let began = Instant::now();
        let late = within(LIMIT, "the answer", std::future::pending::<()>()).await.unwrap_err();
        assert_eq!((late.to_string().as_str(), began.elapsed()), ("the answer took longer than 30s", LIMIT));
        assert_eq!(io::Error::from(late).kind(), io::ErrorKind::TimedOut);
    }
}
