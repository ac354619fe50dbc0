//! The confinement of servants: a user each, no capabilities, and an allow list of system calls.
//!
//! Invariant: a servant is allowed exactly the calls that it makes, and every row states the purpose. Any other call
//! kills it, so a missing row is noticed immediately, and an unnecessary one is an opportunity for an attacker.

pub(super) mod attestor;
mod common;
pub(super) mod gateway;

use super::allowed::Allowed;

/// Every system call that a servant may make, with its purpose.
pub(super) fn calls() -> impl Iterator<Item = &'static Allowed> {
    gateway::CALLS.into_iter().chain(attestor::CALLS).flatten()
}
