//! The driver of Intel TDX guests: the local report of `/dev/tdx_guest`, and the run-time measurement registers in sysfs.
//!
//! Invariant: the structure and its number are those of `include/uapi/linux/tdx-guest.h`, and the files those of
//! `Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest`.
//!
//! The local report (TDREPORT) is authenticated by a key of the processor it was made on: only other enclaves there can check it. The
//! quote that a remote party can check is made from it by the host's quoting service, through [`crate::tsm`]; without a TSM provider
//! in the kernel there is no quote.

#![expect(unsafe_code, reason = "the driver is used by an ioctl on a raw buffer")]

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// Length of the data in a report in bytes (`TDX_REPORTDATA_LEN`).
pub const REPORT_DATA_LENGTH: usize = 64;

/// Length of a local report in bytes (`TDX_REPORT_LEN`).
pub const REPORT_LENGTH: usize = 1024;

/// Length of a register in bytes: SHA-384.
pub const REGISTER_LENGTH: usize = 48;

/// Where the kernel provides the registers, since Linux 6.16.
const REGISTERS: &str = "sys/devices/virtual/misc/tdx_guest/measurements";

/// A run-time measurement register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rtmr {
    /// The firmware's: its configuration.
    Zero,
    /// The firmware's: what it boots.
    One,
    /// The boot loader's and the kernel's.
    Two,
    /// The application's.
    Three,
}

/// Why a request failed.
#[derive(Debug)]
pub enum TdxError {
    /// There is no such device: this is no TDX guest.
    Absent(io::Error),
    /// The kernel does not provide the registers: it is older than Linux 6.16, or this is no TDX guest.
    Unsupported(io::Error),
    /// The module refused the call (EIO), or the kernel the register's new data.
    Refused(io::Error),
    /// The register is not as documented.
    Malformed,
    /// Any other error.
    Io(io::Error),
}

/// An open driver.
#[derive(Debug)]
pub struct TdxGuest {
    device: File,
}

impl TdxGuest {
    /// Opens the device of the machine whose root directory is `root`.
    pub fn open(root: &Path) -> Result<Self, TdxError> {
        let device = File::options().read(true).write(true).open(root.join("dev/tdx_guest"));
        device.map(|device| Self { device }).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => TdxError::Absent(error),
            _ => TdxError::Io(error),
        })
    }

    /// A local report with this data (`TDX_CMD_GET_REPORT0`). It takes microseconds.
    pub fn report(&self, data: &[u8; REPORT_DATA_LENGTH]) -> Result<[u8; REPORT_LENGTH], TdxError> {
        let mut request = ReportRequest { data: *data, report: [0; REPORT_LENGTH] };
        // SAFETY: TDX_CMD_GET_REPORT0 takes a tdx_report_req, whose layout ReportRequest has, and stores no address of it.
        let exchange = unsafe { Updater::<GET_REPORT, ReportRequest>::new(&mut request) };
        // SAFETY: the updater above was created for exactly this request number.
        unsafe { ioctl(&self.device, exchange) }.map_err(|error| failed(error.into()))?;
        Ok(request.report)
    }
}

/// Extends a register of the machine whose root directory is `root`: its new value is `SHA384(old ‖ digest)`.
pub fn extend(root: &Path, register: Rtmr, digest: &[u8; REGISTER_LENGTH]) -> Result<(), TdxError> {
    let mut file = File::options().write(true).open(register.path(root)).map_err(not_provided)?;
    // In one write: the kernel refuses parts.
    match file.write(digest) {
        Ok(REGISTER_LENGTH) => Ok(()),
        Ok(_) => Err(TdxError::Refused(io::ErrorKind::WriteZero.into())),
        Err(error) => Err(failed(error)),
    }
}

/// A register's value.
pub fn register(root: &Path, register: Rtmr) -> Result<[u8; REGISTER_LENGTH], TdxError> {
    let file = File::open(register.path(root)).map_err(not_provided)?;
    let mut value = Vec::new();
    let limit = u64::try_from(REGISTER_LENGTH).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut value).map_err(failed)?;
    value.try_into().map_err(|_| TdxError::Malformed)
}

