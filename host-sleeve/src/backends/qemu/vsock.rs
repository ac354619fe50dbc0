//! The guest's vsock device, and the program that makes one where the host's kernel does not.
//!
//! Its law: the device listens before QEMU is started, and its sockets lie in the enclave's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

use crate::error::{Error, Result};
use crate::install;
use crate::state::Folder;
use crate::transport::Hybrid;

use super::children::Program;
use super::{argv, attached, listening};

/// The vhost-user vsock device.
pub(crate) const VSOCK_PROGRAM: &str = "vhost-device-vsock";

/// The kernel's vhost-vsock.
pub(crate) const VSOCK_DEVICE: &str = "/dev/vhost-vsock";

/// Where the vhost-user device serves the host, in the enclave's folder.
const VSOCK_SOCKET: &str = "vsock.sock";

/// How long the vsock device may take to listen: it starts within milliseconds on an idle host.
const VSOCK_LIMIT: Duration = Duration::from_secs(10);

/// The pause between two looks for the vsock device's socket.
const VSOCK_PAUSE: Duration = Duration::from_millis(2);

/// How vsock can be made here: by the kernel, else by the vhost-user device, whose file is the answer.
pub(crate) fn find_vsock() -> Result<Option<PathBuf>> {
    if fs::File::options().read(true).write(true).open(VSOCK_DEVICE).is_ok() {
        return Ok(None);
    }
    install::program(VSOCK_PROGRAM).map(Some).ok_or_else(|| {
        Error::host(format!("neither {VSOCK_DEVICE} can be opened nor {VSOCK_PROGRAM} found"))
            .hint("`modprobe vhost_vsock` as root, or `cargo install --locked vhost-device-vsock`")
    })
}

/// A vsock address that no other enclave of this host is likely to have. With the kernel's vhost-vsock a clash makes
/// QEMU refuse to start; behind vhost-user it means nothing.
pub(super) fn free_cid() -> u32 {
    // Unique while the process lives; the top bits keep clear of the small numbers people choose by hand.
    0x4000_0000 | (std::process::id() & 0x3fff_ffff)
}

pub(super) async fn start_vsock(program: &Path, cid: u32, folder: &Folder) -> Result<Program> {
    let device = format!("guest-cid={cid},socket={},uds-path={VSOCK_SOCKET}", argv::VHOST_SOCKET);
    let mut running = Program::start(VSOCK_PROGRAM, program, ["--vm", &device], folder.path(), Vec::new())?;
    let deadline = Instant::now() + VSOCK_LIMIT;
    let sockets = [argv::VHOST_SOCKET, VSOCK_SOCKET];
    while !running.id().is_some_and(|process| listening::listens(process.pid, &sockets)) {
        if running.has_ended() || Instant::now() > deadline {
            running.kill().await;
            let said = running.said().await.unwrap_or_else(|| "it said nothing".to_owned());
            return Err(Error::host(format!("{} does not start", program.display()))
                .because(std::io::Error::other(said))
                .hint("`host-sleeve doctor` checks it"));
        }
        time::sleep(VSOCK_PAUSE).await;
    }
    Ok(running)
}

/// The way through a device that listens and has no guest yet: to be made before QEMU is there to hand over anything.
pub(super) fn hybrid(device: &Program, folder: &Folder) -> Hybrid {
    let (tell, ready) = watch::channel(false);
    let pid = device.id().map_or(0, |process| process.pid);
    tokio::spawn(attached::watch(pid, attached::event_descriptors(pid), tell));
    Hybrid::new(folder.socket(VSOCK_SOCKET), ready)
}

/// Looks for the program alone, for machines that take no other device.
pub(super) fn find_vsock_program() -> Result<PathBuf> {
    install::program(VSOCK_PROGRAM).ok_or_else(|| {
        Error::host(format!("{VSOCK_PROGRAM} is not installed"))
            .hint("`cargo install --locked vhost-device-vsock`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cid_is_neither_reserved_nor_one_that_people_choose() {
        assert!(free_cid() > 0xffff);
        assert!(free_cid() < u32::MAX - 1);
    }
}
