//! The memory that the supervisor needs for the manifest's services, in addition to what it always needs.
//!
//! Invariant: the part that grows with the manifest is computed from the manifest, and init reserves it: services
//! cannot use it.

use cloister_manifest::model::{Logs, Manifest};
use cloister_wire::logs;

/// For each ingress port: sixteen connections whose host sends faster than the service reads, each with a full window
/// of the kernel's vsock (256 KiB, `VIRTIO_VSOCK_DEFAULT_BUF_SIZE`). More connections at once use free memory.
const FOR_EACH_PORT: u64 = 16 * 256 * 1024;

/// The idle gateway, and the connections of a small enclave. Its limit is several times that: the memory beyond this is
/// shared with the services, like the supervisor's.
const GATEWAY: u64 = 4 * 1024 * 1024;

/// The attestor: 852 KiB were measured with as many of the longest requests as one service can send at once, and as much
/// again is for the kernel's objects and other services; a full event log takes 1 MiB, in its memory and in what init
/// holds. Its limit is several times that.
const ATTESTOR: u64 = 3 * 1024 * 1024;

/// The terminator: itself and a hundred connections after their handshakes. Its limit is several times that.
const TERMINATOR: u64 = 3 * 1024 * 1024;

/// Bytes that the services must not use.
#[must_use]
pub fn needed(manifest: &Manifest) -> u64 {
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let forwarding = manifest.services.iter().filter(|service| service.logs == Logs::Forward).count();
    let ports = count(manifest.ingress.len()).saturating_add(u64::from(manifest.attestation.port.is_some()));
    let (gateway, attestor) = (u64::from(ports > 0), u64::from(manifest.attestation.is_used()));
    let terminator = u64::from(manifest.attestation.port.is_some());
    let servants = gateway.saturating_add(attestor).saturating_add(terminator);
    // As if every history were full. A servant has the same logs as a service whose output is stored.
    logs::memory(
        count(manifest.services.len()).saturating_add(servants),
        count(forwarding).saturating_add(servants),
    )
    .saturating_add(ports.saturating_mul(FOR_EACH_PORT))
    .saturating_add(gateway.saturating_mul(GATEWAY))
    .saturating_add(attestor.saturating_mul(ATTESTOR))
    .saturating_add(terminator.saturating_mul(TERMINATOR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_wire::logs::{HISTORY_BYTES, OTHER_SHARES, SHARE_BYTES};

    #[test]
    fn the_reserved_memory_grows_with_services_and_ports() {
        let full = include_bytes!("../../crates/manifest/testdata/full.json");
        let mut manifest = Manifest::from_json(full).unwrap();
        manifest.services.iter_mut().for_each(|service| service.logs = Logs::Forward);
        let (before, logs) = (needed(&manifest), 2 * HISTORY_BYTES + SHARE_BYTES);
        manifest.services.pop();
        assert_eq!(before - needed(&manifest), logs, "stdout, stderr and the supervisor's lines about it");
        manifest.ingress.pop();
        assert_eq!(before - needed(&manifest), logs + FOR_EACH_PORT, "the windows of a port");
        let before = needed(&manifest);
        manifest.attestation.port = None;
        let without = needed(&manifest);
        assert_eq!(
            before - without,
            logs + FOR_EACH_PORT + TERMINATOR,
            "the port, the terminator and its logs"
        );
        let before = without;
        manifest.attestation.services.clear();
        assert_eq!(before - needed(&manifest), logs + ATTESTOR, "the attestor and its logs");
        manifest.services.clear();
        manifest.ingress.clear();
        assert_eq!(needed(&manifest), OTHER_SHARES * SHARE_BYTES, "the supervisor's lines about itself");
    }
}
