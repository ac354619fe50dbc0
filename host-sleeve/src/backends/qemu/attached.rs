//! Detects when a guest's driver has attached to the vhost-user vsock device.
//!
//! Invariant: this is determined from the kernel's data, and no connection is made before. `vhost-device-vsock` 0.3.0 stops
//! serving for good if a connection arrives while QEMU passes it the queues: the event loop ends at the first queue that is
//! not ready (`vhu_vsock.rs`, `handle_event`; `event_loop.rs` of vhost-user-backend 0.20).

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

/// Queues that QEMU passes to the device, each with one event descriptor: to the guest and from it. The third one, for events,
/// is handled by QEMU (virtio 1.2, section 5.10.2).
const QUEUES: usize = 2;

/// The pause between two checks: it does not delay a boot noticeably, and a check takes some fifty microseconds.
const PAUSE: Duration = Duration::from_millis(10);

/// After this time the device's state counts as unreadable, and connections are made regardless. An emulated guest on a busy
/// host takes a few seconds to load its drivers.
const LIMIT: Duration = Duration::from_secs(30);

/// Sets `ready` once the device, process `pid`, has received its queues. `before` is the number of event descriptors that it
/// waited for until then.
pub(super) async fn watch(pid: u32, before: usize, ready: watch::Sender<bool>) {
    let started = Instant::now();
    while event_descriptors(pid) < before.saturating_add(QUEUES) && started.elapsed() < LIMIT {
        time::sleep(PAUSE).await;
    }
    // The last queue is ready a few instructions after its descriptor was added.
    time::sleep(PAUSE).await;
    ready.send_replace(true);
}

/// The number of event descriptors that a process waits for (proc(5), `fdinfo` of epoll descriptors).
pub(super) fn event_descriptors(pid: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let polls = numbers.filter(|number| is(pid, number, "anon_inode:[eventpoll]"));
    let infos = polls.filter_map(|number| fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok());
    infos.map(|info| targets(&info).filter(|number| is(pid, number, "anon_inode:[eventfd]")).count()).sum()
}

fn is(pid: u32, number: &str, what: &str) -> bool {
    fs::read_link(format!("/proc/{pid}/fd/{number}")).is_ok_and(|target| target == Path::new(what))
}

/// The descriptors that an epoll descriptor waits for: `tfd:        9 events: …`.
fn targets(info: &str) -> impl Iterator<Item = &str> {
    info.lines().filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, epoll, eventfd};

    #[test]
    fn only_event_descriptors_that_are_waited_for_are_counted() {
        let before = event_descriptors(std::process::id());
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let events = [0, 1].map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        epoll::add(&poll, &socket, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
        assert_eq!(event_descriptors(std::process::id()), before);
        for event in &events {
            epoll::add(&poll, event, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
        }
        assert_eq!(event_descriptors(std::process::id()), before + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_whose_state_is_unreadable_is_connected_to_after_the_limit() {
        let (sender, mut ready) = watch::channel(false);
        let started = Instant::now();
        watch(0, 0, sender).await;
        assert!(*ready.borrow_and_update());
        assert!(started.elapsed() >= LIMIT);
    }
}
