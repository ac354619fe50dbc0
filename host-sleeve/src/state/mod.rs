//! The state of one user's enclaves, on disk.
//!
//! Invariant: an enclave is alive while its sleeve holds the directory's lock, or while the process named in its record runs.
//! The lock file alone decides nothing: it can be removed. Everything read may have been left incomplete by a crash.
//!
//! ```text
//! STATE/              owned by the user, writable by no one else
//!   NAME/           0700
//!     lock            held by the sleeve
//!     state.json      the record, synchronized and replaced by rename
//!     sleeve.sock     requests to the sleeve
//!     sleeve.log      messages of a detached sleeve
//!     log, log.1, log.kept   the services' output, as frames of the log channel
//!     console.log, console.log.1
//!     vsock.sock, vhost.sock, qmp.sock
//!   .virtual/       0700: the root of the development security module, not an enclave
//! ```

pub(crate) mod dir;
pub(crate) mod enclave_dir;
mod end;
#[cfg(test)]
pub(crate) mod full_disk;
pub(crate) mod handle;
mod place;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod root;
mod verified;
mod write;

pub(crate) use dir::{Dir, Home};
pub(crate) use enclave_dir::EnclaveDir;
pub(crate) use end::{End, Outcome};
pub(crate) use record::Record;
pub(crate) use root::Root;
pub(crate) use verified::Verified;
pub(crate) use write::RecordWriter;
