//! The number of CPUs that this process may use.
//!
//! Invariant: it takes one system call and no files, so that a program with an empty root can call it. The standard
//! library's `available_parallelism` also reads the cgroup's files.

use rustix::thread::sched_getaffinity;

/// The number of CPUs in the affinity mask (`sched_getaffinity(2)`); 1 if the call fails.
#[must_use]
pub fn processors() -> usize {
    sched_getaffinity(None).map_or(1, |set| usize::try_from(set.count()).unwrap_or(1)).max(1)
}
