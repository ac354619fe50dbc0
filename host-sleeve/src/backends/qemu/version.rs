//! QEMU versions.
//!
//! Invariant: a version that is too old is refused before anything is started.

use std::fmt;

/// A QEMU version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    /// Major number.
    pub(crate) major: u32,
    /// Minor number.
    pub(crate) minor: u32,
}

/// The oldest QEMU that is tested: Debian 12's.
pub(crate) const OLDEST: Version = Version { major: 7, minor: 2 };

impl Version {
    /// Parses the output of `qemu-system-… --version`: `QEMU emulator version 7.2.22 (Debian …)`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.lines().next()?.strip_prefix("QEMU emulator version ")?;
        let number = rest.split([' ', '(']).next()?;
        let mut parts = number.split('.');
        Some(Self { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_parsed_from_qemus_output() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022";
        assert_eq!(Version::parse(debian), Some(Version { major: 7, minor: 2 }));
        assert_eq!(Version::parse("QEMU emulator version 10.0.2"), Some(Version { major: 10, minor: 0 }));
        assert_eq!(Version::parse("QEMU emulator"), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn newer_is_greater() {
        assert!(Version { major: 10, minor: 0 } > Version { major: 9, minor: 2 });
        assert!(OLDEST < Version { major: 7, minor: 10 });
    }
}
