//! The device of the Nitro Security Module, `/dev/nsm`: sends one request and returns its response.
//!
//! Invariant: the bytes are not interpreted here, but in `cloister-nsm`. The ioctl is defined in the kernel's
//! `include/uapi/linux/nsm.h`.

#![expect(unsafe_code, reason = "the module is driven by an ioctl on raw buffers")]

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::ioctl::{Opcode, Updater, ioctl};

/// Maximum length of a request in bytes (`NSM_REQUEST_MAX_SIZE`, `drivers/misc/nsm.c`).
const REQUEST_LIMIT: usize = 0x1000;

/// Maximum length of a response in bytes (`NSM_RESPONSE_MAX_SIZE`, same file).
const RESPONSE_LIMIT: usize = 0x3000;

/// An open device.
#[derive(Debug)]
pub struct Nsm {
    device: File,
}

impl From<OwnedFd> for Nsm {
    /// The device behind a descriptor that another process has opened.
    fn from(device: OwnedFd) -> Self {
        Self { device: device.into() }
    }
}

impl Nsm {
    /// Opens the device of the machine whose root directory is `root`.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { device: File::options().read(true).write(true).open(root.join("dev/nsm"))? })
    }

    /// Opens the device of the machine whose root directory is `root` for another process, if there is one.
    pub fn open_if_present(root: &Path) -> io::Result<Option<OwnedFd>> {
        match Self::open(root) {
            Ok(nsm) => Ok(Some(nsm.device.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request of at most 4096 bytes and returns the response of at most 12288 bytes.
    pub fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        if request.len() > REQUEST_LIMIT {
            let text = format!("request has {} bytes; the limit is {REQUEST_LIMIT}", request.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut response = vec![0; RESPONSE_LIMIT];
        let mut message =
            Message { request: IoSlice::new(request), response: IoSliceMut::new(&mut response) };
        // SAFETY: NSM_RAW takes an nsm_raw of two iovecs, whose layout IoSlice and IoSliceMut have; both outlive the
        // call.
        let exchange = unsafe { Updater::<RAW, Message<'_>>::new(&mut message) };
        // SAFETY: the updater above was created for exactly this request number.
        unsafe { ioctl(&self.device, exchange) }?;
        let length = message.response.len();
        response.truncate(length);
        Ok(response)
    }
}

/// `struct nsm_raw` of `linux/nsm.h`. The kernel stores the length of the response in the second iovec.
#[repr(C)]
struct Message<'a> {
    request: IoSlice<'a>,
    response: IoSliceMut<'a>,
}

/// `NSM_IOCTL_RAW`: `_IOWR(0x0A, 0x0, struct nsm_raw)`.
const RAW: Opcode = rustix::ioctl::opcode::read_write::<Message<'_>>(0x0A, 0x0);

#[cfg(test)]
mod tests {
    use super::*;

    fn not_a_device() -> (tempfile::TempDir, Nsm) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join("dev/nsm"), "").unwrap();
        let nsm = Nsm::open(root.path()).unwrap();
        (root, nsm)
    }

    #[test]
    fn a_regular_file_is_an_error() {
        let (_root, nsm) = not_a_device();
        assert!(nsm.exchange(b"\x69GetRandom").is_err());
    }

    #[test]
    fn a_request_over_the_drivers_limit_is_refused_without_the_device() {
        let (_root, nsm) = not_a_device();
        let kind = |length| nsm.exchange(&vec![0; length]).unwrap_err().kind();
        assert_eq!(kind(4097), io::ErrorKind::InvalidInput);
        assert_ne!(kind(4096), io::ErrorKind::InvalidInput);
    }
}
