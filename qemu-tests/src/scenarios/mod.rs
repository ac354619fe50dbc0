//! Every scenario: a file for each story, or for a few that share their scenery.

use std::process::ExitCode;

use crate::story::Shared;
use crate::{Need, Scenario, Vsock};

mod a_cpu_without_rdrand_is_no_host_for_kvm;
mod a_full_disk_is_said;
mod a_guest_that_stood_still_is_reached_again;
mod bad_launches_say_what_to_do;
mod builds_are_done_again;
mod builds_may_be_given_up;
mod connections_end_as_their_ends_say;
mod ctrl_c_at_any_moment_leaves_nothing;
mod daemons_run_as_in_containers;
mod enclaves_run_side_by_side;
mod ends_are_told_apart;
mod exit_code_reaches_the_caller;
mod files_stay_where_they_are;
mod http_request_is_answered_through_ingress;
mod init_ends_the_machine_and_says_why;
mod init_goes_on;
mod kernel_limits_are_not_shared;
mod kernels_vsock_is_used;
mod killed_parts_leave_nothing_behind;
mod launches_can_be_called_off;
mod logs_arrive_whole;
mod machines_are_as_ordered;
mod many_clients_are_carried_at_once;
mod names_are_found;
mod nitro_enclaves_are_as_predicted;
mod one_service_cannot_starve_the_others;
mod ports_belong_to_their_service;
mod real_images_run;
mod resources_are_told_live;
mod restarts_follow_their_policy;
mod root_images_run;
mod roots_are_what_was_built;
mod runtimes_size_themselves;
mod servants_see_nothing;
mod services_are_asked_about_one_by_one;
mod services_are_confined;
mod services_follow_their_graph;
mod services_say_when_they_are_ready;
mod services_see_what_containers_see;
mod services_that_cannot_run_say_why;
mod signal_death_is_128_plus_the_signal;
mod stops_end_in_time;
mod stops_let_connections_end;
mod supervisor_crashes_are_survived;
mod the_gateway_stands_alone;
mod the_supervisor_is_confined;
mod values_reach_only_their_service;

/// Those that are told on one machine, which is booted first.
pub const SHARED: &[Shared] = &[
    services_say_when_they_are_ready::CHECKS,
    services_say_when_they_are_ready::LIVENESS,
    services_follow_their_graph::REQUIRES,
    services_are_asked_about_one_by_one::INSIDE,
    restarts_follow_their_policy::RECOVERS,
    logs_arrive_whole::RAW_BYTES,
];

/// All the others, in the order they are run.
pub const ALL: &[Scenario] = &[
    http_request_is_answered_through_ingress::SCENARIO,
    connections_end_as_their_ends_say::SCENARIO,
    connections_end_as_their_ends_say::KILLED,
    many_clients_are_carried_at_once::SCENARIO,
    exit_code_reaches_the_caller::SCENARIO,
    signal_death_is_128_plus_the_signal::SCENARIO,
    ends_are_told_apart::CODES,
    ends_are_told_apart::HALTED,
    ends_are_told_apart::SIGNALS,
    ends_are_told_apart::CAUSES,
    ends_are_told_apart::ORPHANS,
    services_see_what_containers_see::SCENARIO,
    one_service_cannot_starve_the_others::SCENARIO,
    kernel_limits_are_not_shared::SCENARIO,
    machines_are_as_ordered::SCENARIO,
    enclaves_run_side_by_side::SCENARIO,
    bad_launches_say_what_to_do::BUSY_PORT,
    bad_launches_say_what_to_do::MISSING_IMAGE,
    bad_launches_say_what_to_do::LITTLE_MEMORY,
    bad_launches_say_what_to_do::OTHER_MACHINE,
    bad_launches_say_what_to_do::MISSING_QEMU,
    bad_launches_say_what_to_do::MISSING_KERNEL,
    bad_launches_say_what_to_do::WRONG_MANIFEST,
    bad_launches_say_what_to_do::NO_COMMAND,
    a_full_disk_is_said::BUILD,
    a_full_disk_is_said::RUN,
    a_full_disk_is_said::LOGS,
    builds_are_done_again::FROM,
    builds_are_done_again::RECORD,
    builds_are_done_again::DIFF,
    roots_are_what_was_built::LARGE_FILE,
    roots_are_what_was_built::FULL,
    roots_are_what_was_built::IDENTITY,
    services_that_cannot_run_say_why::NOT_EXECUTABLE,
    services_that_cannot_run_say_why::PIPE,
    services_that_cannot_run_say_why::DIES_IN_EXEC,
    services_that_cannot_run_say_why::SIXTY,
    services_that_cannot_run_say_why::ENDS_AT_ONCE,
    logs_arrive_whole::ONE_LONG_LINE,
    logs_arrive_whole::FLOODING,
    logs_arrive_whole::UNREAD,
    logs_arrive_whole::SHORT,
    kernels_vsock_is_used::SCENARIO,
    kernels_vsock_is_used::ADDRESSES,
    a_cpu_without_rdrand_is_no_host_for_kvm::SCENARIO,
    killed_parts_leave_nothing_behind::QEMU,
    killed_parts_leave_nothing_behind::VSOCK_DEVICE,
    killed_parts_leave_nothing_behind::SLEEVE,
    killed_parts_leave_nothing_behind::CTRL_C,
    builds_may_be_given_up::SCENARIO,
    ctrl_c_at_any_moment_leaves_nothing::SCENARIO,
    launches_can_be_called_off::SCENARIO,
    a_guest_that_stood_still_is_reached_again::SCENARIO,
    init_ends_the_machine_and_says_why::NO_SUPERVISOR,
    init_ends_the_machine_and_says_why::NO_MOUNT,
    init_ends_the_machine_and_says_why::PANIC,
    init_ends_the_machine_and_says_why::NO_INIT,
    init_ends_the_machine_and_says_why::NO_ENTROPY,
    init_goes_on::SIGNALS,
    init_goes_on::HANGS,
    init_goes_on::WORDS,
    init_goes_on::ORPHANS,
    services_follow_their_graph::ORDER,
    services_follow_their_graph::CYCLE,
    restarts_follow_their_policy::GIVES_UP,
    restarts_follow_their_policy::PAUSES,
    restarts_follow_their_policy::CRITICAL,
    ports_belong_to_their_service::SCENARIO,
    services_say_when_they_are_ready::AT_ONCE,
    stops_end_in_time::OBEDIENT,
    stops_end_in_time::STUBBORN,
    stops_let_connections_end::DRAIN,
    stops_let_connections_end::DRAIN_DEADLINE,
    stops_let_connections_end::SIGTERM,
    stops_let_connections_end::POWER_BUTTON,
    servants_see_nothing::SCENARIO,
    the_supervisor_is_confined::SCENARIO,
    services_are_confined::DEFAULTS,
    services_are_confined::INSPECTED,
    services_are_confined::MEMORY,
    services_are_confined::SIGNALS,
    services_are_asked_about_one_by_one::OUTSIDE,
    values_reach_only_their_service::SCENARIO,
    files_stay_where_they_are::SCENARIO,
    files_stay_where_they_are::WRITABLE,
    names_are_found::LACKING,
    names_are_found::BROUGHT,
    nitro_enclaves_are_as_predicted::FILE,
    nitro_enclaves_are_as_predicted::APPLICATIONS,
    nitro_enclaves_are_as_predicted::BYTE,
    nitro_enclaves_are_as_predicted::COMMAND_LINE,
    nitro_enclaves_are_as_predicted::SIGNED,
    nitro_enclaves_are_as_predicted::EXIT_CODE,
    nitro_enclaves_are_as_predicted::DAMAGED,
    resources_are_told_live::SCENARIO,
    supervisor_crashes_are_survived::UNDER_LOAD,
    supervisor_crashes_are_survived::TOO_OFTEN,
    the_gateway_stands_alone::CRASHES,
    the_gateway_stands_alone::CONFINED,
    real_images_run::PYTHON,
    real_images_run::NGINX,
    real_images_run::REDIS,
    real_images_run::LAYERS,
    real_images_run::REGISTRY,
    real_images_run::LARGE,
    runtimes_size_themselves::SCENARIO,
    root_images_run::SERVERS,
    root_images_run::TOLD,
    daemons_run_as_in_containers::NAMES,
    daemons_run_as_in_containers::ANSWERS,
];

