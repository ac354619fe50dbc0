//! Every scenario: one per file, or a few that share their setup.

use std::process::ExitCode;

use crate::scenario::Shared;
use crate::{Need, Scenario, Vsock};

mod a_full_disk_is_reported;
mod a_paused_guest_is_reachable_after_it_resumes;
mod builds_are_reproduced;
mod builds_can_be_interrupted;
mod connections_close_as_their_peers_close_them;
mod ctrl_c_at_any_point_leaves_nothing_behind;
mod daemons_run_as_in_containers;
mod enclaves_run_side_by_side;
mod exit_causes_are_distinguished;
mod exit_code_reaches_the_caller;
mod fatal_init_errors_end_the_machine;
mod http_request_is_answered_through_ingress;
mod images_that_start_as_root_run;
mod init_keeps_running;
mod kernel_limits_are_not_shared;
mod killed_processes_leave_nothing_behind;
mod kvm_is_not_used_without_rdrand;
mod launches_can_be_cancelled;
mod local_names_are_resolved;
mod logs_arrive_complete;
mod machines_match_the_request;
mod many_clients_are_served_at_once;
mod nitro_enclaves_match_the_prediction;
mod one_service_cannot_starve_the_others;
mod ports_belong_to_their_service;
mod protected_files_cannot_be_replaced;
mod real_images_run;
mod refused_launches_give_a_hint;
mod reports_are_read_through_configfs;
mod resource_usage_is_reported_live;
mod restarts_follow_their_policy;
mod roots_match_their_image;
mod runtimes_size_themselves;
mod servants_see_nothing;
mod services_are_confined;
mod services_become_ready_and_stay_healthy;
mod services_follow_their_dependencies;
mod services_get_evidence;
mod services_run_as_in_a_container;
mod services_that_cannot_run_report_why;
mod signal_death_is_128_plus_the_signal;
mod single_services_are_controlled;
mod stops_finish_in_time;
mod stops_let_connections_finish;
mod supervisor_crashes_are_survived;
mod the_gateway_outlives_the_supervisor;
mod the_kernels_vsock_is_used;
mod the_supervisor_is_confined;
mod values_reach_only_their_service;
mod virtual_enclaves_get_documents;

/// Those that share one machine, which is booted first.
pub const SHARED: &[Shared] = &[
    services_become_ready_and_stay_healthy::CHECKS,
    services_become_ready_and_stay_healthy::LIVENESS,
    services_follow_their_dependencies::REQUIRES,
    single_services_are_controlled::INSIDE,
    restarts_follow_their_policy::RECOVERS,
    logs_arrive_complete::RAW_BYTES,
];

