//! Exit codes of `host-sleeve run`: the service's own, or one of Cloister's.

/// The enclave is not the one that was expected: `run --verify` ended it. Below the codes that `timeout(1)` and docker use.
pub const NOT_VERIFIED: u8 = 123;

/// A wait of the sleeve timed out: the same code as `timeout(1)`.
pub const TIMED_OUT: u8 = 124;

/// Cloister itself failed; the reason is on stderr. The same code as `docker run`.
pub const OUR_FAILURE: u8 = 125;

/// Added by shells to the number of the signal that terminated a process.
pub const SIGNAL_BASE: u8 = 128;

/// The exit code of a process terminated by `signal`, as shells report it; signals over 127 do not exist.
#[must_use]
pub const fn for_signal(signal: u8) -> u8 {
    SIGNAL_BASE.saturating_add(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_the_exit_code_that_a_shell_reports() {
        assert_eq!(for_signal(9), 137);
        assert_eq!(for_signal(15), 143);
        assert_eq!(for_signal(255), 255);
    }
}
