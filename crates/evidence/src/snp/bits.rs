//! The bit fields of a report: guest policy, platform information and key information.
//!
//! Invariant: a value keeps all of its bits, also those that this release has no name for.
//!
//! Source: AMD 56860 (SEV Secure Nested Paging Firmware ABI), revision 1.58, sections 4.3 and 7.3.

use alloc::string::String;

use crate::flags;

/// The policy that the guest was launched with. The host chooses it, unless an identity block fixes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// Simultaneous multithreading may be enabled on the host.
    pub const SMT: u64 = 1 << 16;
    /// Must be one in every policy.
    pub const RESERVED_ONE: u64 = 1 << 17;
    /// A migration agent may be associated with the guest.
    pub const MIGRATE_MA: u64 = 1 << 18;
    /// The host may read and write the guest's memory and registers.
    pub const DEBUG: u64 = 1 << 19;
    /// The guest may be activated on one socket only.
    pub const SINGLE_SOCKET: u64 = 1 << 20;
    /// CXL devices and memory may be present.
    pub const CXL: u64 = 1 << 21;
    /// Memory must be encrypted with AES-256 in XTS mode.
    pub const MEM_AES_256_XTS: u64 = 1 << 22;
    /// Running average power limiting, a side channel, must be disabled.
    pub const RAPL_DISABLED: u64 = 1 << 23;
    /// Ciphertext of guest memory must be hidden from the host.
    pub const CIPHERTEXT_HIDING: u64 = 1 << 24;
    /// The host may not move or swap the guest's pages.
    pub const PAGE_SWAP_DISABLED: u64 = 1 << 25;

    /// Bits whose meaning this release knows; the ABI version is in the lowest sixteen.
    pub const KNOWN: u64 = 0x03ff_ffff;

    /// The oldest firmware ABI that the guest runs on: major and minor version.
    #[must_use]
    pub const fn minimum_abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }

    /// Whether all of `bits` are set.
    #[must_use]
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// The names of all bits that are set in `bits`.
    #[must_use]
    pub fn names(bits: u64) -> String {
        flags::names(bits, &POLICY_NAMES)
    }

    /// The bit of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<u64> {
        flags::of_name(name, &POLICY_NAMES)
    }
}

const POLICY_NAMES: [(u64, &str); 10] = [
    (GuestPolicy::SMT, "SMT"),
    (GuestPolicy::RESERVED_ONE, "bit 17"),
    (GuestPolicy::MIGRATE_MA, "MIGRATE_MA"),
    (GuestPolicy::DEBUG, "DEBUG"),
    (GuestPolicy::SINGLE_SOCKET, "SINGLE_SOCKET"),
    (GuestPolicy::CXL, "CXL_ALLOW"),
    (GuestPolicy::MEM_AES_256_XTS, "MEM_AES_256_XTS"),
    (GuestPolicy::RAPL_DISABLED, "RAPL_DIS"),
    (GuestPolicy::CIPHERTEXT_HIDING, "CIPHERTEXT_HIDING"),
    (GuestPolicy::PAGE_SWAP_DISABLED, "PAGE_SWAP_DISABLE"),
];

/// What the firmware states about the platform at the time of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    /// Simultaneous multithreading is enabled.
    pub const SMT: u64 = 1;
    /// Transparent memory encryption is enabled.
    pub const TSME: u64 = 1 << 1;
    /// Memory has error correction.
    pub const ECC: u64 = 1 << 2;
    /// Running average power limiting is disabled.
    pub const RAPL_DISABLED: u64 = 1 << 3;
    /// Ciphertext hiding is enabled.
    pub const CIPHERTEXT_HIDING: u64 = 1 << 4;
    /// No aliased memory addresses were found since the last reset.
    pub const ALIAS_CHECK_COMPLETE: u64 = 1 << 5;
    /// Trusted I/O is enabled.
    pub const TIO: u64 = 1 << 7;

    /// Bits whose meaning this release knows.
    pub const KNOWN: u64 = 0xbf;

    /// The names of all bits that are set in `bits`.
    #[must_use]
    pub fn names(bits: u64) -> String {
        flags::names(bits, &PLATFORM_NAMES)
    }

    /// The bit of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<u64> {
        flags::of_name(name, &PLATFORM_NAMES)
    }
}

const PLATFORM_NAMES: [(u64, &str); 7] = [
    (PlatformInfo::SMT, "SMT_EN"),
    (PlatformInfo::TSME, "TSME_EN"),
    (PlatformInfo::ECC, "ECC_EN"),
    (PlatformInfo::RAPL_DISABLED, "RAPL_DIS"),
    (PlatformInfo::CIPHERTEXT_HIDING, "CIPHERTEXT_HIDING_EN"),
    (PlatformInfo::ALIAS_CHECK_COMPLETE, "ALIAS_CHECK_COMPLETE"),
    (PlatformInfo::TIO, "TIO_EN"),
];

/// Which key signed the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// The versioned chip endorsement key: derived from a secret of the chip.
    Vcek,
    /// The versioned loaded endorsement key: given to a cloud provider by AMD.
    Vlek,
    /// The report is not signed.
    None,
    /// A value that this release does not know.
    Unknown(u8),
}

impl SigningKey {
    /// The key's name in AMD's documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
            Self::None => "none",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// How the report was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo(pub u32);

impl KeyInfo {
    /// Bits whose meaning this release knows.
    pub const KNOWN: u32 = 0x1f;

    /// Whether the report contains the digest of an author key.
    #[must_use]
    pub const fn author_key(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether the host forbids the chip's key: the firmware then writes zeros instead of a signature by the VCEK.
    #[must_use]
    pub const fn mask_chip_key(self) -> bool {
        self.0 & 2 != 0
    }

    /// The key that signed the report.
    #[must_use]
    pub const fn signing_key(self) -> SigningKey {
        let [low, ..] = self.0.to_le_bytes();
        match low >> 2 & 7 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => SigningKey::None,
            other => SigningKey::Unknown(other),
        }
    }
}
