//! What an enclave said, kept on the host.
//!
//! Its law: bounded on disk, whole records only, and a hole is always told. The sleeve writes; anybody may read, at any
//! pace, without the sleeve noticing.
//!
//! A log is two files of the log channel's own frames: the newer one, and the older one that it was renamed to when full. In
//! front of them lie the last words of each stream out of all that was given up, so that a service that writes much erases
//! nothing of another.

pub(crate) mod kept;
pub(crate) mod lines;
pub(crate) mod reader;
pub(crate) mod rotating;

/// The services' log in an enclave's folder.
pub(crate) const SERVICES: &str = "log";

/// The console in an enclave's folder.
pub(crate) const CONSOLE: &str = "console.log";

/// The words of a detached sleeve itself in an enclave's folder.
pub(crate) const SLEEVE: &str = "sleeve.log";

/// The size in bytes at which the services' log starts over; two of these are kept. Some hundred thousand lines.
pub(crate) const SERVICES_LIMIT: u64 = 16 * 1024 * 1024;

/// The size in bytes at which the console starts over; two of these are kept. A quiet boot prints some kilobytes.
pub(crate) const CONSOLE_LIMIT: u64 = 1024 * 1024;

/// The size in bytes at which a detached sleeve's words start over; two of these are kept. It says a line a turn, and with
/// `--console` what the console says.
pub(crate) const SLEEVE_LIMIT: u64 = CONSOLE_LIMIT;
