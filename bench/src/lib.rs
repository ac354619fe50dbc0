//! Shared definitions of the two halves of a benchmark, and the computation of figures from samples.
//!
//! Invariant: all paths are measured alternately in one run, by one client against one service; a figure is a median, and a
//! ratio is to a figure of the same run.

pub mod client;
pub mod figures;
#[cfg(feature = "guest")]
pub mod floor;
#[cfg(feature = "host")]
pub mod machine;
pub mod service;

/// Vsock ports and TCP ports of the guest half of the ingress benchmark.
pub mod ports {
    /// The service itself, on vsock, without a relay.
    pub const RAW: u32 = 5001;
    /// A relay that uses Tokio's copy function.
    pub const COPY: u32 = 5002;
    /// socat.
    pub const SOCAT: u32 = 5003;
    /// The minimal relay.
    pub const FLOOR: u32 = 5004;
    /// Reports facts about each program, one per line, then waits for the host to close.
    pub const FACTS: u32 = 5010;
    /// The service on TCP, behind every relay.
    pub const SERVICE: u16 = 7000;
    /// The port of the manifest's ingress table.
    pub const INGRESS: u16 = 80;
}
