//! PID 1 of the enclave: it boots, holds processes, and ends the machine.
//!
//! Its law: mechanism only. It decides nothing that the supervisor could, waits for no peer, and never ends but through
//! [`end`]. The order of the boot is in `main.rs`.

pub mod boot;
pub mod cgroup;
pub mod channel;
pub mod console;
pub mod end;
pub mod hold;
pub mod root;
pub mod serve;
pub mod spawn;
