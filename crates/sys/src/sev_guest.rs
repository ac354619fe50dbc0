//! The driver of AMD SEV-SNP guests, `/dev/sev-guest`: reports, with the host's certificates, and derived keys.
//!
//! Invariant: structures and numbers are those of `include/uapi/linux/sev-guest.h`; reports and certificates are returned as bytes.
//!
//! A request that fails in the firmware or before it gets there disables the driver's key until the next boot, since its counter must
//! not be used twice (`snp_disable_vmpck`); every later request is then [`SevError::Disabled`]. Each call blocks, for up to 60 s if
//! the host throttles requests (`SNP_REQ_MAX_RETRY_DURATION`). Programs that only need reports use [`crate::tsm`], which is the same
//! on TDX.

#![expect(unsafe_code, reason = "the driver is used by ioctls on raw buffers")]

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::ptr;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// Length of the data in a report in bytes.
pub const USER_DATA_LENGTH: usize = 64;

/// Length of a response that contains a report, in bytes (`struct snp_report_resp`).
const REPORT_RESPONSE: usize = 4000;

/// Length of the header before a report in a response: status, length, reserved (SEV-SNP firmware ABI 1.55, `MSG_REPORT_RSP`).
const REPORT_HEADER: usize = 32;

/// Length of a response that contains a derived key, in bytes (`struct snp_derived_key_resp`).
const KEY_RESPONSE: usize = 64;

/// Length of the header before a derived key: status, reserved (SEV-SNP firmware ABI 1.55, `MSG_KEY_RSP`).
const KEY_HEADER: usize = 32;

/// Length of the buffer for the host's certificates in bytes: the maximum that the driver accepts (`SEV_FW_BLOB_MAX_SIZE`).
const CERTIFICATES_LENGTH: u32 = 0x4000;

/// The version of the messages in a request: the only one that is defined (SEV-SNP firmware ABI 1.55, table 99).
const MESSAGE_VERSION: u8 = 1;

/// The host's error for a certificate buffer that is too small (`SNP_GUEST_VMM_ERR_INVALID_LEN`).
const HOST_INVALID_LENGTH: u32 = 1;

/// The host's error for too many requests (`SNP_GUEST_VMM_ERR_BUSY`).
const HOST_BUSY: u32 = 2;

/// The driver's value while there is no error of the firmware (`SEV_RET_NO_FW_CALL`).
const NO_FIRMWARE_ERROR: u32 = 0xff;

/// An open driver.
#[derive(Debug)]
pub struct SevGuest {
    device: File,
}

/// A report, and what the host passes along with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedReport {
    /// The report.
    pub report: Vec<u8>,
    /// The host's certificate table (GHCB specification 2.03, section 4.1.8.1): 16 KiB, zeros if there are no certificates.
    pub certificates: Vec<u8>,
}

/// The key that a derived key is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKey {
    /// The processor's own key (VCEK), or the cloud provider's (VLEK): the derived key is another on each machine.
    Vcek,
    /// The key that a migration agent gives to the guest (VMRK).
    Vmrk,
}

/// What a derived key depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    /// The root key.
    pub root: RootKey,
    /// Which of the guest's properties are mixed in, as bits: policy (0), image id (1), family id (2), measurement (3), security
    /// version (4), versions of the firmware (5).
    pub fields: u64,
    /// The privilege level that is mixed in; not below the guest's own.
    pub vmpl: u32,
    /// The security version that is mixed in; not above the guest's own.
    pub guest_svn: u32,
    /// The versions of the firmware that are mixed in; not above the committed ones.
    pub tcb_version: u64,
}

/// A key that only this guest can derive. It is overwritten when it is dropped, and not printed.
#[derive(PartialEq, Eq)]
pub struct DerivedKey([u8; 32]);

/// Why a request failed.
#[derive(Debug)]
pub enum SevError {
    /// There is no such device: this is no SNP guest.
    Absent(io::Error),
    /// The driver's key is disabled since an earlier request failed; only a new boot enables it again.
    Disabled,
    /// The host has more certificates than the driver's buffer holds: this many bytes.
    CertificatesTooLarge(u32),
    /// The host throttled the request for longer than the driver's limit.
    TimedOut,
    /// The host refused the request with this error.
    Host(u32),
    /// The firmware refused the request with this error, or with this status in its response.
    Firmware(u32),
    /// The response is not as specified.
    Malformed,
    /// Any other error of the driver.
    Io(io::Error),
}

