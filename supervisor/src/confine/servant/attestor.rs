//! The attestor's confinement.

use cloister_wire::attestor::{MAX_CLIENTS, PROGRAM};
use cloister_wire::hold::Spawn;

use super::common::{COMMON, NON_BLOCKING, Servant};
use crate::confine::allowed::{Allowed, INT, int, only, row};
use crate::confine::filter::FilterError;

/// The attestor's user and group, next to the [gateway's](super::gateway::UID).
const UID: u32 = 61_185;

/// The attestor's memory limit. Each of [`MAX_CLIENTS`] takes less than 40 KiB, so all together less than 4 MiB; a full
/// event log takes 1 MiB, in its memory and in what init holds; the rest is for the program, its allocator and the
/// kernel's buffers of its sockets.
const MEMORY: u64 = 8 * 1024 * 1024;

/// Threads: connections, and the security module.
const THREADS: usize = 2;

/// Descriptors: two for each client, one of which waits for buffer space, and those of the reactor, the channel, the
/// device, standard streams, and of clients that are being refused.
const DESCRIPTORS: usize = MAX_CLIENTS * 2 + 32;

/// The request of the Nitro Security Module's device: `_IOWR(0x0A, 0, struct nsm_raw)` of `linux/nsm.h`.
const NSM_RAW: u64 = 0xC020_0A00;

const CLIENTS: &str = "connections of programs inside";
const EVENTS: &str = "the memory of the event log";

/// Its calls.
pub(super) const CALLS: [&[Allowed]; 2] = [COMMON, OWN];

/// Calls that not every servant makes.
const OWN: &[Allowed] = &[
    only(
        "ioctl",
        libc::SYS_ioctl,
        &[&[(1, INT, NSM_RAW)], &[(1, INT, NON_BLOCKING)]],
        "requests to the security module; non-blocking mode",
    ),
    only(
        "fcntl",
        libc::SYS_fcntl,
        &[
            &[(1, INT, int(libc::F_DUPFD_CLOEXEC))],
            &[(1, INT, int(libc::F_SETFD))],
            &[(1, INT, int(libc::F_GET_SEALS))],
            &[(1, INT, int(libc::F_ADD_SEALS))],
        ],
        "duplicates of its descriptors; the seals of the key's memory",
    ),
    row("ppoll", libc::SYS_ppoll, "waits for the development security module"),
    row("recvfrom", libc::SYS_recvfrom, CLIENTS),
    row("sendto", libc::SYS_sendto, CLIENTS),
    row("shutdown", libc::SYS_shutdown, CLIENTS),
    row("close", libc::SYS_close, CLIENTS),
    row("write", libc::SYS_write, "wakes its other thread"),
    row("read", libc::SYS_read, "is woken by its other thread"),
    row("pread64", libc::SYS_pread64, EVENTS),
    row("pwrite64", libc::SYS_pwrite64, EVENTS),
    row("ftruncate", libc::SYS_ftruncate, EVENTS),
    only("prctl", libc::SYS_prctl, &[&[(0, INT, int(libc::PR_SET_NAME))]], "the name of its thread"),
];

/// The request to init to start the attestor of this platform, where so many services may record events, with so many
/// descriptors.
pub fn spawn(platform: &str, recording: usize, fds: u8) -> Result<Spawn, FilterError> {
    let servant =
        Servant { uid: UID, calls: &CALLS, memory: MEMORY, threads: THREADS, descriptors: DESCRIPTORS };
    servant.spawn(vec![PROGRAM.to_owned(), platform.to_owned(), recording.to_string()], fds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::filter::{self, answer_to};

    #[test]
    fn the_attestor_creates_no_sockets_opens_no_files_and_uses_no_other_device() {
        let filter = filter::allow(&CALLS).unwrap();
        for number in [
            libc::SYS_socket,
            libc::SYS_openat,
            libc::SYS_connect,
            libc::SYS_execve,
            libc::SYS_accept4,
            libc::SYS_pipe2,
        ] {
            assert_eq!(answer_to(&filter, number, [0; 6]), 0x8000_0000, "{number}");
        }
        assert_eq!(answer_to(&filter, libc::SYS_ioctl, [4, NSM_RAW, 0, 0, 0, 0]), 0x7FFF_0000);
        assert_eq!(answer_to(&filter, libc::SYS_ioctl, [4, 0x5401, 0, 0, 0, 0]), 0x8000_0000);
    }
}
