//! The supervisor's environment: where its files are, and the addresses it listens on inside the enclave.
//!
//! Invariant: everything outside the process is reached through these values, so that the whole supervisor runs on any
//! Linux machine, against a test's init.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;

use cloister_net::{Entrance, Listener};
use cloister_wire::ports;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::confine::NOTIFY_ADDRESS;

/// Paths inside the enclave.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The measured manifest.
    pub manifest: PathBuf,
    /// The application's root as init assembles it.
    pub root: PathBuf,
    /// The directory of the services' cgroups.
    pub cgroups: PathBuf,
    /// The directory of the servants' cgroups.
    pub servants: PathBuf,
    /// The proc file system.
    pub proc: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            manifest: PathBuf::from(cloister_manifest::model::PATH),
            root: PathBuf::from("/run/cloister/root"),
            cgroups: PathBuf::from("/sys/fs/cgroup/cloister"),
            servants: PathBuf::from("/sys/fs/cgroup/servants"),
            proc: PathBuf::from("/proc"),
        }
    }
}

/// The Unix addresses on which the supervisor listens inside the enclave: abstract, so that no mount hides them, except
/// in tests.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Where programs inside read the status and send requests.
    pub control: SocketAddr,
    /// Where programs inside read the log.
    pub logs: SocketAddr,
    /// Where services send notifications.
    pub notify: SocketAddr,
    /// Where programs inside request evidence.
    pub attestation: SocketAddr,
    /// Where programs inside ask how far the date can be trusted.
    pub time: SocketAddr,
}

impl Addresses {
    /// The well-known addresses.
    ///
    /// # Errors
    /// Only if a name is too long.
    pub fn known() -> io::Result<Self> {
        Ok(Self {
            control: SocketAddr::from_abstract_name(ports::LOCAL_CONTROL)?,
            logs: SocketAddr::from_abstract_name(ports::LOCAL_LOGS)?,
            notify: SocketAddr::from_abstract_name(NOTIFY_ADDRESS)?,
            attestation: SocketAddr::from_abstract_name(ports::LOCAL_ATTESTATION)?,
            time: SocketAddr::from_abstract_name(ports::LOCAL_TIME)?,
        })
    }
}

/// Creates a listening Unix socket at `address` for programs inside; this supervisor and its successors serve it.
///
/// # Errors
/// If the address is in use.
pub fn bind(address: &SocketAddr) -> io::Result<OwnedFd> {
    Ok(UnixListener::bind_addr(address)?.into())
}

/// Takes `address` so that no service can, without listening: connections are refused.
///
/// # Errors
/// If the address is in use, or not abstract.
pub fn reserve(address: &SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let name = address.as_abstract_name().ok_or(io::ErrorKind::InvalidInput)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
    Ok(socket)
}

/// Serves a socket of [`bind`] to processes inside, which are identified through `proc`.
///
/// # Errors
/// If the socket cannot be registered with the reactor.
pub fn serving(socket: OwnedFd, proc: PathBuf) -> io::Result<Entrance> {
    Ok(Entrance::services(Listener::from_unix(socket.into())?, proc))
}
