//! The only crate with unsafe code: safe wrappers for the system calls Cloister needs.
//!
//! Invariant: every function here is safe to call with any argument; errors of the kernel are returned.

#[cfg(feature = "clock")]
pub mod adjust;
#[cfg(any(feature = "certificates", feature = "machine"))]
pub mod certificates;
#[cfg(feature = "child")]
pub mod child;
#[cfg(feature = "pid1")]
pub mod entropy;
#[cfg(feature = "fdpass")]
pub mod fdpass;
#[cfg(feature = "inherited")]
pub mod inherited;
#[cfg(feature = "pid1")]
pub mod landlock;
#[cfg(feature = "pid1")]
pub mod mounts;
#[cfg(feature = "pid1")]
pub mod net;
#[cfg(feature = "machine")]
pub mod nsm;
#[cfg(feature = "objects")]
pub mod objects;
#[cfg(feature = "peer")]
pub mod peer;
#[cfg(feature = "machine")]
pub mod platform;
#[cfg(feature = "pid1")]
pub mod process;
#[cfg(feature = "clock")]
pub mod ptp;
#[cfg(feature = "reactor")]
pub mod reactor;
#[cfg(feature = "seccomp")]
pub mod seccomp;
#[cfg(feature = "machine")]
pub mod sev_guest;
#[cfg(feature = "pid1")]
pub mod signal;
#[cfg(feature = "splice")]
pub mod splice;
#[cfg(feature = "tcp")]
pub mod tcp;
#[cfg(feature = "machine")]
pub mod tdx_guest;
#[cfg(feature = "tsc")]
pub mod tsc;
#[cfg(feature = "machine")]
pub mod tsm;
#[cfg(feature = "vsock")]
pub mod vhost;
#[cfg(feature = "vsock")]
pub mod vsock;