impl SevGuest {
    /// Opens the device of the machine whose root directory is `root`.
    pub fn open(root: &Path) -> Result<Self, SevError> {
        let device = File::options().read(true).write(true).open(root.join("dev/sev-guest"));
        device.map(|device| Self { device }).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => SevError::Absent(error),
            _ => SevError::Io(error),
        })
    }

    /// A report with this data, for a privilege level not below the guest's own (`SNP_GET_REPORT`).
    pub fn report(&self, user_data: &[u8; USER_DATA_LENGTH], vmpl: u32) -> Result<Vec<u8>, SevError> {
        let mut request = ReportRequest::new(user_data, vmpl);
        let mut response = Response([0; REPORT_RESPONSE]);
        let mut message = Message::new(ptr::from_mut(&mut request), ptr::from_mut(&mut response));
        self.send::<GET_REPORT>(&mut message).map_err(|error| failure(error, &message, 0))?;
        report_in(&response.0)
    }

    /// A report as by [`Self::report`], and the host's certificates (`SNP_GET_EXT_REPORT`).
    pub fn extended_report(
        &self,
        user_data: &[u8; USER_DATA_LENGTH],
        vmpl: u32,
    ) -> Result<ExtendedReport, SevError> {
        let mut certificates = vec![0; usize::try_from(CERTIFICATES_LENGTH).unwrap_or(0)];
        let mut request = ExtendedRequest {
            report: ReportRequest::new(user_data, vmpl),
            certificates: certificates.as_mut_ptr(),
            length: CERTIFICATES_LENGTH,
        };
        let mut response = Response([0; REPORT_RESPONSE]);
        let mut message = Message::new(ptr::from_mut(&mut request), ptr::from_mut(&mut response));
        let sent = self.send::<GET_EXTENDED_REPORT>(&mut message);
        sent.map_err(|error| failure(error, &message, request.length))?;
        Ok(ExtendedReport { report: report_in(&response.0)?, certificates })
    }

    /// A key that depends on this guest and on `wanted` (`SNP_GET_DERIVED_KEY`).
    pub fn derived_key(&self, wanted: &KeyRequest) -> Result<DerivedKey, SevError> {
        let mut request = DerivedKeyRequest {
            root_key_select: match wanted.root {
                RootKey::Vcek => 0,
                RootKey::Vmrk => 1,
            },
            reserved: 0,
            guest_field_select: wanted.fields,
            vmpl: wanted.vmpl,
            guest_svn: wanted.guest_svn,
            tcb_version: wanted.tcb_version,
        };
        let mut response = Response([0; KEY_RESPONSE]);
        let mut message = Message::new(ptr::from_mut(&mut request), ptr::from_mut(&mut response));
        let sent = self.send::<GET_DERIVED_KEY>(&mut message);
        let key = sent.map_err(|error| failure(error, &message, 0)).and_then(|()| key_in(&response.0));
        overwrite(&mut response.0);
        key
    }

    /// Sends a request. `message` must refer to a request and a response of `OPCODE`, which exist until this returns: its only
    /// callers are the three functions above.
    fn send<const OPCODE: Opcode>(&self, message: &mut Message) -> io::Result<()> {
        // SAFETY: the three numbers take a snp_guest_request_ioctl, whose layout Message has. The structures that it refers to are
        // locals of the callers, with the layouts that the kernel reads and writes for their number.
        let exchange = unsafe { Updater::<OPCODE, Message>::new(message) };
        // SAFETY: the updater above was created for exactly this request number.
        unsafe { ioctl(&self.device, exchange) }.map_err(io::Error::from)
    }
}

impl DerivedKey {
    /// The key.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for DerivedKey {
    fn drop(&mut self) {
        overwrite(&mut self.0);
    }
}

/// Overwrites a secret, as far as a program can: copies that the compiler made are not found.
fn overwrite(secret: &mut [u8]) {
    secret.fill(0);
    std::hint::black_box(&secret);
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKey(…)")
    }
}

/// The typed error of a failed request. `certificates` is the length that the driver has left in the request.
fn failure(error: io::Error, message: &Message, certificates: u32) -> SevError {
    let [host, firmware] = [message.host_error, message.firmware_error];
    match Errno::from_io_error(&error) {
        Some(Errno::NOTTY) => SevError::Disabled,
        Some(Errno::TIMEDOUT) => SevError::TimedOut,
        _ if host == HOST_INVALID_LENGTH => SevError::CertificatesTooLarge(certificates),
        _ if host == HOST_BUSY => SevError::TimedOut,
        _ if host != 0 => SevError::Host(host),
        _ if firmware != 0 && firmware != NO_FIRMWARE_ERROR => SevError::Firmware(firmware),
        _ => SevError::Io(error),
    }
}

