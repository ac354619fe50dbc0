//! The attestor's confinement.

use cloister_wire::attestor::{MAX_CLIENTS, PROGRAM, Provider};
use cloister_wire::hold::Spawn;

use super::common::{COMMON, NON_BLOCKING, Servant};
use crate::confine::allowed::{Allowed, INT, int, only, row};
use crate::confine::filter::FilterError;

/// The attestor's user and group, next to the [gateway's](super::gateway::UID).
pub const UID: u32 = 61_185;

/// The attestor's memory limit. Each of [`MAX_CLIENTS`] takes less than 40 KiB, so all together less than 4 MiB; a full
/// event log takes 1 MiB, in its memory and in what init holds; the rest is for the program, its allocator and the
/// kernel's buffers of its sockets.
const MEMORY: u64 = 8 * 1024 * 1024;

/// Threads: connections, and what provides evidence.
const THREADS: usize = 2;

/// Descriptors: two for each client, one of which waits for buffer space, and those of the reactor, the channel, the
/// device, standard streams, and of clients that are being refused.
const DESCRIPTORS: usize = MAX_CLIENTS * 2 + 32;

/// The request of the Nitro Security Module's device: `_IOWR(0x0A, 0, struct nsm_raw)` of `linux/nsm.h`.
const NSM_RAW: u64 = 0xC020_0A00;

const CLIENTS: &str = "connections of programs inside";
const EVENTS: &str = "the memory of the event log";

/// The flags with which it opens an attribute: `O_CLOEXEC`, and `O_LARGEFILE` of the kernel (`asm-generic/fcntl.h`), which rustix
/// always sets and some C libraries define as zero.
const ATTRIBUTE: u64 = int(libc::O_CLOEXEC) | 0x8000;

/// Its calls where reports come from configfs.
pub(super) const CALLS: [&[Allowed]; 3] = [COMMON, OWN, FOLDER];

/// Its calls elsewhere: it opens nothing.
const WITHOUT_FOLDER: [&[Allowed]; 2] = [COMMON, OWN];

/// Calls for reports of configfs. A path cannot be checked, so its flags are: nothing is created. Its root is empty, and the entry's
/// descriptor leads nowhere else.
const FOLDER: &[Allowed] = &[only(
    "openat",
    libc::SYS_openat,
    &[&[(2, INT, int(libc::O_RDONLY) | ATTRIBUTE)], &[(2, INT, int(libc::O_WRONLY) | ATTRIBUTE)]],
    "attributes of its entry in configfs-tsm; on TDX and SEV-SNP only",
)];

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

/// The request to init to start the attestor of this platform, where so many services may record events, with this provider of
/// evidence and so many descriptors.
pub fn spawn(platform: &str, recording: usize, provider: Provider, fds: u8) -> Result<Spawn, FilterError> {
    let calls = calls_for(provider);
    let servant = Servant { uid: UID, calls, memory: MEMORY, threads: THREADS, descriptors: DESCRIPTORS };
    let arguments = [PROGRAM, platform, &recording.to_string(), provider.name()];
    servant.spawn(arguments.map(str::to_owned).to_vec(), fds)
}

const fn calls_for(provider: Provider) -> &'static [&'static [Allowed]] {
    match provider {
        Provider::Tsm => &CALLS,
        Provider::Nsm | Provider::Sleeve => &WITHOUT_FOLDER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::filter::{self, answer_to};

    #[test]
    fn the_attestor_creates_no_sockets_opens_no_files_and_uses_no_other_device() {
        let filter = filter::allow(calls_for(Provider::Nsm)).unwrap();
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

    #[test]
    fn with_reports_of_configfs_it_opens_attributes_and_creates_nothing() {
        let filter = filter::allow(calls_for(Provider::Tsm)).unwrap();
        let open = |flags| answer_to(&filter, libc::SYS_openat, [8, 0, flags, 0, 0, 0]);
        assert_eq!([open(ATTRIBUTE), open(ATTRIBUTE | 1)], [0x7FFF_0000; 2]);
        for flags in [libc::O_RDWR, libc::O_CREAT, libc::O_TMPFILE, libc::O_DIRECTORY, libc::O_PATH] {
            assert_eq!(open(ATTRIBUTE | int(flags)), 0x8000_0000, "{flags}");
        }
        for number in [libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_openat2, libc::SYS_fchdir] {
            assert_eq!(answer_to(&filter, number, [0; 6]), 0x8000_0000, "{number}");
        }
    }
}
