//! The view of a servant: an empty, read-only root and the descriptors it was given.
//!
//! Invariant: its filter lists every call that it may make, so the filter is installed last, and is followed by a single call:
//! the exec of a descriptor with a fixed number ([`PROGRAM_FD`]). Everything that the exec needs is prepared before the filter.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;

use cloister_sys::process::{Arguments, Child, read_only_copy};
use cloister_sys::seccomp::Filter;
use cloister_sys::signal;
use cloister_wire::hold::PROGRAM_FD;

use super::child::{Order, limit_files, lower, open_files, open_null, place};
use super::view::{SAFE_READ_ONLY, leave_for};
use super::{At, DESCRIPTORS, EXEC, MOUNTS, PROGRAM, begin, exec};
use crate::hold::Failure;

/// Where its root is mounted before it becomes `/`: a directory of ramdisk 1 in the servant's own mount namespace.
const STAGE: &str = "/tmp";

/// One page, the smallest limit (0 is none), and one file, which is the root itself: nothing could be created in it even if it
/// were writable.
const EMPTY: &std::ffi::CStr = c"mode=0555,size=4k,nr_inodes=1";

/// Executes the servant that `order` describes. Returns only on failure.
pub(super) fn execute(
    order: Order<'_>,
    child: &mut Child,
    verdict: &mut OwnedFd,
) -> Result<Infallible, Failure> {
    let spec = order.spec;
    begin(verdict, PROGRAM);
    let (argv, env) = (exec::strings(&spec.argv)?, exec::strings(&spec.env)?);
    let path = spec.argv.first().map_or("", String::as_str);
    let program = read_only_copy(path).and_then(|program| above(&program)).at("exec", path)?;
    let mut descriptors = vec![open_null()?, order.stdout, order.stderr];
    descriptors.extend(order.fds);
    begin(verdict, MOUNTS);
    child.unshare_namespaces(true).at("mounts", "new namespaces")?;
    empty_root().at("mounts", "empty root")?;
    lower(spec, verdict)?;
    begin(verdict, DESCRIPTORS);
    child.stop_after_exec().at("privileges", "stop after exec")?;
    place(child, &descriptors, verdict)?;
    *verdict = above(verdict).at("descriptors", "verdict")?;
    child.take_as(&program, PROGRAM_FD).at("descriptors", path)?;
    limit_files(open_files(spec))?;
    signal::restore_defaults().at("signals", "default actions")?;
    let mut filter = Filter::new(&spec.seccomp).at("seccomp", "filter")?;
    let arguments = Arguments::new(&argv, &env);
    begin(verdict, EXEC);
    if !spec.seccomp.is_empty() {
        filter.install().at("seccomp", "filter")?;
    }
    child.exec_file(PROGRAM_FD, &arguments).at("exec", path)
}

/// A copy with a number above [`PROGRAM_FD`], where it does not collide with the assigned numbers.
fn above(file: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(file, PROGRAM_FD + 1)?)
}

fn empty_root() -> io::Result<()> {
    rustix::mount::mount("tmpfs", STAGE, "tmpfs", SAFE_READ_ONLY, EMPTY)?;
    leave_for(STAGE)
}
