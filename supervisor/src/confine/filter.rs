//! The seccomp filter of a service, as a classic BPF program.
//!
//! Invariant: a call in the table is refused unless the manifest allows it, all others are allowed, and a call with
//! another architecture's numbers kills. `seccompiler` generates the programs; each has a single result, so one program
//! per result is generated and they are chained: where one would allow a call, the next one starts.

use std::collections::BTreeMap;

use cloister_wire::causes::REPORT;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::allowed::Allowed;
use super::denied::{Answer, DENIED};

/// `socket`, with which a manifest allows `AF_VSOCK` and the socket diagnosis: a service with these bypasses every
/// policy at the enclave's boundary.
const SOCKET: &str = "socket";

/// `BPF_RET | BPF_K` (`linux/bpf_common.h`).
const RETURN: u16 = 0x06;

/// `BPF_JMP | BPF_JA`: skips `k` instructions.
const JUMP: u16 = 0x05;

/// `SECCOMP_RET_ALLOW` (`linux/seccomp.h`).
pub(super) const ALLOW: u32 = 0x7FFF_0000;

pub(super) type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// A filter that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The manifest allows a system call that the filter does not refuse.
    #[error("{0:?} is not a system call that the default filter refuses")]
    Unknown(String),
    /// The machine's architecture has no filter.
    #[error("internal error: cannot build a filter for this architecture; {REPORT}")]
    Compile(#[from] seccompiler::BackendError),
    /// The parts cannot be chained.
    #[error("internal error: cannot chain the parts of the filter; {REPORT}")]
    Chain,
}

/// The filter for a service whose manifest allows the calls in `allowed`, encoded for
/// [`cloister_wire::hold::Spawn::seccomp`].
pub(super) fn compile(allowed: &[String]) -> Result<Vec<u64>, FilterError> {
    let is_known = |name: &&String| *name == SOCKET || DENIED.iter().any(|row| row.name == **name);
    if let Some(unknown) = allowed.iter().find(|name| !is_known(name)) {
        return Err(FilterError::Unknown(unknown.clone()));
    }
    let mut program = BpfProgram::new();
    for (rules, action) in parts(allowed)? {
        if !rules.is_empty() {
            chain(&mut program, rules, SeccompAction::Allow, action)?;
        }
    }
    Ok(encode(&program))
}

/// The filter for a servant: only these calls are allowed.
pub(super) fn allow(calls: &[&[Allowed]]) -> Result<Vec<u64>, FilterError> {
    let rules = calls.iter().copied().flatten().map(Allowed::rule).collect::<Result<Rules, FilterError>>()?;
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let (allowed, other) = (SeccompAction::Allow, SeccompAction::KillProcess);
    let program: BpfProgram = SeccompFilter::new(rules, other, allowed, arch)?.try_into()?;
    Ok(program.iter().map(encode_one).collect())
}

/// The results and their calls.
fn parts(allowed: &[String]) -> Result<Vec<(Rules, SeccompAction)>, FilterError> {
    let refused = |answer: Answer| -> Rules {
        let rows = DENIED.iter().filter(|row| row.answer == answer && !allowed.iter().any(|a| a == row.name));
        rows.map(|row| (row.number, Vec::new())).collect()
    };
    let mut not_permitted = refused(Answer::NotPermitted);
    not_permitted.extend(limits_of_others()?);
    let mut parts = vec![
        (refused(Answer::Kill), SeccompAction::KillProcess),
        (not_permitted, errno(libc::EPERM)),
        (refused(Answer::NotImplemented), errno(libc::ENOSYS)),
    ];
    if !allowed.iter().any(|name| name == SOCKET) {
        // The same as on a kernel without vsock, which every program that tries it must handle.
        parts.push((vsock()?, errno(libc::EAFNOSUPPORT)));
        parts.push((socket_diagnosis()?, errno(libc::EPROTONOSUPPORT)));
    }
    Ok(parts)
}

/// All calls of the table, regardless of their result: the supervisor uses none of them.
pub(super) fn never_used() -> Rules {
    DENIED.iter().map(|row| (row.number, Vec::new())).collect()
}

/// `socket(AF_VSOCK, …)`: it would let a service bypass every policy at the enclave's boundary.
fn vsock() -> Result<Rules, FilterError> {
    let family = u64::from(libc::AF_VSOCK.unsigned_abs());
    let is_vsock = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
    Ok(Rules::from([(libc::SYS_socket, vec![SeccompRule::new(vec![is_vsock])?])]))
}

