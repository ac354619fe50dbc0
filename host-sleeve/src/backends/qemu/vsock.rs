//! The guest's vsock device, and the program that provides one if the host's kernel does not.
//!
//! Invariant: the device listens before QEMU is started, and its sockets are in the enclave's directory.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloister_sys::vhost;
use tokio::sync::watch;
use tokio::time::{self, Instant};

use crate::error::{Error, ErrorContext, Result};
use crate::install;
use crate::state::EnclaveDir;
use crate::transport::Hybrid;

use super::children::Program;
use super::{argv, attached, listening};

/// The program that implements a vhost-user vsock device.
pub(crate) const VSOCK_PROGRAM: &str = "vhost-device-vsock";

/// The kernel's vhost-vsock device.
pub(crate) const VSOCK_DEVICE: &str = "/dev/vhost-vsock";

/// The socket for connections from the host to the vhost-user device, in the enclave's directory.
const VSOCK_SOCKET: &str = "vsock.sock";

/// The variable that selects how vsock is provided.
const VSOCK_VARIABLE: &str = "CLOISTER_VSOCK";

/// How long the vsock device may take to listen: it starts within milliseconds on an idle host.
const VSOCK_LIMIT: Duration = Duration::from_secs(10);

/// The pause between two checks for the vsock device's socket.
const VSOCK_PAUSE: Duration = Duration::from_millis(2);

/// How vsock is provided on this host: `None` by the kernel, else the path of the vhost-user device.
pub(crate) fn find_vsock() -> Result<Option<PathBuf>> {
    let requested = std::env::var(VSOCK_VARIABLE).unwrap_or_default();
    let opens = || fs::File::options().read(true).write(true).open(VSOCK_DEVICE).is_ok();
    if uses_kernel(&requested, opens)? {
        return Ok(None);
    }
    install::program(VSOCK_PROGRAM).map(Some).ok_or_else(|| {
        Error::host(format!("cannot open {VSOCK_DEVICE}, and {VSOCK_PROGRAM} is not installed"))
            .hint("run `modprobe vhost_vsock` as root, or `cargo install --locked vhost-device-vsock`")
    })
}

/// Whether the kernel's device is used: if it `opens` and the other one was not requested.
fn uses_kernel(requested: &str, opens: impl FnOnce() -> bool) -> Result<bool> {
    match requested {
        "" => Ok(opens()),
        "user" => Ok(false),
        other => Err(Error::operator(format!("invalid value {other:?} of {VSOCK_VARIABLE}")).hint(format!(
            "{VSOCK_VARIABLE}=user selects {VSOCK_PROGRAM}; unset it to use the kernel's device"
        ))),
    }
}

/// How many random addresses are tried. Two collisions in a row mean that something else is wrong.
const CID_ATTEMPTS: u32 = 8;

/// A vsock address that no other machine of this host has, and the open kernel device that it is assigned to: QEMU gets both,
/// so that no other process can take the address in between.
pub(super) fn claim_cid() -> Result<(u32, OwnedFd)> {
    let context = || format!("cannot use {VSOCK_DEVICE}");
    let device = fs::File::options().read(true).write(true).open(VSOCK_DEVICE).context(context)?;
    let cid = first_free(free_cid, |cid| vhost::set_guest_cid(&device, cid))?;
    Ok((cid, device.into()))
}

/// The first of several random addresses that can be claimed.
fn first_free(draw: impl Fn() -> Result<u32>, claim: impl Fn(u32) -> io::Result<()>) -> Result<u32> {
    let refused = |cid: u32, error: io::Error| {
        Error::host(format!("{VSOCK_DEVICE} refused the vsock address {cid}"))
            .because(error)
            .hint(format!("set {VSOCK_VARIABLE}=user to use {VSOCK_PROGRAM} instead"))
    };
    let mut last = None;
    for _ in 0..CID_ATTEMPTS {
        let cid = draw()?;
        match claim(cid) {
            Ok(()) => return Ok(cid),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = Some(refused(cid, error)),
            Err(error) => return Err(refused(cid, error)),
        }
    }
    Err(last.unwrap_or_else(|| Error::internal("no vsock address was tried")))
}

/// A vsock address that no other enclave of this host is likely to have. With the kernel's vhost-vsock it must be unique on
/// the host; behind vhost-user it has no meaning.
///
/// It is random: process numbers repeat in different containers, whose enclaves share the host's vsock addresses. With thirty
/// bits, even among a thousand enclaves a new one collides with a probability of one in a million.
pub(super) fn free_cid() -> Result<u32> {
    let mut drawn = [0; 4];
    let count = rustix::rand::getrandom(&mut drawn, rustix::rand::GetRandomFlags::empty());
    count.context(|| "cannot generate a random vsock address".to_owned())?;
    // The top bits avoid the small numbers that people choose by hand, and the reserved ones at both ends.
    Ok(0x4000_0000 | (u32::from_ne_bytes(drawn) & 0x3fff_ffff))
}

