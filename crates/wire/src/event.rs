//! Events after launch, as they are extended into a measurement register.
//!
//! Invariant: two different events never have the same encoding. Domain, kind and data are each preceded by their
//! length, so that none can be read as part of another.

/// Separates Cloister's events from everything else that may be extended (domain separation).
pub const DOMAIN: &str = "cloister event 1";

/// The register on AWS Nitro that init extends with [`BOOT`] and then locks: the first of those that the hypervisor
/// leaves to the enclave (16 to 31).
pub const BOOT_REGISTER: u16 = 16;

/// The kind of the event that marks the end of init's boot, before anything of the application runs. It has no data:
/// the launch registers measure what was booted.
pub const BOOT: &str = "boot";

/// The encoding of an event.
#[must_use]
pub fn encode(kind: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [DOMAIN.as_bytes(), kind.as_bytes(), data] {
        // Lengths over 4 GiB do not occur: an event has a few hundred bytes.
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_these_bytes() {
        assert_eq!(encode(BOOT, b""), b"\0\0\0\x10cloister event 1\0\0\0\x04boot\0\0\0\0");
    }

    #[test]
    fn moving_a_byte_between_kind_and_data_changes_the_encoding() {
        assert_ne!(encode("a", b"bc"), encode("ab", b"c"));
    }
}
