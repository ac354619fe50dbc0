//! How an end is told: to people in words, to the host as the enclave's final state.
//!
//! Its law: an exit is passed on as it was; nothing is rounded to "failed".

use cloister_wire::control::{Cause, Exit, State};

/// Names of the signals a service usually dies of, by number on x86-64 and aarch64 (signal(7)).
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

/// An exit in words, as a part of a sentence.
pub(crate) fn words(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::NotStarted { error } => format!("not started: {error}"),
        Exit::Signal { signal, cause } => {
            let name = SIGNALS.iter().find(|(n, _)| n == signal).map_or("", |(_, name)| name);
            let space = if name.is_empty() { "" } else { " " };
            format!("signal {signal}{space}{name}{}", cause_words(cause))
        }
    }
}

fn cause_words(cause: &Cause) -> String {
    match cause {
        Cause::Sent => String::new(),
        Cause::OutOfMemory => ": out of memory".into(),
        Cause::Seccomp(None) => ": a system call its filter refuses".into(),
        Cause::Seccomp(Some(call)) => format!(": its filter refuses the system call {call}"),
    }
}

/// The enclave's final state when `service` decides and ended like this.
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
    fn every_end_has_its_words() {
        let table = [
            (Exit::Code(3), "exit code 3"),
            (Exit::Signal { signal: 9, cause: Cause::OutOfMemory }, "signal 9 SIGKILL: out of memory"),
            (Exit::Signal { signal: 42, cause: Cause::Sent }, "signal 42"),
            (
                Exit::Signal { signal: 31, cause: Cause::Seccomp(Some("bpf".into())) },
                "signal 31 SIGSYS: its filter refuses the system call bpf",
            ),
            (Exit::NotStarted { error: "exec: no such file".into() }, "not started: exec: no such file"),
        ];
        for (exit, expected) in table {
            assert_eq!(words(&exit), expected);
        }
    }

    #[test]
    fn the_final_state_is_the_services_own_end() {
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
