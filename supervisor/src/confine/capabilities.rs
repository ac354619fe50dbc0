//! Capabilities by name.
//!
//! Invariant: the names and numbers are those of `linux/capability.h`; an unknown name is an error, never ignored.

/// The number of capabilities.
pub(super) const COUNT: u32 = 41;

/// The capabilities in the order of their numbers, from 0 (`linux/capability.h`, Linux 6.12).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A capability that does not exist.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(pub String);

/// The mask of these capabilities. Names are those of capabilities(7), with or without `CAP_`, in upper or lower case.
pub(super) fn mask(names: &[String]) -> Result<u64, UnknownCapability> {
    names.iter().try_fold(0, |mask, name| Ok(mask | bit(name)?))
}

fn bit(name: &str) -> Result<u64, UnknownCapability> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let number = NAMES.iter().position(|known| *known == bare);
    number
        .and_then(|n| u32::try_from(n).ok())
        .and_then(|n| 1u64.checked_shl(n))
        .ok_or_else(|| UnknownCapability(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mapped_to_the_kernels_numbers() {
        let names =
            ["CAP_CHOWN".to_owned(), "net_bind_service".to_owned(), "CAP_CHECKPOINT_RESTORE".to_owned()];
        assert_eq!(mask(&names).unwrap(), 1 | 1 << 10 | 1 << 40);
        assert_eq!(mask(&[]).unwrap(), 0);
    }

    #[test]
    fn an_unknown_capability_is_refused() {
        let error = mask(&["CAP_EVERYTHING".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "unknown capability \"CAP_EVERYTHING\"");
    }
}
