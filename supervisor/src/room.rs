//! The memory that the supervisor needs for the manifest's services, beside what it always needs.
//!
//! Its law: what grows with the manifest is counted from the manifest, and init keeps the services from taking it.

use cloister_manifest::model::Manifest;
use cloister_wire::logs::{INDEX_BYTES, RING_BYTES};

use crate::logs;

/// For each memfd of the logs: a ring and the index of it, filled by whoever talks most.
const FOR_EACH_LOG: u64 = RING_BYTES + INDEX_BYTES;

/// For each port of ingress: sixteen connections whose host sends faster than the service reads, each with a full window of
/// the kernel's vsock (256 KiB, `VIRTIO_VSOCK_DEFAULT_BUF_SIZE`). More than that at once fall back on what is free.
const FOR_EACH_PORT: u64 = 16 * 256 * 1024;

/// Bytes that the services may not take.
#[must_use]
pub fn needed(manifest: &Manifest) -> u64 {
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let logs = count(logs::stash_names(&manifest.services).len());
    let ports = count(manifest.ingress.len());
    logs.saturating_mul(FOR_EACH_LOG).saturating_add(ports.saturating_mul(FOR_EACH_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_manifest::model::Logs;

    #[test]
    fn what_is_kept_grows_with_services_and_ports() {
        let full = include_bytes!("../../crates/manifest/testdata/full.json");
        let mut manifest = Manifest::from_json(full).unwrap();
        manifest.services.iter_mut().for_each(|service| service.logs = Logs::Forward);
        let before = needed(&manifest);
        manifest.services.pop();
        assert_eq!(before - needed(&manifest), 2 * FOR_EACH_LOG, "stdout and stderr");
        manifest.ingress.pop();
        assert_eq!(before - needed(&manifest), 2 * FOR_EACH_LOG + FOR_EACH_PORT, "the windows of a port");
        manifest.services.clear();
        manifest.ingress.clear();
        assert_eq!(needed(&manifest), FOR_EACH_LOG, "the supervisor's own log");
    }
}
