//! Every scenario, one file each.

use crate::Scenario;

mod exit_code_reaches_the_caller;
mod http_request_is_answered_through_ingress;
mod signal_death_is_128_plus_the_signal;

/// All of them, in the order they are run.
pub const ALL: &[Scenario] = &[
    http_request_is_answered_through_ingress::SCENARIO,
    exit_code_reaches_the_caller::SCENARIO,
    signal_death_is_128_plus_the_signal::SCENARIO,
];
