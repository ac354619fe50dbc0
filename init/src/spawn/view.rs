//! The view of a service: the application's root as its own `/`, in a mount namespace of its own.
//!
//! Invariant: the system's root is left for good (`pivot_root`, then detached), so the view contains neither the NSM, nor
//! configfs, nor the manifest, nor another service's temporary files. Nothing is created in the root: the builder created every
//! mount point. `/dev` is a short list, not the machine's devices.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use cloister_sys::process::Child;
use cloister_wire::hold::{Spawn, View};
use rustix::fs::{CWD, FileType, Mode, makedev};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Gid, Uid};

use super::{At, initctl, places};
use crate::hold::Failure;
use crate::root::{ROOT, bounds};

/// One line of the mount table.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: &'static str,
}

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
pub(super) const SAFE_READ_ONLY: MountFlags = SAFE.union(MountFlags::RDONLY);
/// Temporary files may be programs: compilers and runtimes write them there.
const TEMPORARY: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// In order. `{}` is replaced by the bounds derived from the size of the enclave's writable part. Group 5 is `tty` in Debian,
/// and the mode is devpts' usual one. A service has 256 terminals at most: of the 29 KiB of each, the kernel charges 3 to it.
/// The service sees its own cgroup as the root cgroup: runtimes size themselves by it.
const MOUNTS: [Mount; 7] = [
    Mount { kind: "proc", target: "/proc", flags: SAFE, data: "" },
    Mount { kind: "sysfs", target: "/sys", flags: SAFE_READ_ONLY, data: "" },
    Mount { kind: "cgroup2", target: "/sys/fs/cgroup", flags: SAFE_READ_ONLY, data: "" },
    Mount {
        kind: "tmpfs",
        target: "/dev",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: "mode=0755,size=64k",
    },
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: "newinstance,gid=5,mode=0620,ptmxmode=0666,max=256",
    },
    Mount { kind: "tmpfs", target: "/dev/shm", flags: SAFE, data: "mode=1777,{}" },
    Mount { kind: "tmpfs", target: "/tmp", flags: TEMPORARY, data: "mode=1777,{}" },
];

/// Character devices by `Documentation/admin-guide/devices.txt`: none of them gives access to anything outside the service.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Parts of `/proc` through which root, even without capabilities, could change the machine.
const READ_ONLY: [&str; 4] = ["/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs"];

/// Parts of `/sys` that no service needs: tables of the host's firmware.
const HIDDEN: [&str; 1] = ["/sys/firmware"];

/// The service's own directories that are empty at its start.
const EMPTY_AT_START: [&str; 2] = ["/tmp/", "/dev/shm/"];

/// Leaves the system's view for the application's.
pub(super) fn enter(child: &mut Child, view: &View, writable_bytes: u64) -> Result<(), Failure> {
    child.unshare_namespaces(false).at("mounts", "new namespaces")?;
    let program = initctl::take().at("mounts", "initctl")?;
    leave_for(ROOT).at("mounts", ROOT)?;
    for path in &view.pinned {
        places::pin(path).at("mounts", path)?;
    }
    if let Some(writable) = &view.writable {
        places::protect(writable).at("mounts", "read-only root")?;
    }
    for mount in &MOUNTS {
        attach(mount, writable_bytes).at("mounts", mount.target)?;
        if mount.target == "/dev" {
            devices().at("mounts", "/dev")?;
        }
    }
    for path in READ_ONLY {
        seal(path).at("mounts", path)?;
    }
    for path in HIDDEN {
        hide(path).at("mounts", path)?;
    }
    program.as_ref().map_or(Ok(()), initctl::place).at("mounts", "initctl")
}

/// Creates a working directory below a directory that is empty at start, owned by the service's user. No link can be in its
/// path, since no process has used the directory yet. Other working directories exist in the image.
pub(super) fn make_working_dir(view: &View, spec: &Spawn) -> io::Result<()> {
    if !EMPTY_AT_START.iter().any(|directory| view.cwd.starts_with(directory)) {
        return Ok(());
    }
    fs::create_dir_all(&view.cwd)?;
    Ok(rustix::fs::chown(view.cwd.as_str(), Some(Uid::from_raw(spec.uid)), Some(Gid::from_raw(spec.gid)))?)
}

/// Makes `root` the root and detaches the old one (`pivot_root(2)`, section "`pivot_root(".", ".")`").
pub(super) fn leave_for(root: &str) -> io::Result<()> {
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

fn attach(mount: &Mount, writable_bytes: u64) -> io::Result<()> {
    fs::create_dir_all(mount.target)?;
    let data = CString::new(mount.data.replace("{}", &bounds(writable_bytes)))?;
    Ok(rustix::mount::mount(mount.kind, mount.target, mount.kind, mount.flags, data.as_c_str())?)
}

fn devices() -> io::Result<()> {
    for (name, major, minor) in DEVICES {
        let path = Path::new("/dev").join(name);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor))?;
        // The umask applied to the mode above.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    }
    for (name, target) in LINKS {
        symlink(target, Path::new("/dev").join(name))?;
    }
    only_these()
}

/// Makes each device a mount of its own and then mounts `/dev` with nodev: a node that a service with `CAP_MKNOD` creates
/// there, for the NSM for example, cannot be opened, as on every other of its mounts.
fn only_these() -> io::Result<()> {
    for (name, _, _) in DEVICES {
        let path = Path::new("/dev").join(name);
        rustix::mount::mount_bind(&path, &path)?;
    }
    Ok(rustix::mount::mount_remount("/dev", MountFlags::BIND | SAFE, "")?)
}

/// Mounts a directory over itself, read-only.
fn seal(path: &str) -> io::Result<()> {
    if !Path::new(path).exists() {
        return Ok(());
    }
    rustix::mount::mount_bind(path, path)?;
    Ok(rustix::mount::mount_remount(path, MountFlags::BIND | SAFE_READ_ONLY, "")?)
}

fn hide(path: &str) -> io::Result<()> {
    if !Path::new(path).exists() {
        return Ok(());
    }
    Ok(rustix::mount::mount("tmpfs", path, "tmpfs", SAFE_READ_ONLY, c"mode=0555,size=0")?)
}
