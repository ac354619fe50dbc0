//! Child processes that die with their parent.
//!
//! Invariant: a child prepared here is killed as soon as the thread that started it exits, for any reason. Callers wait
//! for the child.

#![expect(
    unsafe_code,
    reason = "`pre_exec` runs code between fork and exec, where only some calls are sound"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes `command`'s child the leader of a new process group, which the kernel kills with SIGKILL when the calling
/// thread exits (`PR_SET_PDEATHSIG`, prctl(2)). The child inherits the descriptors in `keep` under the same numbers.
///
/// The signal follows the *thread*: call this and spawn from a thread that lives as long as the child may, which the
/// main thread does. A program that gains privileges by set-user-ID loses the setting.
///
/// The spawn fails with `ESRCH` if the parent exits before the setting takes effect, and with the error of `fcntl(2)`
/// if a descriptor cannot be inherited.
pub fn dies_with_parent(command: &mut Command, keep: Vec<OwnedFd>) {
    let parent = getpid();
    let prepare = move || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        for fd in &keep {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        Ok(())
    };
    command.process_group(0);
    // SAFETY: `prepare` makes three kinds of system call on values it owns; it neither allocates nor takes a lock, so
    // it is sound in the child of a fork of a process with many threads. This function contains all of its code.
    unsafe {
        command.pre_exec(prepare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::process::Stdio;

    #[test]
    fn a_child_is_killed_when_the_thread_that_started_it_exits() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped());
            dies_with_parent(&mut command, Vec::new());
            command.spawn().unwrap()
        })
        .join()
        .unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn an_inherited_descriptor_has_the_same_number_in_the_child() {
        let (reader, mut writer) = io::pipe().unwrap();
        let fd = OwnedFd::from(reader);
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut command = Command::new("cat");
        command.arg(path).stdout(Stdio::piped());
        dies_with_parent(&mut command, vec![fd]);
        let mut child = command.spawn().unwrap();
        writer.write_all(b"kept").unwrap();
        drop(writer);
        drop(command);
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
        assert!(child.wait().unwrap().success());
    }
}
