//! Evidence through configfs: `/sys/kernel/config/tsm/report` (Linux 6.7, `Documentation/ABI/testing/configfs-tsm`).
//!
//! Invariant: a report belongs to the bytes that it was requested for. An entry has one user at a time, either for one request
//! ([`report`]) or as long as the machine exists ([`Folder`]), and the kernel's count of changes (`generation`) must have grown by
//! exactly this request's writes, before and after the report is read. That also shows a failed write of `inblob`: configfs passes
//! the bytes to the driver when the file is closed, and discards the result (`configfs_release_bin_file`).
//!
//! Everything here blocks: a TDX quote takes about a second, since the driver polls for it once per second, and up to the driver's
//! limit of 30 s (`tdx-guest.c`); a throttled SNP request up to 60 s (`sev-guest.c`). The kernel offers no way to cancel a read, so
//! a caller with a shorter limit makes the request on a thread of its own and stops waiting; the thread ends with the driver's
//! limit, and removes the entry of its request. A signal that is handled on that thread interrupts the driver, which then refuses
//! every request (`Busy`) until the host has answered the interrupted one: the caller installs no handlers, or blocks signals there.

mod folder;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

pub use folder::Folder;

/// Where the kernel provides reports.
pub const ROOT: &str = "/sys/kernel/config/tsm/report";

/// Maximum length of a report and of its additional data in bytes: the kernel's (`TSM_OUTBLOB_MAX`, `include/linux/tsm.h`).
pub const BLOB_LIMIT: usize = 32 * 1024;

/// Length of the data in a report in bytes: what SNP and TDX take. The kernel accepts less, and the driver refuses it later.
pub const INBLOB_LENGTH: usize = 64;

/// The kernel's provider on TDX (`tdx-guest.c`).
const TDX: &str = "tdx_guest";

/// Maximum length of a TDX quote in bytes: the buffer that the driver shares with the host (`GET_QUOTE_BUF_SIZE` of Linux 6.12),
/// without its header (`struct tdx_quote_buf`). The host writes the length into the buffer, and drivers that do not compare it
/// copy what is behind the buffer.
const TDX_QUOTE_LIMIT: usize = 8192 - 24;

/// After so long, the driver of TDX gives up waiting for the host: 30 polls, each after a pause of a second at least. If the host
/// does not answer at all, it does not return ETIMEDOUT then, but EIO or an empty quote (`wait_for_quote_completion` compares the
/// number of polls with the limit after it has counted one more).
const TDX_PATIENCE: Duration = Duration::from_secs(30);

/// Maximum length of a text attribute in bytes. The names of providers have about ten, numbers at most 20.
const TEXT_LIMIT: usize = 64;

/// Attempts to get a report that nothing has changed meanwhile. An entry of a name that only this process knows is not changed by
/// accident, so a second attempt is rarely needed.
const ATTEMPTS: usize = 3;

/// Names tried for an entry: an earlier process of the same number may have been killed and have left as many.
const NAMES: usize = 16;

/// Numbers the entries of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A platform's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The name of the kernel's provider, which determines the format: `sev_guest`, `tdx_guest`.
    pub provider: String,
    /// The report: with `sev_guest` an attestation report, with `tdx_guest` a quote. Never empty.
    pub outblob: Vec<u8>,
    /// With `sev_guest` the host's certificate table (GHCB specification 2.03, section 4.1.8.1). Empty if there is none.
    pub auxblob: Vec<u8>,
}

