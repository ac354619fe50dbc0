//! Lifecycles of enclaves as tables of events.

use super::*;
use crate::state::Outcome;
use cloister_wire::control::{Cause, IngressCounters};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    answer: Duration::from_mins(1),
    ready: Duration::from_hours(1),
    run: None,
    stop: Duration::from_secs(10),
    power_off: Duration::from_secs(10),
    kill: Duration::from_secs(10),
};

fn status(seq: u64, state: State) -> Event {
    Event::Status(Box::new(Status {
        seq,
        state,
        platform: "virtual".into(),
        uptime_ms: 1,
        supervisor_restarts: 0,
        boot: Vec::new(),
        services: Vec::new(),
        servants: Vec::new(),
        ingress: IngressCounters::default(),
        registers: Vec::new(),
        time: None,
    }))
}

fn exited(code: u8) -> State {
    State::Exited { service: "web".into(), code }
}

fn off() -> Event {
    Event::Ended(MachineExit::PoweredOff { output: None })
}

fn killed() -> Event {
    Event::Ended(MachineExit::Failed { how: "QEMU was killed by SIGKILL".into(), output: None })
}

/// Feeds events at the given seconds, and returns the actions and the verdict.
fn live(limits: Limits, story: Vec<(u64, Event)>) -> (Vec<Action>, Option<Verdict>) {
    live_with(Check::Done, limits, story)
}

/// The same for an enclave that must be verified, or not.
fn live_with(check: Check, limits: Limits, story: Vec<(u64, Event)>) -> (Vec<Action>, Option<Verdict>) {
    let start = Instant::now();
    let mut lifecycle = Lifecycle::new(limits, check, start);
    let actions = story
        .into_iter()
        .flat_map(|(at, event)| lifecycle.on(event, start + Duration::from_secs(at)))
        .collect();
    (actions, lifecycle.verdict().cloned())
}

#[test]
fn a_service_that_exits_determines_the_code_after_its_logs_were_read() {
    let story = vec![
        (1, status(1, State::Booting)),
        (2, status(2, State::Ready)),
        (3, status(3, exited(3))),
        (3, Event::Drained),
        (4, off()),
    ];
    let (actions, verdict) = live(LIMITS, story);
    assert_eq!(actions, [Action::Ready, Action::Drain, Action::Seen(3)]);
    assert_eq!(verdict, Some(Verdict::reported(exited(3))));
    assert_eq!(verdict.unwrap().code, 3);
}

#[test]
fn a_change_to_degraded_and_back_is_reported_once_each() {
    let degraded = |why: &str| State::Degraded { why: why.into() };
    let story = vec![
        (1, status(1, State::Ready)),
        (2, status(2, degraded("db is stopping"))),
        (2, status(3, degraded("db is waiting to restart"))),
        (3, status(4, State::Ready)),
        (3, status(5, State::Ready)),
    ];
    assert_eq!(live(LIMITS, story).0, [Action::Ready, Action::Changed, Action::Changed]);
    let story = vec![(1, status(1, State::Starting)), (2, status(2, degraded("db has failed")))];
    assert_eq!(live(LIMITS, story).0, [Action::Ready, Action::Changed], "ready, but degraded");
}

#[test]
fn a_death_by_signal_gives_the_code_that_a_shell_gives() {
    let state = State::Signaled { service: "web".into(), signal: 11, cause: Cause::Sent };
    assert_eq!(Verdict::reported(state).code, 139);
}

#[test]
fn a_final_state_on_the_console_is_sufficient() {
    let fatal = State::Fatal { stage: "mounts".into(), error: "no /proc".into() };
    let (actions, verdict) = live(LIMITS, vec![(1, Event::FinalState(fatal.clone())), (1, off())]);
    assert!(actions.is_empty());
    assert_eq!(verdict, Some(Verdict::reported(fatal)));
}

#[test]
fn a_kernel_panic_is_reported_with_its_reason() {
    let story = vec![(1, Event::Panic("Attempted to kill init!".into())), (1, off())];
    let verdict = live(LIMITS, story).1.unwrap();
    assert_eq!(verdict, Verdict::failed("guest kernel panicked: Attempted to kill init!"));
    assert_eq!(verdict.code, 125);
}

