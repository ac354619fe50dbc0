//! The only crate with unsafe code: safe wrappers for the system calls Cloister needs.
