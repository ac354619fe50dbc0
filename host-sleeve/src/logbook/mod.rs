//! The logs of an enclave, stored on the host.
//!
//! Invariant: bounded on disk, complete records only, and every gap is reported. The sleeve writes; any process of the user may
//! read, at any pace, without affecting the sleeve.
//!
//! A log consists of two files of the log channel's own frames: the current one, and the previous one, to which it is renamed
//! when it is full. A third file, read first, retains the end of each stream from the discarded files, so that a service that
//! writes a lot does not displace the output of another.
//!
//! Files only grow: a reader that follows a log stays in step with its writer, whatever fails. On a full disk, whole records are
//! lost, which their numbers show.

pub(crate) mod kept;
pub(crate) mod lines;
pub(crate) mod reader;
pub(crate) mod rotating;

/// The services' log in an enclave's directory.
pub(crate) const SERVICES: &str = "log";

/// The console in an enclave's directory.
pub(crate) const CONSOLE: &str = "console.log";

/// The messages of a detached sleeve in an enclave's directory.
pub(crate) const SLEEVE: &str = "sleeve.log";

/// The size in bytes at which the services' log is rotated; two such files are stored. Several hundred thousand lines.
pub(crate) const SERVICES_LIMIT: u64 = 16 * 1024 * 1024;

/// The size in bytes at which the console is rotated; two such files are stored. A quiet boot prints a few kilobytes.
pub(crate) const CONSOLE_LIMIT: u64 = 1024 * 1024;

/// The size in bytes at which a detached sleeve's messages are rotated; two such files are stored. It writes a line per change
/// of state, and with `--console` the console as well.
pub(crate) const SLEEVE_LIMIT: u64 = CONSOLE_LIMIT;