/// All others, in the order in which they run.
pub const ALL: &[Scenario] = &[
    http_request_is_answered_through_ingress::SCENARIO,
    connections_close_as_their_peers_close_them::SCENARIO,
    connections_close_as_their_peers_close_them::KILLED,
    many_clients_are_served_at_once::SCENARIO,
    exit_code_reaches_the_caller::SCENARIO,
    signal_death_is_128_plus_the_signal::SCENARIO,
    exit_causes_are_distinguished::CODES,
    exit_causes_are_distinguished::STOPPED,
    exit_causes_are_distinguished::SIGNALS,
    exit_causes_are_distinguished::CAUSES,
    exit_causes_are_distinguished::ORPHANS,
    services_run_as_in_a_container::SCENARIO,
    one_service_cannot_starve_the_others::SCENARIO,
    kernel_limits_are_not_shared::SCENARIO,
    machines_match_the_request::SCENARIO,
    enclaves_run_side_by_side::SCENARIO,
    refused_launches_give_a_hint::BUSY_PORT,
    refused_launches_give_a_hint::MISSING_IMAGE,
    refused_launches_give_a_hint::LITTLE_MEMORY,
    refused_launches_give_a_hint::OTHER_MACHINE,
    refused_launches_give_a_hint::OTHER_PLATFORM,
    refused_launches_give_a_hint::MISSING_QEMU,
    refused_launches_give_a_hint::MISSING_KERNEL,
    refused_launches_give_a_hint::WRONG_MANIFEST,
    refused_launches_give_a_hint::NO_COMMAND,
    a_full_disk_is_reported::BUILD,
    a_full_disk_is_reported::RUN,
    a_full_disk_is_reported::LOGS,
    builds_are_reproduced::FROM,
    builds_are_reproduced::RECORD,
    builds_are_reproduced::DIFF,
    roots_match_their_image::LARGE_FILE,
    roots_match_their_image::FULL,
    roots_match_their_image::IDENTITY,
    services_that_cannot_run_report_why::NOT_EXECUTABLE,
    services_that_cannot_run_report_why::PIPE,
    services_that_cannot_run_report_why::DIES_IN_EXEC,
    services_that_cannot_run_report_why::SIXTY,
    services_that_cannot_run_report_why::EXITS_AT_ONCE,
    logs_arrive_complete::ONE_LONG_LINE,
    logs_arrive_complete::FLOODING,
    logs_arrive_complete::UNREAD,
    logs_arrive_complete::SHORT,
    the_kernels_vsock_is_used::SCENARIO,
    the_kernels_vsock_is_used::ADDRESSES,
    kvm_is_not_used_without_rdrand::SCENARIO,
    killed_processes_leave_nothing_behind::QEMU,
    killed_processes_leave_nothing_behind::VSOCK_DEVICE,
    killed_processes_leave_nothing_behind::SLEEVE,
    killed_processes_leave_nothing_behind::CTRL_C,
    builds_can_be_interrupted::SCENARIO,
    ctrl_c_at_any_point_leaves_nothing_behind::SCENARIO,
    launches_can_be_cancelled::SCENARIO,
    a_paused_guest_is_reachable_after_it_resumes::SCENARIO,
    fatal_init_errors_end_the_machine::NO_SUPERVISOR,
    fatal_init_errors_end_the_machine::NO_MOUNT,
    fatal_init_errors_end_the_machine::PANIC,
    fatal_init_errors_end_the_machine::NO_INIT,
    fatal_init_errors_end_the_machine::NO_ENTROPY,
    fatal_init_errors_end_the_machine::OTHER_CLOCK,
    fatal_init_errors_end_the_machine::OTHER_PLATFORM,
    init_keeps_running::SIGNALS,
    init_keeps_running::HANGS,
    init_keeps_running::ARGUMENTS,
    init_keeps_running::ORPHANS,
    services_follow_their_dependencies::ORDER,
    services_follow_their_dependencies::CYCLE,
    restarts_follow_their_policy::EXHAUSTED,
    restarts_follow_their_policy::PAUSES,
    restarts_follow_their_policy::CRITICAL,
    ports_belong_to_their_service::SCENARIO,
    ports_belong_to_their_service::SHARED,
    services_become_ready_and_stay_healthy::AT_ONCE,
    stops_finish_in_time::OBEDIENT,
    stops_finish_in_time::STUBBORN,
    stops_let_connections_finish::DRAIN,
    stops_let_connections_finish::DRAIN_DEADLINE,
    stops_let_connections_finish::SIGTERM,
    stops_let_connections_finish::POWER_BUTTON,
    servants_see_nothing::SCENARIO,
    virtual_enclaves_get_documents::SCENARIO,
    the_supervisor_is_confined::SCENARIO,
    services_are_confined::DEFAULTS,
    services_are_confined::INSPECTED,
    services_are_confined::MEMORY,
    services_are_confined::SIGNALS,
    single_services_are_controlled::OUTSIDE,
    values_reach_only_their_service::SCENARIO,
    protected_files_cannot_be_replaced::SCENARIO,
    protected_files_cannot_be_replaced::WRITABLE,
    local_names_are_resolved::LACKING,
    local_names_are_resolved::BROUGHT,
    nitro_enclaves_match_the_prediction::FILE,
    nitro_enclaves_match_the_prediction::APPLICATIONS,
    nitro_enclaves_match_the_prediction::BYTE,
    nitro_enclaves_match_the_prediction::COMMAND_LINE,
    nitro_enclaves_match_the_prediction::SIGNED,
    nitro_enclaves_match_the_prediction::EXIT_CODE,
    nitro_enclaves_match_the_prediction::DAMAGED,
    reports_are_read_through_configfs::SNP,
    reports_are_read_through_configfs::TDX,
    reports_are_read_through_configfs::NONE,
    services_get_evidence::ALLOWED,
    services_get_evidence::CONFINED,
    services_get_evidence::CRASHES,
    services_get_evidence::without_hardware::SCENARIO,
    services_get_evidence::hostile_module::SCENARIO,
    services_get_evidence::recorded_events::SCENARIO,
    services_get_evidence::over_tls::SCENARIO,
    services_get_evidence::from_reports::SNP,
    services_get_evidence::from_reports::TDX,
    services_get_evidence::verified_launch::SCENARIO,
    resource_usage_is_reported_live::SCENARIO,
    supervisor_crashes_are_survived::UNDER_LOAD,
    supervisor_crashes_are_survived::TOO_OFTEN,
    the_gateway_outlives_the_supervisor::CRASHES,
    the_gateway_outlives_the_supervisor::CONFINED,
    real_images_run::PYTHON,
    real_images_run::NGINX,
    real_images_run::REDIS,
    real_images_run::LAYERS,
    real_images_run::REGISTRY,
    real_images_run::LARGE,
    runtimes_size_themselves::SCENARIO,
    images_that_start_as_root_run::SERVERS,
    images_that_start_as_root_run::CHECKED,
    daemons_run_as_in_containers::NAMES,
    daemons_run_as_in_containers::ANSWERS,
];

