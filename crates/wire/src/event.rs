//! Events after launch, as they are extended into a measurement register.
//!
//! Its law: two different events never have the same bytes. Domain, kind and data each stand behind their length, so that
//! none can be read as a part of another.

/// What sets our events apart from everything else that may be extended.
pub const DOMAIN: &str = "cloister event 1";

/// The register on AWS Nitro that init extends with [`BOOT`] when the machine is locked down, and locks: the first of those
/// that the hypervisor leaves to the enclave (16 to 31).
pub const BOOT_REGISTER: u16 = 16;

/// The kind of the event that init's boot was done, before anything of the application runs. It has no data: what ran is in
/// the registers of the launch.
pub const BOOT: &str = "boot";

/// The bytes that are extended for an event.
#[must_use]
pub fn encode(kind: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [DOMAIN.as_bytes(), kind.as_bytes(), data] {
        // Lengths past 4 GiB do not occur: a register takes events of some hundred bytes.
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
    fn what_moves_between_kind_and_data_is_another_event() {
        assert_ne!(encode("a", b"bc"), encode("ab", b"c"));
    }
}
