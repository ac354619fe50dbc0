//! How an exit is reported: as text for humans, and to the host as the enclave's final state.
//!
//! Invariant: an exit is reported exactly; nothing is reduced to "failed".

use cloister_wire::control::{Cause, Exit, State};

/// Names of the signals that usually kill services, by number on x86-64 and aarch64 (signal(7)).
const SIGNALS: [(u8, &str); 13] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (10, "SIGUSR1"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (15, "SIGTERM"),
    (31, "SIGSYS"),
];

/// An exit as part of a sentence.
pub(crate) fn describe(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::NotStarted { error } => format!("not started: {error}"),
        Exit::Signal { signal, cause } => {
            let name = SIGNALS.iter().find(|(n, _)| n == signal).map_or("", |(_, name)| name);
            let space = if name.is_empty() { "" } else { " " };
            format!("signal {signal}{space}{name}{}", describe_cause(cause))
        }
    }
}

fn describe_cause(cause: &Cause) -> String {
    match cause {
        Cause::Sent => String::new(),
        Cause::OutOfMemory => ": out of memory".into(),
        Cause::Seccomp(None) => ": system call refused by its seccomp filter".into(),
        Cause::Seccomp(Some(call)) => format!(": system call {call} refused by its seccomp filter"),
    }
}

/// The enclave's final state if `service` determines it and exited like this.
pub(super) fn final_state(service: &str, exit: Option<&Exit>) -> State {
    let service = service.to_owned();
    match exit {
        None => State::Exited { service, code: 0 },
        Some(Exit::Code(code)) => State::Exited { service, code: *code },
        Some(Exit::Signal { signal, cause }) => {
            State::Signaled { service, signal: *signal, cause: cause.clone() }
        }
        Some(Exit::NotStarted { error }) => {
            State::Fatal { stage: format!("start of {service}"), error: error.clone() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_described() {
        let table = [
            (Exit::Code(3), "exit code 3"),
            (Exit::Signal { signal: 9, cause: Cause::OutOfMemory }, "signal 9 SIGKILL: out of memory"),
            (Exit::Signal { signal: 42, cause: Cause::Sent }, "signal 42"),
            (
                Exit::Signal { signal: 31, cause: Cause::Seccomp(Some("bpf".into())) },
                "signal 31 SIGSYS: system call bpf refused by its seccomp filter",
            ),
            (Exit::NotStarted { error: "exec: no such file".into() }, "not started: exec: no such file"),
        ];
        for (exit, expected) in table {
            assert_eq!(describe(&exit), expected);
        }
    }

    #[test]
    fn the_final_state_is_the_services_own_exit() {
        assert_eq!(
            final_state("web", Some(&Exit::Code(7))),
            State::Exited { service: "web".into(), code: 7 }
        );
        let killed = Exit::Signal { signal: 9, cause: Cause::OutOfMemory };
        assert!(matches!(final_state("web", Some(&killed)), State::Signaled { signal: 9, .. }));
        let missing = Exit::NotStarted { error: "no".into() };
        assert!(matches!(final_state("web", Some(&missing)), State::Fatal { .. }));
    }
}