impl Rtmr {
    fn path(self, root: &Path) -> PathBuf {
        let name = match self {
            Self::Zero => "rtmr0:sha384",
            Self::One => "rtmr1:sha384",
            Self::Two => "rtmr2:sha384",
            Self::Three => "rtmr3:sha384",
        };
        root.join(REGISTERS).join(name)
    }
}

fn failed(error: io::Error) -> TdxError {
    match Errno::from_io_error(&error) {
        Some(Errno::IO | Errno::INVAL) => TdxError::Refused(error),
        _ => TdxError::Io(error),
    }
}

fn not_provided(error: io::Error) -> TdxError {
    if error.kind() == io::ErrorKind::NotFound { TdxError::Unsupported(error) } else { TdxError::Io(error) }
}

/// `struct tdx_report_req`.
#[repr(C)]
struct ReportRequest {
    data: [u8; REPORT_DATA_LENGTH],
    report: [u8; REPORT_LENGTH],
}

/// `TDX_CMD_GET_REPORT0`: `_IOWR('T', 1, struct tdx_report_req)`.
const GET_REPORT: Opcode = opcode::read_write::<ReportRequest>(b'T', 1);

impl fmt::Display for TdxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent(_) => "there is no /dev/tdx_guest: this is no TDX guest",
            Self::Unsupported(_) => "the kernel does not provide TDX measurement registers (Linux 6.16 does)",
            Self::Refused(_) => "the TDX module refused the request",
            Self::Malformed => "the kernel's TDX measurement register is not as documented",
            Self::Io(_) => "cannot access the TDX driver",
        })
    }
}

impl std::error::Error for TdxError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Absent(error) | Self::Unsupported(error) | Self::Refused(error) | Self::Io(error) => {
                Some(error)
            }
            Self::Malformed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn number_and_layout_are_those_of_the_kernels_header() {
        // _IOWR('T', 1, 1088 bytes), for x86-64.
        assert_eq!(GET_REPORT, 0xc440_5401);
        assert_eq!((size_of::<ReportRequest>(), offset_of!(ReportRequest, report)), (1088, 64));
    }

    #[test]
    fn a_machine_without_the_device_is_no_tdx_guest() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(TdxGuest::open(root.path()), Err(TdxError::Absent(_))));
        fs::create_dir(root.path().join("dev")).unwrap();
        fs::write(root.path().join("dev/tdx_guest"), "").unwrap();
        let guest = TdxGuest::open(root.path()).unwrap();
        assert!(matches!(guest.report(&[0; 64]), Err(TdxError::Io(_))), "an ordinary file");
    }

    #[test]
    fn a_kernel_without_registers_is_unsupported() {
        let root = tempfile::tempdir().unwrap();
        let error = extend(root.path(), Rtmr::Three, &[0; 48]).unwrap_err();
        assert!(matches!(error, TdxError::Unsupported(_)) && error.to_string().contains("6.16"), "{error:?}");
        assert!(matches!(register(root.path(), Rtmr::Zero), Err(TdxError::Unsupported(_))));
    }

    #[test]
    fn a_register_is_a_file_of_48_bytes() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(REGISTERS)).unwrap();
        let file = root.path().join(REGISTERS).join("rtmr3:sha384");
        fs::write(&file, "").unwrap();
        extend(root.path(), Rtmr::Three, &[3; 48]).unwrap();
        assert_eq!(register(root.path(), Rtmr::Three).unwrap(), [3; 48]);
        assert!(
            matches!(extend(root.path(), Rtmr::Two, &[2; 48]), Err(TdxError::Unsupported(_))),
            "not created"
        );
        for length in [47, 49] {
            fs::write(&file, vec![0; length]).unwrap();
            assert!(matches!(register(root.path(), Rtmr::Three), Err(TdxError::Malformed)), "{length}");
        }
    }
}