#[test]
fn a_killed_machine_is_reported_with_what_killed_it() {
    let verdict = live(LIMITS, vec![(1, status(1, State::Ready)), (2, killed())]).1;
    assert_eq!(verdict, Some(Verdict::failed("QEMU was killed by SIGKILL")));
}

#[test]
fn an_end_that_the_backend_cannot_explain_is_reported_as_such() {
    let ended = || (2, Event::Ended(MachineExit::Unknown));
    let (_, verdict) = live(LIMITS, vec![(1, status(1, State::Ready)), ended()]);
    assert_eq!(verdict, Some(Verdict::failed("it ended; the backend cannot determine how")));
    let (_, verdict) = live(LIMITS, vec![(1, Event::FinalState(exited(3))), ended()]);
    assert_eq!(verdict, Some(Verdict::reported(exited(3))), "the enclave's own report counts");
}

#[test]
fn a_stop_is_requested_once_and_ends_with_the_services_code() {
    let stop = || Event::Stop { why: "requested".into(), grace: None };
    let story = vec![
        (1, status(1, State::Ready)),
        (2, stop()),
        (2, stop()),
        (3, status(2, exited(0))),
        (3, Event::Drained),
        (3, off()),
    ];
    let (actions, verdict) = live(LIMITS, story);
    assert_eq!(actions, [Action::Ready, Action::RequestStop, Action::Drain, Action::Seen(2)]);
    assert_eq!(verdict.unwrap().code, 0);
}

#[test]
fn a_stop_request_lost_with_its_connection_is_sent_again() {
    let stopping = State::Stopping { why: "requested".into() };
    let story = vec![
        (1, status(1, State::Ready)),
        (2, Event::Stop { why: "requested".into(), grace: None }),
        (3, status(1, State::Ready)),
        (4, status(2, stopping.clone())),
        (5, status(3, stopping)),
    ];
    assert_eq!(live(LIMITS, story).0, [Action::Ready, Action::RequestStop, Action::RequestStop]);
}

#[test]
fn an_unresponsive_enclave_is_reported_once_and_so_is_its_return() {
    let story = vec![
        (1, Event::Pulse(false)),
        (2, status(1, State::Ready)),
        (4, Event::Pulse(false)),
        (5, Event::Pulse(false)),
        (6, Event::Pulse(true)),
        (7, status(2, exited(0))),
        (8, Event::Pulse(false)),
    ];
    assert_eq!(
        live(LIMITS, story).0,
        [Action::Ready, Action::Unresponsive, Action::Responsive, Action::Drain]
    );
}

#[test]
fn a_machine_that_does_not_exit_after_a_kill_is_not_waited_for() {
    let story =
        vec![(1, status(1, State::Ready)), (2, Event::Kill { why: "requested".into() }), (12, Event::Tick)];
    let (actions, verdict) = live(LIMITS, story);
    assert_eq!(actions, [Action::Ready, Action::Kill]);
    assert_eq!(verdict, Some(Verdict::killed("requested")));
}

#[test]
fn an_enclave_that_does_not_stop_in_time_is_killed() {
    let stop = Event::Stop { why: "requested".into(), grace: Some(Duration::from_secs(1)) };
    let (actions, verdict) =
        live(LIMITS, vec![(1, status(1, State::Ready)), (2, stop), (3, Event::Tick), (3, killed())]);
    assert_eq!(actions, [Action::Ready, Action::RequestStop, Action::Kill]);
    assert_eq!(verdict, Some(Verdict::killed("it did not stop in time")));
}

#[test]
fn the_first_interrupt_stops_and_the_second_kills() {
    let story =
        vec![(1, status(1, State::Ready)), (2, Event::Interrupt), (3, Event::Interrupt), (3, killed())];
    let (actions, verdict) = live(LIMITS, story);
    assert_eq!(actions, [Action::Ready, Action::RequestStop, Action::Kill]);
    assert_eq!(verdict.unwrap().code, 130);
}