/// What scenarios need besides the programs under test. One that is not listed here runs wherever those do.
const NEEDS: &[(Need, &[Scenario])] = &[
    (Need::Vsock(Vsock::Program), &[killed_processes_leave_nothing_behind::VSOCK_DEVICE]),
    (
        Need::Vsock(Vsock::Kernel),
        &[the_kernels_vsock_is_used::SCENARIO, the_kernels_vsock_is_used::ADDRESSES],
    ),
    (Need::BareCpu, &[kvm_is_not_used_without_rdrand::SCENARIO]),
    (Need::Space, &[roots_match_their_image::LARGE_FILE]),
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
            images_that_start_as_root_run::SERVERS,
            images_that_start_as_root_run::CHECKED,
            daemons_run_as_in_containers::NAMES,
            daemons_run_as_in_containers::ANSWERS,
        ],
    ),
    (
        Need::TestKernel,
        &[
            reports_are_read_through_configfs::SNP,
            reports_are_read_through_configfs::TDX,
            reports_are_read_through_configfs::NONE,
            services_get_evidence::from_reports::SNP,
            services_get_evidence::from_reports::TDX,
        ],
    ),
    (
        Need::Nitro,
        &[
            nitro_enclaves_match_the_prediction::FILE,
            nitro_enclaves_match_the_prediction::APPLICATIONS,
            nitro_enclaves_match_the_prediction::BYTE,
            nitro_enclaves_match_the_prediction::COMMAND_LINE,
            nitro_enclaves_match_the_prediction::SIGNED,
            nitro_enclaves_match_the_prediction::EXIT_CODE,
            nitro_enclaves_match_the_prediction::DAMAGED,
            services_get_evidence::ALLOWED,
            services_get_evidence::CONFINED,
            services_get_evidence::CRASHES,
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

/// Those that need the whole machine: they start ten enclaves or a thousand clients in parallel, or need gigabytes.
const ALONE: &[Scenario] = &[
    many_clients_are_served_at_once::SCENARIO,
    enclaves_run_side_by_side::SCENARIO,
    roots_match_their_image::LARGE_FILE,
    real_images_run::LARGE,
    runtimes_size_themselves::SCENARIO,
    images_that_start_as_root_run::SERVERS,
];

/// Whether no other scenario runs beside the one of this name.
pub(crate) fn run_alone(name: &str) -> bool {
    ALONE.iter().any(|one| one.name == name)
}

/// The needs of the scenario of this name.
pub(crate) fn needs(name: &str) -> impl Iterator<Item = Need> {
    NEEDS
        .iter()
        .filter(move |(_, scenarios)| scenarios.iter().any(|one| one.name == name))
        .map(|(need, _)| *need)
}
