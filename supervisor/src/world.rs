//! What the supervisor is given: where its files lie, where its listeners are and which addresses are its own inside.
//!
//! Its law: everything outside the process is reached through these values, so the whole supervisor runs on any Linux
//! machine, against an init of a test's own.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;

use cloister_net::{Entrance, Listener};
use cloister_wire::ports;

use crate::confine::NOTIFY_ADDRESS;

/// Where things lie inside the enclave.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The measured manifest.
    pub manifest: PathBuf,
    /// The application's root as init puts it together.
    pub root: PathBuf,
    /// The folder of the services' cgroups.
    pub cgroups: PathBuf,
    /// The folder of the servants' cgroups.
    pub servants: PathBuf,
    /// The kernel's processes.
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

/// The unix addresses that are the supervisor's inside the enclave: abstract, so that no mount hides them, but in tests.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Where programs inside read and ask.
    pub control: SocketAddr,
    /// Where they read the log.
    pub logs: SocketAddr,
    /// Where services notify.
    pub notify: SocketAddr,
}

impl Addresses {
    /// Those that services know.
    ///
    /// # Errors
    /// None but for a name that is too long.
    pub fn known() -> io::Result<Self> {
        Ok(Self {
            control: SocketAddr::from_abstract_name(ports::LOCAL_CONTROL)?,
            logs: SocketAddr::from_abstract_name(ports::LOCAL_LOGS)?,
            notify: SocketAddr::from_abstract_name(NOTIFY_ADDRESS)?,
        })
    }
}

/// A listening Unix socket at `address`, for programs inside: this supervisor and those after it serve it.
///
/// # Errors
/// When the address is taken.
pub fn bind(address: &SocketAddr) -> io::Result<OwnedFd> {
    Ok(UnixListener::bind_addr(address)?.into())
}

/// Serves a socket of [`bind`] to processes inside, which are looked up in `proc`.
///
/// # Errors
/// When the reactor does not take it.
pub fn serving(socket: OwnedFd, proc: PathBuf) -> io::Result<Entrance> {
    Ok(Entrance::services(Listener::from_unix(socket.into())?, proc))
}
