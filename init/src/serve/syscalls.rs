//! Names of system calls, for reports of why a service died.
//!
//! Invariant: it names the calls that filters refuse, Cloister's and those that programs install. Any other call is reported by
//! its number.

use libc::c_long;

macro_rules! names {
    ($($call:ident),* $(,)?) => { &[$((libc::$call, stringify!($call))),*] };
}

/// Calls for which filters of programs may kill: those that change the machine or inspect other processes, and those that
/// sandboxes commonly forbid.
const NAMES: &[(c_long, &str)] = names![
    SYS_acct,
    SYS_add_key,
    SYS_bpf,
    SYS_chroot,
    SYS_clock_settime,
    SYS_clone,
    SYS_clone3,
    SYS_connect,
    SYS_delete_module,
    SYS_execve,
    SYS_execveat,
    SYS_finit_module,
    SYS_fsopen,
    SYS_init_module,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_io_uring_setup,
    SYS_ioctl,
    SYS_kcmp,
    SYS_kexec_load,
    SYS_keyctl,
    SYS_kill,
    SYS_mount,
    SYS_move_mount,
    SYS_open_by_handle_at,
    SYS_open_tree,
    SYS_openat,
    SYS_perf_event_open,
    SYS_pidfd_getfd,
    SYS_pivot_root,
    SYS_prctl,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_ptrace,
    SYS_quotactl,
    SYS_reboot,
    SYS_request_key,
    SYS_setdomainname,
    SYS_sethostname,
    SYS_setns,
    SYS_settimeofday,
    SYS_socket,
    SYS_swapoff,
    SYS_swapon,
    SYS_syslog,
    SYS_umount2,
    SYS_unshare,
    SYS_userfaultfd,
    SYS_vhangup,
];

/// The same for calls that only this architecture has.
#[cfg(target_arch = "x86_64")]
const OWN_NAMES: &[(c_long, &str)] = names![
    SYS_fork,
    SYS_ioperm,
    SYS_iopl,
    SYS_kexec_file_load,
    SYS_modify_ldt,
    SYS_open,
    SYS_uselib,
    SYS_ustat,
    SYS_vfork
];
/// See above.
#[cfg(not(target_arch = "x86_64"))]
const OWN_NAMES: &[(c_long, &str)] = &[];

/// The name of call `number`, or `system call NUMBER`.
pub(super) fn name(number: u64) -> String {
    let known = NAMES.iter().chain(OWN_NAMES).find(|(known, _)| u64::try_from(*known) == Ok(number));
    match known.and_then(|(_, name)| name.strip_prefix("SYS_")) {
        Some(name) => name.to_owned(),
        None => format!("system call {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_name_of_its_manual_page() {
        assert_eq!(name(u64::try_from(libc::SYS_swapon).unwrap()), "swapon");
        assert_eq!(name(u64::try_from(libc::SYS_io_uring_setup).unwrap()), "io_uring_setup");
    }

    #[test]
    fn a_call_without_a_name_is_reported_by_number() {
        assert_eq!(name(9999), "system call 9999");
    }
}
