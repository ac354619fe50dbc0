//! Stage `lockdown`: settings of the running kernel, as a table, each written and read back.
//!
//! Invariant: a setting that does not read back as written stops the boot. Options that can be fixed when the kernel is built
//! are fixed there (kernel-config/hardening.config), and are not repeated here.

use std::fs;
use std::io;

use super::{Boot, BootError};

/// One line of the table: the file, the value, and whether this kernel may lack it.
struct Setting {
    path: &'static str,
    value: &'static str,
    optional: bool,
}

const fn required(path: &'static str, value: &'static str) -> Setting {
    Setting { path, value, optional: false }
}

const fn optional(path: &'static str, value: &'static str) -> Setting {
    Setting { path, value, optional: true }
}

const SETTINGS: [Setting; 23] = [
    // Kernel addresses are hidden from everyone, its log from all but root.
    required("/proc/sys/kernel/kptr_restrict", "2"),
    required("/proc/sys/kernel/dmesg_restrict", "1"),
    // The kernel logs the registers at a fatal signal: the name of a refused system call comes from there.
    required("/proc/sys/kernel/print-fatal-signals", "1"),
    // A program that changed users leaves no core dump.
    required("/proc/sys/fs/suid_dumpable", "0"),
    // Links and files of others in shared directories are not followed or written (Documentation/admin-guide/sysctl/fs.rst).
    required("/proc/sys/fs/protected_symlinks", "1"),
    required("/proc/sys/fs/protected_hardlinks", "1"),
    required("/proc/sys/fs/protected_fifos", "2"),
    required("/proc/sys/fs/protected_regular", "2"),
    // Only a parent may trace its child.
    optional("/proc/sys/kernel/yama/ptrace_scope", "1"),
    optional("/proc/sys/kernel/perf_event_paranoid", "3"),
    optional("/proc/sys/vm/unprivileged_userfaultfd", "0"),
    // Fields over 22 bits of process ids break some programs; fewer would run out under load.
    required("/proc/sys/kernel/pid_max", "4194304"),
    // As containers expect: any user may bind any port and send pings; there is no other service to take a port from.
    required("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    required("/proc/sys/net/ipv4/ping_group_range", "0\t2147483647"),
    // Databases and runtimes map more areas than the default of 65530 (Elasticsearch documents 262144).
    required("/proc/sys/vm/max_map_count", "262144"),
    // A leak in one service must not exhaust the descriptors of all: each service's files are bounded by its limit and by its
    // memory, to which they are charged (systemd does the same, NEWS of version 240).
    required("/proc/sys/fs/file-max", "9223372036854775807"),
    // These are counted per user or globally, across services: one service could take them from the others, and those of root
    // from the supervisor. Each is charged to the memory of the service that has it, which is its limit. Kernel AIO is not
    // among them: its requests are charged to no cgroup (`aio_get_req` of fs/aio.c), so its global limit of 65,536 stays.
    required("/proc/sys/fs/inotify/max_user_instances", "2147483647"),
    required("/proc/sys/fs/inotify/max_user_watches", "2147483647"),
    required("/proc/sys/fs/fanotify/max_user_groups", "2147483647"),
    required("/proc/sys/fs/fanotify/max_user_marks", "2147483647"),
    required("/proc/sys/fs/epoll/max_user_watches", "9223372036854775807"),
    // No limit: beyond it a pipe is smaller than programs expect (pipe(7)).
    required("/proc/sys/fs/pipe-user-pages-soft", "0"),
    // Each service's terminals are bounded where they are mounted (spawn/view.rs).
    required("/proc/sys/kernel/pty/max", "1048576"),
];

/// Applies the table, and makes ctrl-alt-del send SIGINT to PID 1 instead of restarting the machine.
pub fn apply(_: &mut Boot) -> Result<String, BootError> {
    for setting in &SETTINGS {
        match write(setting) {
            Err(BootError::Path(_, error)) if setting.optional && error.kind() == io::ErrorKind::NotFound => {
            }
            result => result?,
        }
    }
    rustix::system::reboot(rustix::system::RebootCommand::CadOff)
        .map_err(|error| BootError::Kernel("cannot catch ctrl-alt-del", error.into()))?;
    Ok(String::new())
}

fn write(setting: &Setting) -> Result<(), BootError> {
    let path = setting.path;
    // Opened without creating: a missing setting must be reported as missing, not as refused by the file system.
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