/// `socket(AF_NETLINK, …, NETLINK_SOCK_DIAG)`: it lists the connections of all services, with their peers, and can
/// close them. The result is that of a kernel without it, on which `ss` reads `/proc/net`.
fn socket_diagnosis() -> Result<Rules, FilterError> {
    let equals = |argument, value: i32| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let rule = SeccompRule::new(vec![equals(0, libc::AF_NETLINK)?, equals(2, libc::NETLINK_SOCK_DIAG)?])?;
    Ok(Rules::from([(libc::SYS_socket, vec![rule])]))
}

/// `prlimit64(pid, …, limit, …)`: a process could lower the CPU time limit of another process of the same user, so that
/// the kernel kills that, even if it cannot send it signals. A process sets its own limits with a pid of 0, as
/// `setrlimit(3)` does.
fn limits_of_others() -> Result<Rules, FilterError> {
    let of_another = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    let sets = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    Ok(Rules::from([(libc::SYS_prlimit64, vec![SeccompRule::new(vec![of_another, sets])?])]))
}

pub(super) fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

/// Appends a program that returns `action` for calls that match `rules`, and `default_action` for others. It starts
/// where the existing program would allow a call: at its end, and in the middle where it has checked a call's arguments
/// and does not refuse them.
pub(super) fn chain(
    program: &mut BpfProgram,
    rules: Rules,
    default_action: SeccompAction,
    action: SeccompAction,
) -> Result<(), FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let next: BpfProgram = SeccompFilter::new(rules, default_action, action, arch)?.try_into()?;
    if program.pop().is_some_and(|last| (last.code, last.k) != (RETURN, ALLOW)) {
        return Err(FilterError::Chain);
    }
    for (left, instruction) in (0..).zip(program.iter_mut().rev()) {
        if (instruction.code, instruction.k) == (RETURN, ALLOW) {
            (instruction.code, instruction.k) = (JUMP, left);
        }
    }
    program.extend(next);
    Ok(())
}

pub(super) fn encode(program: &BpfProgram) -> Vec<u64> {
    program.iter().map(encode_one).collect()
}

