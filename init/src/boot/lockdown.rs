//! Stage `lockdown`: settings of the running kernel, as a table, each written and read back.
//!
//! Its law: a setting that does not stick stops the boot. What can be fixed when the kernel is built is fixed there
//! (kernel-config/hardening.config), and is not repeated here.

use std::fs;
use std::io;

use super::{Boot, BootError};

/// One line of the table: the file, the value, and whether this kernel may be without it.
struct Setting {
    path: &'static str,
    value: &'static str,
    optional: bool,
}

const fn must(path: &'static str, value: &'static str) -> Setting {
    Setting { path, value, optional: false }
}

const fn may(path: &'static str, value: &'static str) -> Setting {
    Setting { path, value, optional: true }
}

const SETTINGS: [Setting; 23] = [
    // Kernel addresses are for nobody, its log for root.
    must("/proc/sys/kernel/kptr_restrict", "2"),
    must("/proc/sys/kernel/dmesg_restrict", "1"),
    // A deadly signal leaves its registers in the kernel log: the name of a refused system call comes from there.
    must("/proc/sys/kernel/print-fatal-signals", "1"),
    // A program that changed users leaves no memory image.
    must("/proc/sys/fs/suid_dumpable", "0"),
    // Links and files of others in shared folders are not followed or written (Documentation/admin-guide/sysctl/fs.rst).
    must("/proc/sys/fs/protected_symlinks", "1"),
    must("/proc/sys/fs/protected_hardlinks", "1"),
    must("/proc/sys/fs/protected_fifos", "2"),
    must("/proc/sys/fs/protected_regular", "2"),
    // Only a parent may look into its child.
    may("/proc/sys/kernel/yama/ptrace_scope", "1"),
    may("/proc/sys/kernel/perf_event_paranoid", "3"),
    may("/proc/sys/vm/unprivileged_userfaultfd", "0"),
    // Fields over 22 bits of process ids break some programs; fewer would run out under load.
    must("/proc/sys/kernel/pid_max", "4194304"),
    // As containers expect: any user may bind any port and send pings; there is no other service to take a port from.
    must("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    must("/proc/sys/net/ipv4/ping_group_range", "0\t2147483647"),
    // Databases and runtimes map more areas than the default of 65530 (Elasticsearch documents 262144).
    must("/proc/sys/vm/max_map_count", "262144"),
    // One leak must not leave all without descriptors: each service's files are bounded by its limit and its memory, which they
    // are charged to (systemd does the same, NEWS of version 240).
    must("/proc/sys/fs/file-max", "9223372036854775807"),
    // These are counted by user or for all, across services: one service could take them from the others, and those of root from
    // the supervisor. Each is charged to the memory of the service that has it, which is its limit. Kernel AIO is not among them:
    // its requests are charged to nobody (`aio_get_req` of fs/aio.c), so that its limit of 65,536 for all stays.
    must("/proc/sys/fs/inotify/max_user_instances", "2147483647"),
    must("/proc/sys/fs/inotify/max_user_watches", "2147483647"),
    must("/proc/sys/fs/fanotify/max_user_groups", "2147483647"),
    must("/proc/sys/fs/fanotify/max_user_marks", "2147483647"),
    must("/proc/sys/fs/epoll/max_user_watches", "9223372036854775807"),
    // None: beyond it a pipe is smaller than programs count on (pipe(7)).
    must("/proc/sys/fs/pipe-user-pages-soft", "0"),
    // Each service's terminals are bounded where they are mounted (spawn/view.rs).
    must("/proc/sys/kernel/pty/max", "1048576"),
];

/// Applies the table, and keeps the keyboard from restarting the machine: it asks PID 1 instead.
pub fn apply(_: &mut Boot) -> Result<String, BootError> {
    for setting in &SETTINGS {
        match write(setting) {
            Err(BootError::Path(_, error)) if setting.optional && error.kind() == io::ErrorKind::NotFound => {
            }
            result => result?,
        }
    }
    rustix::system::reboot(rustix::system::RebootCommand::CadOff)
        .map_err(|error| BootError::Kernel("taking ctrl-alt-del", error.into()))?;
    Ok(String::new())
}

fn write(setting: &Setting) -> Result<(), BootError> {
    let path = setting.path;
    // Opened without creating: a missing setting must not look like a file system that refuses.
    let mut file =
        fs::OpenOptions::new().write(true).open(path).map_err(|error| BootError::Path(path, error))?;
    io::Write::write_all(&mut file, setting.value.as_bytes())
        .map_err(|error| BootError::Path(path, error))?;
    let found = fs::read_to_string(path).map_err(|error| BootError::Path(path, error))?;
    if found.trim() == setting.value {
        Ok(())
    } else {
        Err(BootError::Setting(path, setting.value, found.trim().to_owned()))
    }
}
