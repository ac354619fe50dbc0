//! The host kernel's vsock device for guests, `/dev/vhost-vsock`.
//!
//! Invariant: a CID belongs to the open device it was set on, until all of its descriptors are closed. The request is
//! defined in the kernel's `include/uapi/linux/vhost.h`.

#![expect(unsafe_code, reason = "the device is driven by an ioctl")]

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Opcode, Setter, ioctl};

/// `VHOST_VSOCK_SET_GUEST_CID`: `_IOW(VHOST_VIRTIO, 0x60, __u64)`.
const SET_GUEST_CID: Opcode = rustix::ioctl::opcode::write::<u64>(0xAF, 0x60);

/// Assigns the CID of a guest to an open device.
///
/// Errors: `EADDRINUSE` if another open device has that CID, `EINVAL` for a reserved one.
pub fn set_guest_cid(device: impl AsFd, cid: u32) -> io::Result<()> {
    // SAFETY: the request takes a pointer to a u64 that the kernel reads, which a setter of a u64 passes.
    let request = unsafe { Setter::<SET_GUEST_CID, u64>::new(u64::from(cid)) };
    // SAFETY: the request does not write to this process's memory, and other kinds of files refuse it with ENOTTY.
    Ok(unsafe { ioctl(device, request) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_a_vsock_device_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = set_guest_cid(&file, 7).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOTTY.raw_os_error()));
    }
}
