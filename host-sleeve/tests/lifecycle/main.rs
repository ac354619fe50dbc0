//! The lifecycle of an enclave as a user of `host-sleeve` sees it, tested with a simulated guest.
//!
//! Invariant: `host-sleeve` is the real program, started as a user would start it; only QEMU and its vsock device are simulated,
//! by this test program under their names. So each test takes milliseconds, and needs neither a kernel nor an image builder.
//! Real guests are tested by `qemu-tests`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot continue should stop where it failed"
)]

mod attestor;
mod fixture;
mod guest;
mod machine;
mod termination;
mod tests;

use std::os::unix::process::CommandExt;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let name = std::env::args().next().unwrap_or_default();
    match name.rsplit('/').next() {
        Some(machine::QEMU) => machine::qemu(),
        Some(machine::VSOCK) => guest::vsock_device(),
        _ => {
            restore_signals();
            let trial = |(name, test): &'static (&'static str, fn())| {
                Trial::test(*name, move || {
                    test();
                    Ok(())
                })
            };
            libtest_mimic::run(&Arguments::from_args(), tests::ALL.iter().map(trial).collect()).exit();
        }
    }
}

/// Restarts this program if SIGINT or SIGHUP is ignored, as after `nohup` or the `&` of a script: every program under test would
/// inherit that. Only env(1) can reset it, since a shell must not.
fn restore_signals() {
    /// SIGHUP and SIGINT in a signal mask (signal(7)).
    const BOTH: u64 = 0b11;
    /// Set for the second start, so that there is no third.
    const AGAIN: &str = "LIFECYCLE_AGAIN";
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(mask.trim(), 16).unwrap() & BOTH;
    if ignored != 0 && std::env::var_os(AGAIN).is_none() {
        let mut again = std::process::Command::new("env");
        again.arg("--default-signal=HUP,INT").arg(std::env::current_exe().unwrap());
        panic!("cannot start env(1): {}", again.args(std::env::args_os().skip(1)).env(AGAIN, "1").exec());
    }
}
