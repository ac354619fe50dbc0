//! Powering the machine off.
//!
//! Invariant: it does not return.

use std::path::Path;

use rustix::system::RebootCommand;

/// Exists if the machine has ACPI tables, and so supports a power-off. Without them the kernel would only halt
/// (`kernel/reboot.c`: no `pm_power_off`), and the machine would never exit.
const ACPI: &str = "/sys/firmware/acpi";

/// Powers off; without ACPI restarts, which ends QEMU's microvm (`-no-reboot`) and a Nitro enclave.
pub(super) fn power_off() -> ! {
    let commands = if Path::new(ACPI).exists() {
        [RebootCommand::PowerOff, RebootCommand::Restart]
    } else {
        [RebootCommand::Restart, RebootCommand::Restart]
    };
    for command in commands {
        // It returns only if the kernel refuses; then the next command is tried.
        rustix::system::reboot(command).ok();
    }
    loop {
        // Nothing else can be done; the host sees a machine that does not respond.
        rustix::event::poll(&mut [], None).ok();
    }
}