#[test]
fn an_interrupt_during_boot_kills_at_once() {
    let (actions, verdict) = live(LIMITS, vec![(1, Event::Interrupt), (1, killed())]);
    assert_eq!(actions, [Action::Kill]);
    assert_eq!(verdict, Some(Verdict::interrupted()));
}

#[test]
fn an_enclave_that_never_responds_times_out() {
    let (actions, verdict) = live(LIMITS, vec![(59, Event::Tick), (60, Event::Tick), (60, killed())]);
    assert_eq!(actions, [Action::Kill]);
    assert_eq!(verdict, Some(Verdict::timed_out("it did not respond within 1 min 0 s")));
}

#[test]
fn an_enclave_that_is_never_ready_times_out_later() {
    let story =
        vec![(1, status(1, State::Starting)), (3599, Event::Tick), (3600, Event::Tick), (3600, killed())];
    let (actions, verdict) = live(LIMITS, story);
    assert_eq!(actions, [Action::Kill]);
    assert_eq!(verdict, Some(Verdict::timed_out("it was not ready within 1 h 0 min")));
}

#[test]
fn a_run_over_its_limit_is_stopped_in_order_and_ends_with_124() {
    let limits = Limits { run: Some(Duration::from_secs(5)), ..LIMITS };
    let story = vec![
        (1, status(1, State::Ready)),
        (5, Event::Tick),
        (6, status(2, exited(0))),
        (6, Event::Drained),
        (6, off()),
    ];
    let (actions, verdict) = live(limits, story);
    assert_eq!(actions, [Action::Ready, Action::RequestStop, Action::Drain, Action::Seen(2)]);
    assert_eq!(verdict.unwrap().code, 124);
}

#[test]
fn a_kill_after_the_final_state_does_not_change_the_verdict() {
    let story = vec![
        (1, status(1, exited(7))),
        (2, Event::Drained),
        (3, Event::Kill { why: "requested".into() }),
        (3, killed()),
    ];
    let (actions, verdict) = live(LIMITS, story);
    assert_eq!(actions, [Action::Drain, Action::Seen(1), Action::Kill]);
    assert_eq!(verdict.unwrap().code, 7);
}

#[test]
fn logs_that_cannot_be_drained_do_not_delay_the_end() {
    let (actions, _) = live(LIMITS, vec![(1, status(4, exited(0))), (3, Event::Tick)]);
    assert_eq!(actions, [Action::Drain, Action::Seen(4)]);
}

#[test]
fn an_enclave_with_another_protocol_version_is_killed_with_the_reason() {
    let (actions, verdict) =
        live(LIMITS, vec![(1, Event::Broken("its protocol version is 7".into())), (1, killed())]);
    assert_eq!(actions, [Action::Kill]);
    assert_eq!(verdict, Some(Verdict::failed("its protocol version is 7")));
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(status(1, State::Booting)),
        Just(status(2, State::Ready)),
        Just(status(3, State::Degraded { why: String::new() })),
        Just(status(4, exited(1))),
        Just(Event::FinalState(exited(2))),
        Just(Event::Panic(String::new())),
        Just(Event::Drained),
        Just(Event::Broken(String::new())),
        Just(Event::Stop { why: String::new(), grace: None }),
        Just(Event::Kill { why: String::new() }),
        Just(Event::Verified),
        Just(Event::NotVerified { why: String::new() }),
        Just(Event::Interrupt),
        Just(Event::Tick),
    ]
}

#[test]
fn an_enclave_that_must_be_verified_is_ready_only_afterwards() {
    let degraded = || State::Degraded { why: "web".into() };
    for (state, expected) in [
        (State::Ready, vec![Action::Verify, Action::Ready]),
        (degraded(), vec![Action::Verify, Action::Ready, Action::Changed]),
    ] {
        let story = vec![
            (1, status(1, State::Starting)),
            (2, status(2, state.clone())),
            (3, status(3, state)),
            (4, Event::Verified),
            (5, Event::Verified),
        ];
        assert_eq!(live_with(Check::Due, LIMITS, story).0, expected);
    }
    let unasked = vec![(1, status(1, State::Ready)), (2, Event::Verified)];
    assert_eq!(live(LIMITS, unasked).0, [Action::Ready]);
}

