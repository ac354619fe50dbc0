//! Switching the machine off.
//!
//! Its law: it does not come back.

use std::path::Path;

use rustix::system::RebootCommand;

/// There with ACPI tables, and so with a power-off that a machine understands. Without them the kernel would only halt
/// (`kernel/reboot.c`: no `pm_power_off`), and the machine would stand there for ever.
const ACPI: &str = "/sys/firmware/acpi";

/// Powers off; without ACPI restarts, which ends QEMU's microvm (`-no-reboot`) and a Nitro enclave.
pub(super) fn switch_off() -> ! {
    let commands = if Path::new(ACPI).exists() {
        [RebootCommand::PowerOff, RebootCommand::Restart]
    } else {
        [RebootCommand::Restart, RebootCommand::Restart]
    };
    for command in commands {
        // It comes back only when the kernel refuses, and then the next is tried.
        rustix::system::reboot(command).ok();
    }
    loop {
        // Nothing is left that could be done; the host sees a machine that answers nobody.
        rustix::event::poll(&mut [], None).ok();
    }
}
