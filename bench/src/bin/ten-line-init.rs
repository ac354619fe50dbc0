//! The init that Cloister's is compared with: it mounts what a service needs and executes the service.
//!
//! It is the minimum that a service needs; everything that an enclave needs in addition is missing.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::mount::{MountFlags, mount};
use rustix::time::{ClockId, clock_gettime};

fn main() {
    let began = clock_gettime(ClockId::Boottime);
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        // A service that needs one of them reports that itself.
        mount(kind, at, kind, MountFlags::empty(), None).ok();
    }
    let began = began.tv_sec.saturating_mul(1_000_000).saturating_add(began.tv_nsec / 1000);
    let error = Command::new("/bin/boot-service").arg(began.to_string()).exec();
    drop(std::fs::write("/dev/console", format!("init: {error}\n")));
}
