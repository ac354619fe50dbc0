//! Means that the kernel lacks at the moment: memory, or a descriptor to wait with.
//!
//! Its law: no readiness comes for them, so whoever lacks them tries again after a pause.

use std::io;
use std::task::Context;
use std::time::Duration;

use rustix::io::Errno;

/// How long a write waits for them: short beside what a peer waits for, long beside a retry's own cost.
pub const PAUSE: Duration = Duration::from_millis(10);

/// Whether a write failed for want of memory, or of a descriptor to wait with, that may be there a moment later.
#[must_use]
pub fn are_lacking(error: &io::Error) -> bool {
    const MEANS: [Errno; 4] = [Errno::NOBUFS, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
    MEANS.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Wakes a task that lacks them after [`PAUSE`].
pub fn wake_later(cx: &Context<'_>) {
    let waker = cx.waker().clone();
    drop(tokio::spawn(async move {
        tokio::time::sleep(PAUSE).await;
        waker.wake();
    }));
}
