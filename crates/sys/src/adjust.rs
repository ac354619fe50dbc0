//! Corrections of the system's clock (`adjtimex(2)`).
//!
//! Invariant: amounts are nanoseconds. The kernel limits how fast a correction is made: 500 millionths (`MAX_TICKADJ` of
//! `kernel/time/ntp.c`).

#![expect(unsafe_code, reason = "neither rustix nor std corrects a clock")]

use std::io;

const NANOS_PER_MICRO: i64 = 1_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Sets the clock: adds `nanos`.
pub fn step(nanos: i64) -> io::Result<()> {
    let mut request = empty();
    request.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    request.time.tv_sec = nanos.div_euclid(NANOS_PER_SECOND);
    // With ADJ_NANO they are nanoseconds, and never negative.
    request.time.tv_usec = nanos.rem_euclid(NANOS_PER_SECOND);
    adjust(&mut request)
}

/// Lets the clock run faster or slower until `nanos`, rounded to microseconds, have been added, instead of what is left of the
/// previous correction.
pub fn slew(nanos: i64) -> io::Result<()> {
    let mut request = empty();
    request.modes = libc::ADJ_OFFSET_SINGLESHOT;
    request.offset = nanos / NANOS_PER_MICRO;
    adjust(&mut request)
}

fn empty() -> libc::timex {
    // SAFETY: a timex consists of integers, for which zeros are valid.
    unsafe { std::mem::zeroed() }
}

fn adjust(request: &mut libc::timex) -> io::Result<()> {
    // Not by the C library, which may make another system call for it: a filter names this one.
    // SAFETY: the kernel reads and writes the timex, whose layout is that of its own `__kernel_timex`, and which outlives the call.
    let state = unsafe { libc::syscall(libc::SYS_adjtimex, std::ptr::from_mut(request)) };
    if state < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_without_privilege_is_refused() {
        // In a thread of its own, which gives up its capability.
        let refused = std::thread::spawn(|| {
            let none = rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            };
            rustix::thread::set_capabilities(None, none).unwrap();
            [step(1_500_000_000), step(-1), slew(-2_000)].map(|result| result.unwrap_err().kind())
        });
        assert_eq!(refused.join().unwrap(), [io::ErrorKind::PermissionDenied; 3]);
    }

    #[test]
    fn the_request_has_the_kernels_size() {
        // `struct __kernel_timex` of `linux/timex.h`.
        assert_eq!(size_of::<libc::timex>(), 208);
    }

    #[test]
    fn an_invalid_request_is_an_error() {
        let mut request = empty();
        request.modes = libc::ADJ_TICK;
        request.tick = 1;
        let error = adjust(&mut request).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM)), "{error}");
    }
}
