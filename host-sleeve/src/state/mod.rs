//! What is known about the enclaves of one user, on disk.
//!
//! Its law: a sleeve holds its enclave's lock for as long as it lives, so whoever can take the lock knows that the sleeve
//! is gone, however it went. Everything is read as it may have been left by a crash.
//!
//! ```text
//! RUNTIME/            owned by the user, writable by nobody else
//!   NAME/           0700
//!     lock            held by the sleeve
//!     state.json      the record, replaced by rename
//!     sleeve.sock     requests to the sleeve
//!     sleeve.log      what a detached sleeve has to say
//!     log, log.1, log.kept   what the services said, as frames of the log channel
//!     console.log, console.log.1
//!     vsock.sock, vhost.sock, qmp.sock
//! ```

pub(crate) mod folder;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod root;

pub(crate) use folder::Folder;
pub(crate) use record::{End, Outcome, Record};
pub(crate) use root::Root;
