//! What is known about the enclaves of one user, on disk.
//!
//! Its law: an enclave lives while its sleeve holds the folder's lock, or while the process that its record names runs. The
//! lock file alone decides nothing: it can be removed. Everything is read as it may have been left by a crash.
//!
//! ```text
//! STATE/              owned by the user, writable by nobody else
//!   NAME/           0700
//!     lock            held by the sleeve
//!     state.json      the record, synchronized and replaced by rename
//!     sleeve.sock     requests to the sleeve
//!     sleeve.log      what a detached sleeve has to say
//!     log, log.1, log.kept   what the services said, as frames of the log channel
//!     console.log, console.log.1
//!     vsock.sock, vhost.sock, qmp.sock
//! ```

pub(crate) mod dir;
pub(crate) mod folder;
pub(crate) mod handle;
mod place;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod root;
mod write;

pub(crate) use dir::{Dir, Home};
pub(crate) use folder::Folder;
pub(crate) use record::{End, Outcome, Record};
pub(crate) use root::Root;
pub(crate) use write::Pen;
