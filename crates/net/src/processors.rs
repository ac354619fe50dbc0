//! How many processors this process may use.
//!
//! Its law: it is asked by one system call, so that a program without files can ask it too. The standard library's
//! `available_parallelism` reads the cgroup's files besides.

use rustix::thread::sched_getaffinity;

/// As many as `sched_getaffinity(2)` names; one where it fails.
#[must_use]
pub fn processors() -> usize {
    sched_getaffinity(None).map_or(1, |set| usize::try_from(set.count()).unwrap_or(1)).max(1)
}
