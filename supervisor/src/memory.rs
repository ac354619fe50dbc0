//! The memory that the supervisor needs for the manifest's services, beside what it always needs.
//!
//! Its law: what grows with the manifest is counted from the manifest, and init keeps the services from taking it.

use cloister_manifest::model::{Logs, Manifest};
use cloister_wire::logs;

/// For each port of ingress: sixteen connections whose host sends faster than the service reads, each with a full window of
/// the kernel's vsock (256 KiB, `VIRTIO_VSOCK_DEFAULT_BUF_SIZE`). More than that at once fall back on what is free.
const FOR_EACH_PORT: u64 = 16 * 256 * 1024;

/// The gateway at rest, and as many connections as a small enclave has. Its limit is several times that: what it takes of the
/// machine beyond this it shares with the services, as the supervisor does.
const GATEWAY: u64 = 4 * 1024 * 1024;

/// Bytes that the services may not take.
#[must_use]
pub fn needed(manifest: &Manifest) -> u64 {
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let forwarding = manifest.services.iter().filter(|service| service.logs == Logs::Forward).count();
    let ports = count(manifest.ingress.len());
    let servants = u64::from(ports > 0);
    // As if whoever talks most had filled every history.
    // A servant has logs as a service has whose output is kept.
    logs::memory(
        count(manifest.services.len()).saturating_add(servants),
        count(forwarding).saturating_add(servants),
    )
    .saturating_add(ports.saturating_mul(FOR_EACH_PORT))
    .saturating_add(servants.saturating_mul(GATEWAY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_wire::logs::{HISTORY_BYTES, OTHER_SHARES, SHARE_BYTES};

    #[test]
    fn what_is_kept_grows_with_services_and_ports() {
        let full = include_bytes!("../../crates/manifest/testdata/full.json");
        let mut manifest = Manifest::from_json(full).unwrap();
        manifest.services.iter_mut().for_each(|service| service.logs = Logs::Forward);
        let (before, logs) = (needed(&manifest), 2 * HISTORY_BYTES + SHARE_BYTES);
        manifest.services.pop();
        assert_eq!(before - needed(&manifest), logs, "stdout, stderr and what is said about it");
        manifest.ingress.pop();
        assert_eq!(before - needed(&manifest), logs + FOR_EACH_PORT, "the windows of a port");
        manifest.services.clear();
        manifest.ingress.clear();
        assert_eq!(needed(&manifest), OTHER_SHARES * SHARE_BYTES, "what the supervisor says about itself");
    }
}
