//! What the two halves of a benchmark agree on, and how figures are made of samples.
//!
//! Its law: every path is measured in one run, in turns, by one client against one service; a figure is a median, and a
//! ratio is to what was measured beside it.

pub mod client;
pub mod figures;
#[cfg(feature = "guest")]
pub mod floor;
#[cfg(feature = "host")]
pub mod machine;
pub mod service;

/// Vsock ports and TCP ports of the guest half of the ingress benchmark.
pub mod ports {
    /// The service itself, on vsock, with no relay.
    pub const RAW: u32 = 5001;
    /// A relay that copies with Tokio's own means.
    pub const COPY: u32 = 5002;
    /// socat.
    pub const SOCAT: u32 = 5003;
    /// The least a relay can do.
    pub const FLOOR: u32 = 5004;
    /// Tells facts of each program, a line each, then waits for the host to close.
    pub const FACTS: u32 = 5010;
    /// The service on TCP, behind every relay.
    pub const SERVICE: u16 = 7000;
    /// The port of the manifest's ingress table.
    pub const INGRESS: u16 = 80;
}
