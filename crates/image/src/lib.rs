//! Container image in, measured enclave image out: pure, reproducible, and streaming.
//!
//! Its law: the same input gives the same bytes, on any machine, at any time, for any user.

pub mod erofs;
pub mod tree;
