//! Retries when the kernel is temporarily out of memory or descriptors.
//!
//! Invariant: the kernel reports no readiness event for these resources, so an operation that needs them is retried
//! after a pause.

use std::io;
use std::task::Context;
use std::time::Duration;

use rustix::io::Errno;

/// Pause before a retry: short compared to the time a peer waits, long compared to the cost of a retry.
pub const PAUSE: Duration = Duration::from_millis(10);

/// Whether a write failed for lack of memory or descriptors, and may succeed later.
#[must_use]
pub fn are_exhausted(error: &io::Error) -> bool {
    const EXHAUSTED: [Errno; 4] = [Errno::NOBUFS, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
    EXHAUSTED.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Wakes the task after [`PAUSE`], to retry.
pub fn wake_later(cx: &Context<'_>) {
    let waker = cx.waker().clone();
    drop(tokio::spawn(async move {
        tokio::time::sleep(PAUSE).await;
        waker.wake();
    }));
}
