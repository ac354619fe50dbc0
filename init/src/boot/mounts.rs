//! Stages `mounts` and `console`: the file systems that everything else needs, as a table.
//!
//! Invariant: every mount is checked, and none allows more than its use needs. The application's root is not mounted here but
//! by stage `root`.

use std::fs;
use std::io;

use rustix::mount::{MountFlags, mount_bind_recursive, mount_move};

use super::{Boot, BootError};

/// One line of the mount table.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: &'static str,
    /// Whether the machine works without it: the kernel of this platform may not have it.
    optional: bool,
}

/// No programs, no devices and no set-user-ID files.
const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// In order. `/run` and `/tmp` are for the system's own small files: 16 MiB is more than they need.
const MOUNTS: [Mount; 7] = [
    Mount { kind: "proc", target: "/proc", flags: SAFE, data: "", optional: false },
    Mount { kind: "sysfs", target: "/sys", flags: SAFE, data: "", optional: false },
    Mount {
        kind: "devtmpfs",
        target: "/dev",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: "mode=0755",
        optional: false,
    },
    Mount { kind: "tmpfs", target: "/run", flags: SAFE, data: "mode=0755,size=16m", optional: false },
    Mount { kind: "tmpfs", target: "/tmp", flags: SAFE, data: "mode=1777,size=16m", optional: false },
    Mount { kind: "cgroup2", target: "/sys/fs/cgroup", flags: SAFE, data: "", optional: false },
    // Evidence on TDX and SNP; a kernel for Nitro has no use for it.
    Mount { kind: "configfs", target: "/sys/kernel/config", flags: SAFE, data: "", optional: true },
];

/// Mounts the table.
pub fn mount(_: &mut Boot) -> Result<String, BootError> {
    leave_rootfs().map_err(|error| BootError::Mount("/ over the kernel's own root", error))?;
    for mount in &MOUNTS {
        match attach(mount) {
            Err(error) if mount.optional && is_absent(&error) => {}
            result => result.map_err(|error| BootError::Mount(mount.target, error))?,
        }
    }
    Ok(String::new())
}

/// Opens the console, now that its device exists.
pub fn console(boot: &mut Boot) -> Result<String, BootError> {
    boot.console.open();
    Ok(String::new())
}

/// Mounts the root over itself. The kernel's first root has no parent mount, so `pivot_root` does not work from it
/// (`pivot_root(2)`, notes on the initial ramfs); with this, each service can leave it for good.
fn leave_rootfs() -> io::Result<()> {
    mount_bind_recursive("/", "/run")?;
    rustix::process::chdir("/run")?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn attach(mount: &Mount) -> io::Result<()> {
    fs::create_dir_all(mount.target)?;
    let data = std::ffi::CString::new(mount.data)?;
    Ok(rustix::mount::mount(mount.kind, mount.target, mount.kind, mount.flags, Some(data.as_c_str()))?)
}

/// This kernel has no such file system, or no mount point for it in sysfs, where directories cannot be created.
fn is_absent(error: &io::Error) -> bool {
    let absent = [rustix::io::Errno::NODEV, rustix::io::Errno::PERM, rustix::io::Errno::NOENT];
    absent.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