/// The report in a response.
fn report_in(response: &[u8]) -> Result<Vec<u8>, SevError> {
    check_status(response)?;
    let length = number_at(response, 4)?;
    let length = usize::try_from(length).map_err(|_| SevError::Malformed)?;
    let end = REPORT_HEADER.checked_add(length).ok_or(SevError::Malformed)?;
    match response.get(REPORT_HEADER..end) {
        Some(report) if !report.is_empty() => Ok(report.to_vec()),
        _ => Err(SevError::Malformed),
    }
}

/// The key in a response.
fn key_in(response: &[u8; KEY_RESPONSE]) -> Result<DerivedKey, SevError> {
    check_status(response)?;
    let key = response.get(KEY_HEADER..).and_then(<[u8]>::first_chunk);
    key.map(|key| DerivedKey(*key)).ok_or(SevError::Malformed)
}

fn check_status(response: &[u8]) -> Result<(), SevError> {
    match number_at(response, 0)? {
        0 => Ok(()),
        status => Err(SevError::Firmware(status)),
    }
}

fn number_at(response: &[u8], at: usize) -> Result<u32, SevError> {
    let bytes = response.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or(SevError::Malformed)
}

/// `struct snp_guest_request_ioctl`. Its addresses are 64-bit numbers; Cloister has only 64-bit targets.
#[repr(C)]
struct Message {
    version: u8,
    request: *mut u8,
    response: *mut u8,
    firmware_error: u32,
    host_error: u32,
}

impl Message {
    fn new<Request, Response>(request: *mut Request, response: *mut Response) -> Self {
        Self {
            version: MESSAGE_VERSION,
            request: request.cast(),
            response: response.cast(),
            firmware_error: 0,
            host_error: 0,
        }
    }
}

/// `struct snp_report_req`.
#[repr(C)]
struct ReportRequest {
    user_data: [u8; USER_DATA_LENGTH],
    vmpl: u32,
    reserved: [u8; 28],
}

impl ReportRequest {
    const fn new(user_data: &[u8; USER_DATA_LENGTH], vmpl: u32) -> Self {
        Self { user_data: *user_data, vmpl, reserved: [0; 28] }
    }
}

/// `struct snp_ext_report_req`.
#[repr(C)]
struct ExtendedRequest {
    report: ReportRequest,
    certificates: *mut u8,
    length: u32,
}

/// `struct snp_derived_key_req`.
#[repr(C)]
struct DerivedKeyRequest {
    root_key_select: u32,
    reserved: u32,
    guest_field_select: u64,
    vmpl: u32,
    guest_svn: u32,
    tcb_version: u64,
}

/// `struct snp_report_resp` and `struct snp_derived_key_resp`: bytes.
#[repr(C)]
struct Response<const LENGTH: usize>([u8; LENGTH]);

/// `SNP_GET_REPORT`: `_IOWR('S', 0x0, struct snp_guest_request_ioctl)`.
const GET_REPORT: Opcode = opcode::read_write::<Message>(b'S', 0x0);

/// `SNP_GET_DERIVED_KEY`: `_IOWR('S', 0x1, struct snp_guest_request_ioctl)`.
const GET_DERIVED_KEY: Opcode = opcode::read_write::<Message>(b'S', 0x1);

/// `SNP_GET_EXT_REPORT`: `_IOWR('S', 0x2, struct snp_guest_request_ioctl)`.
const GET_EXTENDED_REPORT: Opcode = opcode::read_write::<Message>(b'S', 0x2);

impl fmt::Display for SevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(_) => f.write_str("there is no /dev/sev-guest: this is no SEV-SNP guest"),
            Self::Disabled => f.write_str(
                "the driver's key is disabled after a failed request; a new boot enables it again",
            ),
            Self::CertificatesTooLarge(length) => write!(
                f,
                "the host has {length} bytes of certificates, more than the driver's limit of {CERTIFICATES_LENGTH}"
            ),
            Self::TimedOut => {
                f.write_str("the host throttled the request for longer than the driver's limit")
            }
            Self::Host(error) => write!(f, "the host refused the request with error {error:#x}"),
            Self::Firmware(error) => write!(f, "the firmware refused the request with error {error:#x}"),
            Self::Malformed => f.write_str("the firmware's response is not as specified"),
            Self::Io(_) => f.write_str("cannot access /dev/sev-guest"),
        }
    }
}

impl std::error::Error for SevError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Absent(error) | Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