/// Tests whether the device starts, in a temporary directory in `scratch`.
pub(crate) async fn try_vsock(program: &Path, scratch: &Path) -> Result<()> {
    let context = || format!("cannot write into {}", scratch.display());
    let directory = tempfile::tempdir_in(scratch).context(context)?;
    let mut running = start_vsock(program, free_cid()?, directory.path()).await?;
    running.kill().await;
    directory.close().context(context)
}

/// Starts the device with its sockets in `directory`, and waits until it listens.
pub(super) async fn start_vsock(program: &Path, cid: u32, directory: &Path) -> Result<Program> {
    let device = format!("guest-cid={cid},socket={},uds-path={VSOCK_SOCKET}", argv::VHOST_SOCKET);
    let mut running = Program::start(VSOCK_PROGRAM, program, ["--vm", &device], directory, Vec::new())?;
    let deadline = Instant::now() + VSOCK_LIMIT;
    let sockets = [argv::VHOST_SOCKET, VSOCK_SOCKET];
    while !running.id().is_some_and(|process| listening::listens(process.pid, &sockets)) {
        if running.has_ended() || Instant::now() > deadline {
            running.kill().await;
            let output = running.last_output().await.unwrap_or_else(|| "it printed nothing".to_owned());
            return Err(Error::host(format!("{} does not start", program.display()))
                .because(std::io::Error::other(output))
                .hint("`host-sleeve doctor` checks it"));
        }
        time::sleep(VSOCK_PAUSE).await;
    }
    Ok(running)
}

/// The transport through a device that listens and has no guest yet. To be called before QEMU is started.
pub(super) fn hybrid(device: &Program, directory: &EnclaveDir) -> Hybrid {
    let (sender, ready) = watch::channel(false);
    let pid = device.id().map_or(0, |process| process.pid);
    tokio::spawn(attached::watch(pid, attached::event_descriptors(pid), sender));
    Hybrid::new(directory.socket(VSOCK_SOCKET), ready)
}

/// Finds the program, for machines that support no other device.
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
    fn a_cid_is_random_and_neither_reserved_nor_a_common_choice() {
        let drawn: Vec<u32> = (0..4).map(|_| free_cid().unwrap()).collect();
        assert!(drawn.iter().all(|cid| (0xffff..u32::MAX - 1).contains(cid)), "{drawn:?}");
        // An address derived from the process number, which two containers may share, would be the same each time.
        assert!(drawn.iter().any(|cid| Some(cid) != drawn.first()), "{drawn:?}");
    }

    #[test]
    fn the_kernels_device_is_used_unless_the_other_one_is_requested() {
        assert!(uses_kernel("", || true).unwrap());
        assert!(!uses_kernel("", || false).unwrap());
        assert!(!uses_kernel("user", || true).unwrap());
        let error = uses_kernel("qemu", || true).unwrap_err();
        assert!(error.details().hint.as_deref().unwrap().contains("CLOISTER_VSOCK=user"));
    }

    #[test]
    fn if_a_vsock_address_is_taken_another_one_is_tried() {
        let drawn = std::cell::Cell::new(100);
        let draw = || {
            drawn.set(drawn.get() + 1);
            Ok(drawn.get())
        };
        let taken = |cid| if cid < 103 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(()) };
        assert_eq!(first_free(draw, taken).unwrap(), 103);
        let always = |_| Err(io::ErrorKind::AddrInUse.into());
        let error = first_free(draw, always).unwrap_err();
        assert!(error.to_string().contains("vsock address 111"), "{error}");
        assert!(error.details().hint.as_deref().unwrap().contains("CLOISTER_VSOCK=user"), "{error:?}");
    }

    #[test]
    fn a_device_that_refuses_for_another_reason_is_not_tried_again() {
        let checks = std::cell::Cell::new(0);
        let refuses = |_| {
            checks.set(checks.get() + 1);
            Err(io::ErrorKind::PermissionDenied.into())
        };
        assert!(first_free(|| Ok(7), refuses).is_err());
        assert_eq!(checks.get(), 1);
    }

    #[tokio::test]
    async fn a_device_that_exits_at_once_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("vhost-device-vsock");
        std::os::unix::fs::symlink("/bin/false", &program).unwrap();
        let error = start_vsock(&program, 7, dir.path()).await.unwrap_err();
        assert!(error.to_string().contains("does not start"), "{error}");
    }
}
