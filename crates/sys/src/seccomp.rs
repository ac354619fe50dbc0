//! A system call filter for the calling thread and its descendants (seccomp(2)).
//!
//! Invariant: a program that the kernel accepts is in force when the call returns, and can never be removed. The
//! program decides which calls are denied.

#![expect(unsafe_code, reason = "seccomp(2) has no safe wrapper")]

use std::io;

use libc::{c_ulong, sock_filter, sock_fprog};

/// A classic BPF program in the kernel's form.
#[derive(Debug)]
pub struct Filter {
    instructions: Vec<sock_filter>,
    length: u16,
}

impl Filter {
    /// A program of these instructions, each `code << 48 | jt << 40 | jf << 32 | k`.
    ///
    /// Errors: `InvalidInput` for more than 65,535 of them.
    pub fn new(program: &[u64]) -> io::Result<Self> {
        let instructions: Vec<sock_filter> = program.iter().map(|word| decode(*word)).collect();
        let length = u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { instructions, length })
    }

    /// Installs the filter. This is a single system call; no memory is freed after it.
    ///
    /// Errors: `EINVAL` for a program that is invalid, empty or over 4096 instructions; `EACCES` without
    /// no-new-privileges.
    pub fn install(&mut self) -> io::Result<()> {
        let program = sock_fprog { len: self.length, filter: self.instructions.as_mut_ptr() };
        let (mode, flags): (c_ulong, c_ulong) = (c_ulong::from(libc::SECCOMP_SET_MODE_FILTER), 0);
        // SAFETY: `program` refers to `length` live instructions, which the kernel only reads.
        match unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Installs a program: [`Filter::new`], then [`Filter::install`].
///
/// Errors: those of the two.
pub fn install(program: &[u64]) -> io::Result<()> {
    Filter::new(program)?.install()
}

fn decode(word: u64) -> sock_filter {
    let [c1, c0, jt, jf, k3, k2, k1, k0] = word.to_be_bytes();
    sock_filter { code: u16::from_be_bytes([c1, c0]), jt, jf, k: u32::from_be_bytes([k3, k2, k1, k0]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_decoded_from_its_packed_form() {
        let jump = decode(0x0015_0203_0000_0029);
        assert_eq!((jump.code, jump.jt, jump.jf, jump.k), (0x15, 2, 3, 41));
    }

    #[test]
    fn a_program_is_in_force_for_the_thread_that_installs_it() {
        // ld nr; jeq getppid → errno 99; allow.
        let program = [
            0x0020_0000_0000_0000,
            0x0015_0001_0000_0000 | u64::try_from(libc::SYS_getppid).unwrap(),
            0x0006_0000_0005_0063,
            0x0006_0000_7fff_0000,
        ];
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            install(&program).unwrap();
            // SAFETY: getppid takes no arguments and can only fail because of the filter.
            let result = unsafe { libc::syscall(libc::SYS_getppid) };
            assert_eq!((result, io::Error::last_os_error().raw_os_error()), (-1, Some(99)));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn an_empty_program_is_refused() {
        assert_eq!(install(&[]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