/// What scenarios need beside the programs under test. One that is not here runs wherever those do.
const NEEDS: &[(Need, &[Scenario])] = &[
    (Need::Vsock(Vsock::Program), &[killed_parts_leave_nothing_behind::VSOCK_DEVICE]),
    (Need::Vsock(Vsock::Kernel), &[kernels_vsock_is_used::SCENARIO, kernels_vsock_is_used::ADDRESSES]),
    (Need::BareCpu, &[a_cpu_without_rdrand_is_no_host_for_kvm::SCENARIO]),
    (Need::Space, &[roots_are_what_was_built::LARGE_FILE]),
    (
        Need::Inputs,
        &[
            real_images_run::PYTHON,
            real_images_run::NGINX,
            real_images_run::REDIS,
            real_images_run::LAYERS,
            real_images_run::REGISTRY,
            real_images_run::LARGE,
            runtimes_size_themselves::SCENARIO,
            root_images_run::SERVERS,
            root_images_run::TOLD,
            daemons_run_as_in_containers::NAMES,
            daemons_run_as_in_containers::ANSWERS,
        ],
    ),
    (
        Need::Nitro,
        &[
            nitro_enclaves_are_as_predicted::FILE,
            nitro_enclaves_are_as_predicted::APPLICATIONS,
            nitro_enclaves_are_as_predicted::BYTE,
            nitro_enclaves_are_as_predicted::COMMAND_LINE,
            nitro_enclaves_are_as_predicted::SIGNED,
            nitro_enclaves_are_as_predicted::EXIT_CODE,
            nitro_enclaves_are_as_predicted::DAMAGED,
        ],
    ),
];

/// The guest half of the scenario of this name.
#[must_use]
pub fn guest(name: &str) -> Option<fn(&[String]) -> ExitCode> {
    let shared = SHARED.iter().map(|one| (one.name, one.guest));
    let mut all = ALL.iter().map(|one| (one.name, one.guest)).chain(shared);
    all.find(|(known, _)| *known == name).map(|(_, guest)| guest)
}

/// Those that want the machine for themselves: they start ten enclaves or a thousand clients at once, or need gigabytes.
const ALONE: &[Scenario] = &[
    many_clients_are_carried_at_once::SCENARIO,
    enclaves_run_side_by_side::SCENARIO,
    roots_are_what_was_built::LARGE_FILE,
    real_images_run::LARGE,
    runtimes_size_themselves::SCENARIO,
    root_images_run::SERVERS,
];

/// Whether no other scenario is run beside the one of this name.
pub(crate) fn run_alone(name: &str) -> bool {
    ALONE.iter().any(|one| one.name == name)
}

/// What the scenario of this name needs.
pub(crate) fn needs(name: &str) -> impl Iterator<Item = Need> {
    NEEDS
        .iter()
        .filter(move |(_, scenarios)| scenarios.iter().any(|one| one.name == name))
        .map(|(need, _)| *need)
}