fn encode_one(instruction: &seccompiler::sock_filter) -> u64 {
    u64::from(instruction.code) << 48
        | u64::from(instruction.jt) << 40
        | u64::from(instruction.jf) << 32
        | u64::from(instruction.k)
}

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` (`linux/audit.h`).
#[cfg(test)]
const THIS_ARCH: u32 = if cfg!(target_arch = "x86_64") { 0xC000_003E } else { 0xC000_00B7 };

/// The kernel's result for a call, for tests.
#[cfg(test)]
pub(super) fn answer_to(program: &[u64], number: c_long, arguments: [u64; 6]) -> u32 {
    answer_as(program, number, THIS_ARCH, arguments)
}

/// An interpreter for the few instructions of classic BPF that filters consist of.
#[cfg(test)]
fn answer_as(program: &[u64], number: c_long, arch: u32, arguments: [u64; 6]) -> u32 {
    let half = |at: u32| {
        let argument = arguments[usize::try_from((at - 16) / 8).unwrap()];
        let half = if at.is_multiple_of(8) { argument & 0xFFFF_FFFF } else { argument >> 32 };
        u32::try_from(half).unwrap()
    };
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let word = program[at];
        let (code, jt, jf) = (word >> 48, word >> 40 & 0xFF, word >> 32 & 0xFF);
        let k = u32::try_from(word & 0xFFFF_FFFF).unwrap();
        at += 1;
        match code {
            0x20 => {
                accumulator = match k {
                    0 => u32::try_from(number).unwrap(),
                    4 => arch,
                    16..64 => half(k),
                    other => panic!("loads from {other}"),
                };
            }
            0x15 => at += usize::try_from(if accumulator == k { jt } else { jf }).unwrap(),
            0x05 => at += usize::try_from(k).unwrap(),
            0x06 => return k,
            0x54 => accumulator &= k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::confine) const THIS_ARCH: u32 = super::THIS_ARCH;
    pub(in crate::confine) const KILL_PROCESS: u32 = 0x8000_0000;
    const ERRNO: u32 = 0x0005_0000;

    pub(in crate::confine) fn answer(program: &[u64], number: c_long, arch: u32, first: u32) -> u32 {
        answer_as(program, number, arch, [first.into(), 0, 0, 0, 0, 0])
    }

    pub(in crate::confine) fn errno_of(number: i32) -> u32 {
        ERRNO | number.unsigned_abs()
    }

    #[test]
    fn every_call_in_the_table_is_refused_with_its_result() {
        let program = compile(&[]).unwrap();
        for row in DENIED {
            let expected = match row.answer {
                Answer::Kill => KILL_PROCESS,
                Answer::NotPermitted => errno_of(libc::EPERM),
                Answer::NotImplemented => errno_of(libc::ENOSYS),
            };
            assert_eq!(answer(&program, row.number, THIS_ARCH, 0), expected, "{}", row.name);
            assert!(!row.reason.is_empty());
        }
    }

    #[test]
    fn ordinary_calls_are_allowed() {
        let program = compile(&[]).unwrap();
        for number in [libc::SYS_read, libc::SYS_openat, libc::SYS_execve, libc::SYS_clone, libc::SYS_connect]
        {
            assert_eq!(answer(&program, number, THIS_ARCH, 0), ALLOW);
        }
    }

    #[test]
    fn only_vsock_sockets_are_refused() {
        let program = compile(&[]).unwrap();
        let socket = |family: i32| answer(&program, libc::SYS_socket, THIS_ARCH, family.unsigned_abs());
        assert_eq!(socket(libc::AF_VSOCK), errno_of(libc::EAFNOSUPPORT));
        assert_eq!(socket(libc::AF_INET), ALLOW);
        assert_eq!(socket(libc::AF_UNIX), ALLOW);
    }

    #[test]
    fn the_socket_diagnosis_is_refused_and_no_other_netlink_protocol() {
        let netlink = |program: &[u64], protocol: i32| {
            let family = libc::AF_NETLINK.unsigned_abs();
            answer_to(program, libc::SYS_socket, [family.into(), 0, protocol.unsigned_abs().into(), 0, 0, 0])
        };
        let program = compile(&[]).unwrap();
        assert_eq!(netlink(&program, libc::NETLINK_SOCK_DIAG), errno_of(libc::EPROTONOSUPPORT));
        for protocol in [libc::NETLINK_ROUTE, libc::NETLINK_KOBJECT_UEVENT, libc::NETLINK_GENERIC] {
            assert_eq!(netlink(&program, protocol), ALLOW);
        }
        let inet =
            answer_to(&program, libc::SYS_socket, [libc::AF_INET.unsigned_abs().into(), 0, 4, 0, 0, 0]);
        assert_eq!(inet, ALLOW);
        let allowed = compile(&["socket".to_owned()]).unwrap();
        assert_eq!(netlink(&allowed, libc::NETLINK_SOCK_DIAG), ALLOW);
    }

    #[test]
    fn a_process_may_set_only_its_own_limits_and_read_those_of_others() {
        let program = compile(&[]).unwrap();
        let prlimit =
            |pid: u64, limit: u64| answer_to(&program, libc::SYS_prlimit64, [pid, 0, limit, 0, 0, 0]);
        assert_eq!(prlimit(7, 0x1000), errno_of(libc::EPERM));
        assert_eq!((prlimit(0, 0x1000), prlimit(7, 0)), (ALLOW, ALLOW));
    }

    #[test]
    fn another_architectures_numbers_kill() {
        let program = compile(&[]).unwrap();
        assert_eq!(answer(&program, libc::SYS_read, 0x4000_0003, 0), KILL_PROCESS);
    }

    #[test]
    fn only_calls_that_the_manifest_allows_are_allowed() {
        let program = compile(&["ptrace".to_owned(), "socket".to_owned()]).unwrap();
        assert_eq!(answer(&program, libc::SYS_ptrace, THIS_ARCH, 0), ALLOW);
        let vsock = answer(&program, libc::SYS_socket, THIS_ARCH, libc::AF_VSOCK.unsigned_abs());
        assert_eq!(vsock, ALLOW);
        assert_eq!(answer(&program, libc::SYS_bpf, THIS_ARCH, 0), errno_of(libc::EPERM));
    }

    #[test]
    fn an_unknown_call_name_is_refused() {
        assert!(
            matches!(compile(&["prtace".to_owned()]), Err(FilterError::Unknown(name)) if name == "prtace")
        );
    }
}
