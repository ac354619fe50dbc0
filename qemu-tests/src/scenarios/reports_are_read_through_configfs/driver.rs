//! The test driver's time limit, and how errors are printed: for the process that requests reports and the one that makes them.

use std::error::Error;
use std::time::Duration;
use std::{fs, io};

/// The test driver's time limit for an answer, in milliseconds.
const TIMEOUT: &str = "/sys/module/tsm_test/parameters/timeout_ms";

/// Its default, which all requests but one have: no machine is too busy for that.
pub(super) const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// An error with its causes, as both halves write it.
pub(super) fn text(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (**error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Sets the limit of the requests that begin from now on.
pub(super) fn set_timeout(limit: Duration) -> io::Result<()> {
    fs::write(TIMEOUT, limit.as_millis().to_string())
}

/// Whether that is the limit now.
pub(super) fn timeout_is(limit: Duration) -> io::Result<bool> {
    Ok(fs::read_to_string(TIMEOUT)?.trim() == limit.as_millis().to_string())
}