#[test]
fn an_enclave_that_is_not_verified_is_killed_with_a_code_of_its_own_whatever_it_reports() {
    let refused = || Event::NotVerified { why: "measurements: PCR2".into() };
    let verdict = Verdict { code: 123, outcome: Outcome::NotVerified { why: "measurements: PCR2".into() } };
    let story = vec![(1, status(1, State::Ready)), (2, refused()), (3, status(2, exited(0))), (4, killed())];
    let (actions, end) = live_with(Check::Due, LIMITS, story);
    assert_eq!((actions, end), (vec![Action::Verify, Action::Kill], Some(verdict)));
}

#[test]
fn a_verification_has_its_own_limit_and_not_that_of_becoming_ready() {
    let limits = Limits { ready: Duration::from_secs(10), ..LIMITS };
    let story = vec![(1, status(1, State::Ready)), (11, Event::Tick), (12, Event::Verified)];
    assert_eq!(live_with(Check::Due, limits, story).0, [Action::Verify, Action::Ready]);
}

#[test]
fn an_enclave_that_ends_before_it_is_verified_has_no_exit_code_of_its_own() {
    let unverified = Verdict::not_verified("it ended before it was verified");
    let (never_ready, unanswered) = (State::Starting, State::Ready);
    for before in [never_ready, unanswered] {
        let story = vec![(1, status(1, before)), (2, status(2, exited(0))), (3, Event::Drained), (4, off())];
        let (_, verdict) = live_with(Check::Due, LIMITS, story);
        assert_eq!(
            (verdict.as_ref().map(|verdict| verdict.code), verdict),
            (Some(123), Some(unverified.clone()))
        );
    }
    let verified = vec![
        (1, status(1, State::Ready)),
        (2, Event::Verified),
        (3, status(2, exited(0))),
        (4, Event::Drained),
        (5, off()),
    ];
    assert_eq!(live_with(Check::Due, LIMITS, verified).1.unwrap().code, 0);
}

#[test]
fn a_stop_is_not_cut_short_because_there_is_no_evidence_any_more() {
    let story = vec![
        (1, status(1, State::Ready)),
        (2, Event::Stop { why: "stopped".into(), grace: None }),
        (3, Event::NotVerified { why: "there was no evidence".into() }),
        (4, status(2, exited(7))),
        (5, Event::Drained),
        (6, off()),
    ];
    let (actions, verdict) = live_with(Check::Due, LIMITS, story);
    assert_eq!(actions, [Action::Verify, Action::RequestStop, Action::Drain, Action::Seen(2)]);
    assert_eq!(verdict.unwrap().code, 7);
}

#[test]
fn an_enclave_that_is_stopping_by_itself_is_not_reported_as_ready() {
    let stopping = State::Stopping { why: String::new() };
    let story = vec![(1, status(1, State::Ready)), (2, status(2, stopping)), (3, Event::Verified)];
    assert_eq!(live_with(Check::Due, LIMITS, story).0, [Action::Verify]);
}

proptest! {
    #[test]
    fn every_lifecycle_ends_after_a_stop_request(
        check in prop_oneof![Just(Check::Due), Just(Check::Done)],
        events in prop::collection::vec(any_event(), 0..30)) {
        let mut now = Instant::now();
        let mut lifecycle = Lifecycle::new(LIMITS, check, now);
        let mut kills = 0;
        let events = events.into_iter().chain([Event::Stop { why: String::new(), grace: None }]);
        for event in events {
            now += Duration::from_millis(10);
            kills += lifecycle.on(event, now).iter().filter(|action| **action == Action::Kill).count();
        }
        while let Some(deadline) = lifecycle.deadline() {
            prop_assert!(deadline > now, "a deadline that has passed was not acted on");
            now = deadline;
            kills += lifecycle.on(Event::Tick, now).iter().filter(|action| **action == Action::Kill).count();
        }
        prop_assert!(kills <= 1);
        prop_assert!(lifecycle.verdict().is_some());
    }
}
