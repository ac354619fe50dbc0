//! Receives signals from a descriptor instead of by handlers, and sends signals by number.
//!
//! Invariant: no handler is ever installed. All signals are blocked and then read from a descriptor (signalfd(2)), so
//! that a signal is an event like any other.

#![expect(
    unsafe_code,
    reason = "neither std nor rustix can set a signal mask, create a signalfd or send a realtime signal"
)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{c_int, sigset_t};
use rustix::process::Pid;

/// The descriptor from which blocked signals are read.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// Size of one record (`struct signalfd_siginfo`, `linux/signalfd.h`); the signal number is its first field.
const RECORD: usize = 128;

impl Signals {
    /// Blocks all signals and creates the descriptor.
    pub fn take_all() -> io::Result<Self> {
        let all = mask(libc::sigfillset)?;
        set_mask(libc::SIG_SETMASK, &all)?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the mask is initialised and only read; -1 requests a new descriptor.
        let fd = check(unsafe { libc::signalfd(-1, &raw const all, flags) })?;
        // SAFETY: the kernel just created this descriptor, and it has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The number of the next pending signal, or `None`. Several pending signals with the same number count as one.
    pub fn next(&self) -> io::Result<Option<u32>> {
        let mut record = [0u8; RECORD];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut record)) {
            Ok(_) => Ok(record.first_chunk().map(|number| u32::from_ne_bytes(*number))),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Restores what a program expects after exec: no blocked signals, and the default action of `SIGPIPE`, which Rust's
/// runtime ignores.
pub fn restore_defaults() -> io::Result<()> {
    // SAFETY: the default disposition runs no code of this program.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    set_mask(libc::SIG_SETMASK, &mask(libc::sigemptyset)?)
}

/// Sends a signal by its number. This includes realtime signals, which rustix cannot name (signal(7): `SIGRTMIN+3` in a
/// manifest is 37).
///
/// Errors: `EINVAL` for an invalid signal number, `ESRCH` if the process does not exist, `EPERM`.
pub fn send(to: Pid, signal: u8) -> io::Result<()> {
    // SAFETY: a signal changes nothing of this process's memory; the kernel checks the number.
    check(unsafe { libc::kill(to.as_raw_nonzero().get(), c_int::from(signal)) })?;
    Ok(())
}

/// Sends a signal to the process that the pidfd `to` refers to (`pidfd_open(2)`), never to another process that reused
/// its PID.
///
/// Errors: as [`send`].
pub fn send_by(to: impl AsFd, signal: u8) -> io::Result<()> {
    let (fd, signal, no_info) = (to.as_fd().as_raw_fd(), c_int::from(signal), ptr::null::<libc::siginfo_t>());
    // SAFETY: with a null siginfo the call takes integers only; the kernel checks them.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mask(fill: unsafe extern "C" fn(*mut sigset_t) -> c_int) -> io::Result<sigset_t> {
    let mut set = MaybeUninit::<sigset_t>::zeroed();
    // SAFETY: the pointer is to the storage of a sigset_t, which both functions initialise.
    check(unsafe { fill(set.as_mut_ptr()) })?;
    // SAFETY: initialised just above, and zeroed before.
    Ok(unsafe { set.assume_init() })
}

fn set_mask(how: c_int, set: &sigset_t) -> io::Result<()> {
    // SAFETY: the mask is initialised and only read; the old mask is not requested.
    check(unsafe { libc::sigprocmask(how, set, ptr::null_mut()) })?;
    Ok(())
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

const _: () = assert!(size_of::<libc::signalfd_siginfo>() == RECORD, "the kernel's record has another size");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_by_its_number() {
        // On a thread of its own: the mask is per thread, and so is a signal sent to it.
        std::thread::spawn(|| {
            let signals = Signals::take_all().unwrap();
            assert_eq!(signals.next().unwrap(), None);
            let me = rustix::thread::gettid();
            // SAFETY: sends a signal that this thread blocks.
            let sent = unsafe { libc::syscall(libc::SYS_tkill, me.as_raw_nonzero().get(), libc::SIGUSR1) };
            assert_eq!(sent, 0);
            assert_eq!(signals.next().unwrap(), Some(10));
            restore_defaults().unwrap();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_realtime_signal_is_sent_by_its_number() {
        use std::os::unix::process::ExitStatusExt;
        for signal in [34, 37, 64] {
            let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            send(Pid::from_child(&child), signal).unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(i32::from(signal)));
        }
    }

    #[test]
    fn a_signal_by_descriptor_reaches_its_process_only() {
        use std::os::unix::process::ExitStatusExt;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let flags = rustix::process::PidfdFlags::empty();
        let fd = rustix::process::pidfd_open(Pid::from_child(&child), flags).unwrap();
        send_by(&fd, 37).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(37));
        assert_eq!(send_by(&fd, 37).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn an_invalid_signal_number_is_refused() {
        let error = send(rustix::process::getpid(), 65).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