/// Why there is no report.
#[derive(Debug)]
pub enum TsmError {
    /// The kernel has no provider of reports, or no configfs is mounted: the platform has no such evidence.
    Absent(io::Error),
    /// The provider does not have this attribute, such as `privlevel` on TDX.
    Unsupported(&'static str),
    /// The kernel or the platform refuses a value (EINVAL): a privilege level below the provider's minimum, for instance.
    Refused(&'static str),
    /// The driver is occupied by an interrupted request (EBUSY). Retry after some seconds.
    Busy,
    /// The report is not available yet (EWOULDBLOCK).
    WouldBlock,
    /// The host did not answer within the driver's limit.
    TimedOut,
    /// The driver's key is disabled since an earlier request failed (ENOTTY, SNP): only a new boot enables it again.
    Disabled,
    /// The attribute is longer than its limit in bytes.
    Oversized(&'static str, usize),
    /// Another program changed or removed the entry, in every attempt.
    Changed,
    /// The attribute is not as documented.
    Malformed(&'static str),
    /// Any other error.
    Io {
        /// The attribute, or the entry.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Requests a report that contains `inblob`, below `root` ([`ROOT`]), for a privilege level (SNP: the VMPL) or the provider's default.
/// Blocks for up to a minute in each of three attempts.
pub fn report(root: &Path, inblob: &[u8; INBLOB_LENGTH], privlevel: Option<u32>) -> Result<Report, TsmError> {
    unless_changed(|| true, || request(&Entry::create(root)?, inblob, privlevel))
}

/// Repeats a request that another program has interfered with, as long as it is wanted.
fn unless_changed(
    wanted: impl Fn() -> bool,
    mut request: impl FnMut() -> Result<Report, TsmError>,
) -> Result<Report, TsmError> {
    for _ in 0..ATTEMPTS {
        match request() {
            Err(TsmError::Changed) if wanted() => {}
            result => return result,
        }
    }
    Err(TsmError::Changed)
}

const PROVIDER: &str = "provider";
const GENERATION: &str = "generation";
const PRIVLEVEL: &str = "privlevel";
const INBLOB: &str = "inblob";
const OUTBLOB: &str = "outblob";
const AUXBLOB: &str = "auxblob";

/// Attributes that only some providers have. The absence of any other means that the entry was removed.
const OPTIONAL: [&str; 2] = [PRIVLEVEL, AUXBLOB];

/// The attributes of an entry.
trait Attributes {
    /// Writes all bytes at once.
    fn write(&self, name: &'static str, bytes: &[u8]) -> io::Result<()>;

    /// Reads at most `limit` bytes.
    fn read(&self, name: &'static str, limit: usize) -> io::Result<Vec<u8>>;
}

fn request(
    entry: &impl Attributes,
    inblob: &[u8; INBLOB_LENGTH],
    privlevel: Option<u32>,
) -> Result<Report, TsmError> {
    let provider = text(entry, PROVIDER)?;
    let mut expected = generation(entry)?;
    if let Some(level) = privlevel {
        entry.write(PRIVLEVEL, level.to_string().as_bytes()).map_err(failed(PRIVLEVEL))?;
        expected = expected.wrapping_add(1);
    }
    entry.write(INBLOB, inblob).map_err(failed(INBLOB))?;
    expected = expected.wrapping_add(1);
    unchanged(entry, expected)?;
    let outblob = outblob(entry, &provider)?;
    let auxblob = match blob(entry, AUXBLOB) {
        Err(TsmError::Unsupported(_)) => Vec::new(),
        auxblob => auxblob?,
    };
    unchanged(entry, expected)?;
    Ok(Report { provider, outblob, auxblob })
}

/// Checks that the entry has been written exactly as often as expected.
fn unchanged(entry: &impl Attributes, expected: u64) -> Result<(), TsmError> {
    if generation(entry)? == expected { Ok(()) } else { Err(TsmError::Changed) }
}

fn generation(entry: &impl Attributes) -> Result<u64, TsmError> {
    text(entry, GENERATION)?.parse().map_err(|_| TsmError::Malformed(GENERATION))
}

/// A text attribute without its line break: printable ASCII, not empty.
fn text(entry: &impl Attributes, name: &'static str) -> Result<String, TsmError> {
    let bytes = limited(entry, name, TEXT_LIMIT)?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) {
        return Err(TsmError::Malformed(name));
    }
    String::from_utf8(text.to_vec()).map_err(|_| TsmError::Malformed(name))
}

fn blob(entry: &impl Attributes, name: &'static str) -> Result<Vec<u8>, TsmError> {
    limited(entry, name, BLOB_LIMIT)
}

/// The report of this provider.
fn outblob(entry: &impl Attributes, provider: &str) -> Result<Vec<u8>, TsmError> {
    let begin = Instant::now();
    let limit = if provider == TDX { TDX_QUOTE_LIMIT } else { BLOB_LIMIT };
    match limited(entry, OUTBLOB, limit) {
        Ok(bytes) if bytes.is_empty() => Err(TsmError::Malformed(OUTBLOB)),
        result => result,
    }
    .map_err(|error| if provider == TDX { of_tdx(error, begin.elapsed()) } else { error })
}

/// What an error of the driver of TDX means after this time.
fn of_tdx(error: TsmError, elapsed: Duration) -> TsmError {
    match &error {
        TsmError::Malformed(_) if elapsed >= TDX_PATIENCE => TsmError::TimedOut,
        TsmError::Io { source, .. }
            if elapsed >= TDX_PATIENCE && Errno::from_io_error(source) == Some(Errno::IO) =>
        {
            TsmError::TimedOut
        }
        _ => error,
    }
}

fn limited(entry: &impl Attributes, name: &'static str, limit: usize) -> Result<Vec<u8>, TsmError> {
    let bytes = entry.read(name, limit.saturating_add(1)).map_err(failed(name))?;
    if bytes.len() > limit { Err(TsmError::Oversized(name, limit)) } else { Ok(bytes) }
}

/// The typed error of an operation on the attribute `name`.
fn failed(name: &'static str) -> impl Fn(io::Error) -> TsmError {
    move |source| match Errno::from_io_error(&source) {
        Some(Errno::NOENT) if OPTIONAL.contains(&name) => TsmError::Unsupported(name),
        Some(Errno::NOENT) => TsmError::Changed,
        Some(Errno::NXIO) => TsmError::Absent(source),
        Some(Errno::INVAL) => TsmError::Refused(name),
        Some(Errno::BUSY) => TsmError::Busy,
        Some(Errno::AGAIN) => TsmError::WouldBlock,
        Some(Errno::TIMEDOUT) => TsmError::TimedOut,
        Some(Errno::NOTTY) => TsmError::Disabled,
        Some(Errno::FBIG) => TsmError::Oversized(name, BLOB_LIMIT),
        _ => TsmError::Io { what: name, source },
    }
}

/// An entry of this process, removed when it is dropped.
#[derive(Debug)]
struct Entry(PathBuf);

impl Entry {
    fn create(root: &Path) -> Result<Self, TsmError> {
        let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..NAMES {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = root.join(format!("cloister-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
                Err(error) => return Err(not_created(error)),
            }
        }
        Err(not_created(taken))
    }
}

fn not_created(error: io::Error) -> TsmError {
    match Errno::from_io_error(&error) {
        // No such subsystem; a subsystem without a provider.
        Some(Errno::NOENT | Errno::NXIO) => TsmError::Absent(error),
        _ => TsmError::Io { what: "the entry", source: error },
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // An entry that is left behind only takes a little memory.
        drop(fs::remove_dir(&self.0));
    }
}

impl Attributes for Entry {
    fn write(&self, name: &'static str, bytes: &[u8]) -> io::Result<()> {
        File::options().write(true).open(self.0.join(name))?.write_all(bytes)
    }

    fn read(&self, name: &'static str, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        File::open(self.0.join(name))?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl fmt::Display for TsmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(_) => f.write_str("the kernel has no provider of reports"),
            Self::Unsupported(name) => write!(f, "the provider of reports has no attribute {name}"),
            Self::Refused(name) => write!(f, "the platform refused the request at {name}"),
            Self::Busy => f.write_str("the driver is still occupied by an interrupted request"),
            Self::WouldBlock => f.write_str("the report is not available yet"),
            Self::TimedOut => f.write_str("the host did not answer the request for a report in time"),
            Self::Disabled => f.write_str(
                "the driver's key is disabled after a failed request; a new boot enables it again",
            ),
            Self::Oversized(name, limit) => write!(f, "{name} is longer than the limit of {limit} bytes"),
            Self::Changed => {
                write!(f, "another program changed or removed the request in each of {ATTEMPTS} attempts")
            }
            Self::Malformed(name) => write!(f, "the kernel's {name} is not as documented"),
            Self::Io { what, .. } => write!(f, "cannot access {what} of a request for a report"),
        }
    }
}

impl std::error::Error for TsmError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Absent(source) | Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
