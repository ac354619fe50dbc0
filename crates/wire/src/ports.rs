//! Addresses on which the enclave listens: vsock ports for the host, abstract unix addresses for programs inside.
//! Connections are opened by the host; the only one opened by the enclave is the Nitro heartbeat.

/// State changes out, stop requests in: [`crate::control`].
pub const CONTROL: u32 = 17000;

/// Output of the services: [`crate::logs`].
pub const LOGS: u32 = 17001;

/// Reserved for outgoing traffic: nothing listens on it yet.
pub const EGRESS: u32 = 17002;

/// One connection for each client connection: [`crate::ingress`].
pub const INGRESS: u32 = 17003;

/// Requests to the development security module of the platform `virtual`: [`crate::module`].
pub const MODULE: u32 = 17004;

/// The CID of a Nitro enclave's parent, which replies to the heartbeat (aws-nitro-enclaves-sdk-bootstrap, `init.c`).
pub const NITRO_PARENT_CID: u32 = 3;

/// The port of the Nitro heartbeat on [`NITRO_PARENT_CID`] (same source).
pub const NITRO_HEARTBEAT: u32 = 9000;

/// The byte of the Nitro heartbeat, sent once and echoed once (same source).
pub const NITRO_HEARTBEAT_BYTE: u8 = 0xB7;

/// Maximum length of a single write to a vsock stream, in bytes.
///
/// Writes over 32 KiB corrupt streams with some combinations of kernel and VMM (cloud-hypervisor issue 7672), and
/// writes of 64 KiB hang `vhost-device-vsock` 0.3.0; writes of 31 KiB never did either.
pub const MAX_VSOCK_WRITE: usize = 31 * 1024;

/// The abstract unix address of the control channel for programs inside the enclave.
pub const LOCAL_CONTROL: &str = "cloister/control";

/// The abstract unix address at which programs inside the enclave request evidence.
pub const LOCAL_ATTESTATION: &str = "cloister/attestation";

/// The abstract unix address of the log channel for programs inside the enclave.
pub const LOCAL_LOGS: &str = "cloister/logs";

/// The abstract unix address at which programs inside the enclave ask how far the date can be trusted: one line of JSON
/// ([`crate::control::Time`]), then the end.
pub const LOCAL_TIME: &str = "cloister/time";
