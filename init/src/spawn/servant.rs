//! What a servant sees: nothing. An empty root that nobody can write, and the descriptors it was given.
//!
//! Its law: its filter names every call that it may make, so the last thing that happens here is the filter, and after it comes
//! one call, the exec of a descriptor that is known before ([`PROGRAM_FD`]). All that the exec needs is made before the filter.

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

/// Where its root is mounted before it becomes `/`: a folder of ramdisk 1 in the servant's own mount namespace.
const STAGE: &str = "/tmp";

/// One page, the least that is a bound (0 is none), and one file, which is the root itself: nothing can be made in it even if it
/// could be written.
const EMPTY: &std::ffi::CStr = c"mode=0555,size=4k,nr_inodes=1";

/// Becomes the servant that `order` describes.
pub(super) fn become_one(
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
    child.unshare_namespaces(true).at("mounts", "a private view")?;
    empty_root().at("mounts", "an empty root")?;
    lower(spec, verdict)?;
    begin(verdict, DESCRIPTORS);
    child.stop_after_exec().at("privileges", "a stop as the program")?;
    place(child, &descriptors, verdict)?;
    *verdict = above(verdict).at("descriptors", "the verdict")?;
    child.take_as(&program, PROGRAM_FD).at("descriptors", path)?;
    limit_files(open_files(spec))?;
    signal::restore_defaults().at("signals", "their defaults")?;
    let mut filter = Filter::new(&spec.seccomp).at("seccomp", "the filter")?;
    let arguments = Arguments::new(&argv, &env);
    begin(verdict, EXEC);
    if !spec.seccomp.is_empty() {
        filter.install().at("seccomp", "the filter")?;
    }
    child.exec_file(PROGRAM_FD, &arguments).at("exec", path)
}

/// The same under a number above [`PROGRAM_FD`], out of the way of all that get theirs.
fn above(file: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(file, PROGRAM_FD + 1)?)
}

fn empty_root() -> io::Result<()> {
    rustix::mount::mount("tmpfs", STAGE, "tmpfs", SAFE_READ_ONLY, EMPTY)?;
    leave_for(STAGE)
}
