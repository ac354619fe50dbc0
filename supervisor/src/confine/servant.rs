//! The confinement of servants: a user each, no capabilities, and an allow list of system calls.
//!
//! Invariant: a servant is allowed exactly the calls that it makes, and every row states the purpose. Any other call
//! kills it, so a missing row is noticed immediately, and an unnecessary one is an opportunity for an attacker.

pub(super) mod attestor;
mod common;
pub(super) mod gateway;
pub(super) mod terminator;

use super::allowed::Allowed;

/// Every system call that a servant may make, with its purpose.
pub(super) fn calls() -> impl Iterator<Item = &'static Allowed> {
    gateway::CALLS.into_iter().chain(attestor::CALLS).chain(terminator::CALLS).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::filter::{allow, answer_to};

    const KILL: u32 = 0x8000_0000;
    const ALLOW: u32 = 0x7FFF_0000;

    #[test]
    fn every_call_is_allowed_with_its_arguments_alone_and_has_a_reason() {
        for calls in [&gateway::CALLS[..], &attestor::CALLS, &terminator::CALLS] {
            let filter = allow(calls).unwrap();
            for row in calls.iter().copied().flatten() {
                assert!(!row.reason.is_empty());
                let mut forms: Vec<[u64; 6]> = Vec::new();
                for form in row.forms {
                    let mut arguments = [0; 6];
                    form.iter().for_each(|(place, _, value)| arguments[usize::from(*place)] = *value);
                    forms.push(arguments);
                }
                if forms.is_empty() {
                    forms.push([0; 6]);
                } else {
                    assert_eq!(answer_to(&filter, row.number, [0x7777_7777; 6]), KILL, "{}", row.name);
                }
                for arguments in forms {
                    assert_eq!(answer_to(&filter, row.number, arguments), ALLOW, "{}", row.name);
                }
            }
        }
    }
}
