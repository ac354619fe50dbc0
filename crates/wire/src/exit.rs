//! How `host-sleeve run` ends: the service's own exit, or one of ours.

/// The sleeve gave up waiting: the same code as `timeout(1)`.
pub const TIMED_OUT: u8 = 124;

/// Cloister itself failed; the reason is on stderr. The same code as `docker run`.
pub const OUR_FAILURE: u8 = 125;

/// What a shell adds to the number of the signal that ended a process.
pub const SIGNAL_BASE: u8 = 128;

/// The exit code for a process ended by `signal`, as shells count it; signals past 127 do not exist.
#[must_use]
pub const fn for_signal(signal: u8) -> u8 {
    SIGNAL_BASE.saturating_add(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_death_has_the_code_a_shell_would_report() {
        assert_eq!(for_signal(9), 137);
        assert_eq!(for_signal(15), 143);
        assert_eq!(for_signal(255), 255);
    }
}
