//! Decisions of the state machine: single stories, and properties over random orders of events.

use cloister_wire::control::{Cause, Exit};
use cloister_wire::hold::{
    EXITED_BEFORE_EXEC, FromInit, FromSupervisor, Limits, MAX_HELD, Place, RawState, SignalTarget, Spawn,
    View, Welcome,
};
use proptest::prelude::*;

use super::state::{CRASH_WINDOW_NS, FIRST_PAUSE_MS, MAX_CRASHES, MAX_RETRIES};
use super::{Action, Event, Failure, HoldState};

const SUPERVISOR: u32 = 2;

fn spec() -> Box<Spawn> {
    Box::new(Spawn {
        argv: vec!["/bin/web".into()],
        env: vec![],
        place: Place::Root(View {
            cwd: "/".into(),
            as_pid_1: false,
            writable: None,
            pinned: vec![],
            files: vec![],
        }),
        uid: 1,
        gid: 1,
        groups: vec![],
        capabilities: 0,
        seccomp: vec![],
        limits: Limits::default(),
        fds: 0,
    })
}

fn spawn(name: &str) -> Event {
    Event::Requested(FromSupervisor::Spawn { name: name.into(), spec: spec() })
}

fn forget(name: &str) -> Event {
    Event::Requested(FromSupervisor::Forget { name: name.into() })
}

fn signal(name: &str, signal: u8, to: SignalTarget) -> Event {
    Event::Requested(FromSupervisor::Signal { name: name.into(), signal, to })
}

fn to_web(signal: u8) -> Action {
    Action::Signal { name: "web".into(), signal }
}

fn forked(name: &str, pid: u32) -> Event {
    Event::Forked { name: name.into(), pid, cgroup: 77 }
}

fn reaped(pid: u32, code: u8) -> Event {
    Event::Reaped { pid, exit: Exit::Code(code) }
}

fn emptied(name: &str) -> Event {
    Event::Emptied { name: name.into() }
}

fn failure() -> Failure {
    Failure { step: "exec".into(), errno: 2, error: "exec: /bin/web: No such file or directory".into() }
}

/// A state whose supervisor listens.
fn listening() -> HoldState {
    let mut state = HoldState::new("virtual", vec![]);
    state.on(Event::SupervisorStarted { pid: SUPERVISOR }, 0);
    state
}

/// A state that holds `web` as process 10.
fn holding() -> HoldState {
    let mut state = listening();
    state.on(spawn("web"), 1);
    state.on(forked("web", 10), 2);
    state.on(Event::Launched { pid: 10 }, 3);
    state
}

fn sent(actions: &[Action]) -> Vec<&FromInit> {
    actions
        .iter()
        .filter_map(|action| if let Action::Send(message) = action { Some(message) } else { None })
        .collect()
}

fn welcome(actions: &[Action]) -> &Welcome {
    match sent(actions).as_slice() {
        [FromInit::Welcome(welcome), ..] => welcome,
        other => panic!("no welcome but {other:?}"),
    }
}

fn crash(state: &mut HoldState, now: u64) -> Vec<Action> {
    state.on(Event::Reaped { pid: SUPERVISOR, exit: Exit::Signal { signal: 9, cause: Cause::Sent } }, now)
}

#[test]
fn a_spawn_is_forked_and_reported_when_its_program_runs() {
    let mut state = listening();
    assert_eq!(state.on(spawn("web"), 1), [Action::Launch { name: "web".into(), spec: spec() }]);
    assert_eq!(state.on(forked("web", 10), 2), []);
    let spawned = FromInit::Spawned { name: "web".into(), pid: 10, at_ns: 3, cgroup: 77 };
    assert_eq!(state.on(Event::Launched { pid: 10 }, 3), [Action::Send(spawned)]);
}

#[test]
fn a_name_in_use_is_not_spawned_again() {
    let mut state = holding();
    let actions = state.on(spawn("web"), 4);
    assert!(matches!(sent(&actions)[..], [FromInit::SpawnFailed { errno: 17, .. }]));
    assert_eq!(actions.len(), 1);
}

#[test]
fn invalid_names_are_refused() {
    for name in ["", "..", "a/b", "Web", "a.b", &"x".repeat(64)] {
        let actions = listening().on(spawn(name), 1);
        assert!(matches!(sent(&actions)[..], [FromInit::SpawnFailed { errno: 22, .. }]), "{name:?}");
    }
}

#[test]
fn names_of_servants_and_no_others_begin_with_an_at_sign() {
    let at = |name: &str, place: Place| {
        let spec = Box::new(Spawn { place, ..*spec() });
        listening().on(Event::Requested(FromSupervisor::Spawn { name: name.into(), spec }), 1)
    };
    let root = || spec().place;
    assert!(matches!(at("@gateway", Place::Empty)[..], [Action::Launch { .. }]));
    let cases = [("gateway", Place::Empty), ("@web", root()), ("@", Place::Empty), ("@@a", Place::Empty)];
    let long = format!("@{}", "x".repeat(63));
    for (name, place) in cases.into_iter().chain([(long.as_str(), Place::Empty), ("a@b", root())]) {
        let actions = at(name, place);
        assert!(matches!(sent(&actions)[..], [FromInit::SpawnFailed { errno: 22, .. }]), "{name:?}");
        assert_eq!(actions.len(), 1, "{name:?}");
    }
}

#[test]
fn held_processes_are_limited() {
    let mut state = listening();
    for number in 0..MAX_HELD {
        assert!(matches!(state.on(spawn(&format!("s{number}")), 1)[..], [Action::Launch { .. }]));
    }
    let actions = state.on(spawn("more"), 1);
    assert!(matches!(sent(&actions)[..], [FromInit::SpawnFailed { errno: 11, .. }]));
}

#[test]
fn a_failed_launch_is_reported_after_its_resources_are_released() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    state.on(forked("web", 10), 2);
    assert_eq!(state.on(Event::LaunchFailed { pid: 10, failure: failure() }, 3), []);
    let actions = state.on(reaped(10, 127), 4);
    assert_eq!(actions[0], Action::ClosePipes { name: "web".into() });
    assert_eq!(actions[1], Action::RemoveGroup { name: "web".into() });
    assert!(matches!(sent(&actions)[..], [FromInit::SpawnFailed { errno: 2, .. }]));
    assert!(matches!(state.on(spawn("web"), 5)[..], [Action::Launch { .. }]));
}

#[test]
fn a_program_is_launched_once() {
    let mut state = holding();
    assert_eq!(state.on(Event::Launched { pid: 10 }, 4), []);
}

#[test]
fn a_process_killed_during_exec_has_not_started() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    state.on(forked("web", 10), 2);
    let killed = Exit::Signal { signal: 9, cause: Cause::OutOfMemory };
    let actions = state.on(Event::Reaped { pid: 10, exit: killed }, 3);
    let [FromInit::SpawnFailed { step, errno: EXITED_BEFORE_EXEC, error, .. }] = &sent(&actions)[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        (step.as_str(), error.as_str()),
        ("exec", "exec: ended before its program ran: out of memory")
    );
    assert!(matches!(state.on(spawn("web"), 5)[..], [Action::Launch { .. }]), "nothing of it is left");
}

#[test]
fn a_failed_fork_is_reported_at_once() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    let actions = state.on(Event::NotForked { name: "web".into(), failure: failure() }, 2);
    assert!(matches!(sent(&actions)[..], [FromInit::SpawnFailed { .. }]));
    assert!(matches!(state.on(spawn("web"), 5)[..], [Action::Launch { .. }]));
}

#[test]
fn the_exit_of_a_process_is_reported_before_its_empty_cgroup() {
    let mut state = holding();
    assert_eq!(state.on(emptied("web"), 4), []);
    let actions = state.on(reaped(10, 3), 5);
    assert!(matches!(sent(&actions)[..], [FromInit::Exited(_), FromInit::Emptied { .. }]));
}

#[test]
fn signals_are_sent_once_the_process_is_forked() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    assert_eq!(state.on(signal("web", 15, SignalTarget::Main), 2), [], "there is no process yet");
    state.on(forked("web", 10), 2);
    assert_eq!(state.on(signal("web", 15, SignalTarget::Main), 3), [to_web(15)]);
    state.on(Event::Launched { pid: 10 }, 4);
    assert_eq!(state.on(signal("web", 15, SignalTarget::Main), 5), [to_web(15)]);
    assert_eq!(state.on(signal("web", 15, SignalTarget::Cgroup), 6), [], "a group is killed, nothing else");
}

#[test]
fn a_kill_of_a_cgroup_uses_the_cgroup() {
    let mut state = holding();
    let kill = state.on(signal("web", 9, SignalTarget::Cgroup), 4);
    assert_eq!(kill, [Action::KillGroup { name: "web".into() }]);
    assert_eq!(state.on(signal("web", 9, SignalTarget::Main), 4), [to_web(9)]);
    assert_eq!(state.on(signal("web", 0, SignalTarget::Main), 4), []);
    assert_eq!(state.on(signal("web", 65, SignalTarget::Main), 4), []);
}

#[test]
fn a_reaped_process_is_never_signalled() {
    let mut state = holding();
    state.on(reaped(10, 0), 4);
    state.on(emptied("web"), 4);
    assert_eq!(state.on(signal("web", 15, SignalTarget::Main), 5), []);
    assert_eq!(state.on(signal("web", 9, SignalTarget::Cgroup), 5), []);
}

#[test]
fn a_running_process_cannot_be_forgotten() {
    assert_eq!(holding().on(forget("web"), 4), []);
}

#[test]
fn a_forgotten_holding_leaves_nothing_behind() {
    let mut state = holding();
    state.on(reaped(10, 0), 4);
    state.on(emptied("web"), 4);
    let actions = state.on(forget("web"), 5);
    let name = "web".to_owned();
    assert_eq!(actions, [Action::ClosePipes { name: name.clone() }, Action::RemoveGroup { name }]);
    assert!(matches!(state.on(spawn("web"), 6)[..], [Action::Launch { .. }]));
}

#[test]
fn forgetting_kills_the_remaining_processes_of_a_service() {
    let mut state = holding();
    state.on(reaped(10, 0), 4);
    let actions = state.on(forget("web"), 5);
    let name = "web".to_owned();
    assert_eq!(
        actions,
        [Action::ClosePipes { name: name.clone() }, Action::KillGroup { name: name.clone() }]
    );
    assert!(matches!(sent(&state.on(spawn("web"), 5))[..], [FromInit::SpawnFailed { .. }]));
    assert_eq!(state.on(emptied("web"), 6), [Action::RemoveGroup { name }]);
    assert!(matches!(state.on(spawn("web"), 7)[..], [Action::Launch { .. }]));
}

#[test]
fn a_new_supervisor_is_handed_everything_that_is_held() {
    let mut state = holding();
    state.on(Event::Stashed { name: "log.web.out".into() }, 4);
    state.on(Event::RootMounted(Ok(())), 4);
    let actions = crash(&mut state, 5);
    assert!(matches!(actions[..], [Action::Print(_), Action::StartSupervisor]));
    assert_eq!(state.on(reaped(10, 3), 6), []);
    let actions = state.on(Event::SupervisorStarted { pid: 20 }, 7);
    let welcome = welcome(&actions);
    assert_eq!((welcome.restarts, welcome.root_mounted), (1, true));
    assert_eq!(welcome.stash, ["log.web.out"]);
    assert_eq!(welcome.held[0].ended.as_ref().unwrap().exit, Exit::Code(3));
    assert!(welcome.held[0].populated);
}

#[test]
fn a_process_before_exec_is_not_handed_over_as_running() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    state.on(forked("web", 10), 2);
    let fds =
        |state: &mut HoldState, pid| welcome(&state.on(Event::SupervisorStarted { pid }, 3)).held[0].fds;
    assert_eq!(fds(&mut state, 20), 0);
    assert!(matches!(sent(&state.on(Event::Launched { pid: 10 }, 4))[..], [FromInit::Spawned { .. }]));
    assert_eq!(fds(&mut state, 30), 2);
}

#[test]
fn an_exit_is_part_of_every_welcome_until_it_is_forgotten() {
    let mut state = holding();
    state.on(reaped(10, 3), 4);
    for pid in [20, 30] {
        let actions = state.on(Event::SupervisorStarted { pid }, 5);
        assert!(welcome(&actions).held[0].ended.is_some());
    }
    state.on(emptied("web"), 6);
    state.on(forget("web"), 6);
    assert!(welcome(&state.on(Event::SupervisorStarted { pid: 40 }, 7)).held.is_empty());
}

#[test]
fn a_supervisor_that_violates_the_protocol_is_killed_once_and_restarted() {
    let mut state = holding();
    assert_eq!(state.on(Event::Lost("it sent an invalid message".into()), 4), [Action::KillSupervisor]);
    assert_eq!(state.on(Event::Lost("again".into()), 4), []);
    let actions = crash(&mut state, 5);
    let Action::Print(line) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(line, "supervisor: killed by signal 9 (it sent an invalid message); restarting");
}

#[test]
fn a_supervisor_that_keeps_crashing_is_fatal() {
    let mut state = listening();
    for _ in 1..MAX_CRASHES {
        assert!(crash(&mut state, 1).contains(&Action::StartSupervisor));
        state.on(Event::SupervisorStarted { pid: SUPERVISOR }, 1);
    }
    let actions = crash(&mut state, 2);
    let [Action::Fatal { stage: "supervisor", error }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(error, "ended 5 times within 60 s, most recently killed by signal 9");
}

#[test]
fn crashes_that_are_far_apart_are_not_counted_together() {
    let mut state = listening();
    for round in 0..20 {
        assert!(crash(&mut state, round * CRASH_WINDOW_NS / 4).contains(&Action::StartSupervisor));
        state.on(Event::SupervisorStarted { pid: SUPERVISOR }, 1);
    }
}

#[test]
fn a_missing_supervisor_is_fatal_at_once() {
    let mut state = listening();
    assert_eq!(state.on(Event::LaunchFailed { pid: SUPERVISOR, failure: failure() }, 1), []);
    let actions = state.on(reaped(SUPERVISOR, 127), 1);
    assert!(matches!(actions[..], [Action::Fatal { stage: "supervisor", .. }]));
    let actions = listening().on(Event::NoSupervisor(failure()), 1);
    assert!(matches!(actions[..], [Action::Fatal { stage: "supervisor", .. }]));
}

/// A fork that the kernel refuses because the process limit is reached.
fn no_fork() -> Failure {
    Failure {
        step: "fork".into(),
        errno: 11,
        error: "fork: new process: Resource temporarily unavailable".into(),
    }
}

#[test]
fn a_supervisor_that_hangs_before_exec_is_killed_and_restarted() {
    let late = || Failure { step: "limits".into(), errno: 110, error: "limits: too slow".into() };
    let mut state = listening();
    for attempt in 0..MAX_RETRIES {
        assert_eq!(state.on(Event::Late(late()), 1), [Action::KillSupervisor]);
        // Its program may still run before it is killed, which does not count as a start.
        state.on(
            match attempt % 2 {
                0 => Event::LaunchFailed { pid: SUPERVISOR, failure: Failure::early("limits") },
                _ => Event::Launched { pid: SUPERVISOR },
            },
            2,
        );
        let actions = crash(&mut state, 3);
        let [Action::Print(line), Action::StartSupervisorIn { .. }] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(line, "supervisor: limits: too slow; retrying");
        state.on(Event::SupervisorStarted { pid: SUPERVISOR }, 4);
    }
    state.on(Event::Late(late()), 5);
    let actions = crash(&mut state, 6);
    assert!(matches!(actions[..], [Action::Fatal { stage: "supervisor", .. }]), "{actions:?}");
}

#[test]
fn a_supervisor_that_cannot_be_killed_is_fatal() {
    let late = || Failure { step: "exec".into(), errno: 110, error: "exec: too slow".into() };
    let mut state = listening();
    assert_eq!(state.on(Event::Late(late()), 1), [Action::KillSupervisor]);
    let actions = state.on(Event::Late(late()), 2);
    let [Action::Fatal { stage: "supervisor", error }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(error, "exec: too slow; cannot kill it");
}

#[test]
fn a_fork_of_the_supervisor_that_fails_temporarily_is_retried_after_a_pause() {
    let mut state = holding();
    crash(&mut state, 4);
    for doubled in [1, 2, 4] {
        let actions = state.on(Event::NoSupervisor(no_fork()), 5);
        let [Action::Print(line), Action::StartSupervisorIn { pause_ms }] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(*pause_ms, FIRST_PAUSE_MS * doubled);
        assert!(line.contains("Resource temporarily unavailable; retrying"), "{line}");
    }
    let actions = state.on(Event::SupervisorStarted { pid: 20 }, 6);
    assert_eq!((welcome(&actions).restarts, welcome(&actions).held.len()), (1, 1), "no crash but the first");
    state.on(Event::Launched { pid: 20 }, 7);
    state.on(reaped(20, 1), 8);
    let actions = state.on(Event::NoSupervisor(no_fork()), 9);
    assert!(
        actions.contains(&Action::StartSupervisorIn { pause_ms: FIRST_PAUSE_MS }),
        "the count starts again: {actions:?}"
    );
}

#[test]
fn a_supervisor_that_can_never_be_forked_is_fatal_eventually() {
    let mut state = listening();
    crash(&mut state, 1);
    for _ in 0..MAX_RETRIES {
        assert!(matches!(
            state.on(Event::NoSupervisor(no_fork()), 2)[..],
            [_, Action::StartSupervisorIn { .. }]
        ));
    }
    let actions = state.on(Event::NoSupervisor(no_fork()), 3);
    let [Action::Fatal { stage: "supervisor", error }] = &actions[..] else { panic!("{actions:?}") };
    assert!(error.contains("Resource temporarily unavailable"), "{error}");
}

/// A process that was killed before it executed its program.
fn ended() -> Failure {
    let error = "mounts: ended before its program ran".into();
    Failure { step: "mounts".into(), errno: EXITED_BEFORE_EXEC, error }
}

#[test]
fn a_process_that_dies_before_exec_never_started_and_the_cause_is_reported() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    state.on(forked("web", 10), 2);
    assert_eq!(state.on(Event::LaunchFailed { pid: 10, failure: ended() }, 3), []);
    let exit = Exit::Signal { signal: 9, cause: Cause::OutOfMemory };
    let actions = state.on(Event::Reaped { pid: 10, exit }, 4);
    let [FromInit::SpawnFailed { step, errno, error, .. }] = sent(&actions)[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((step.as_str(), *errno), ("mounts", EXITED_BEFORE_EXEC));
    assert_eq!(error, "mounts: ended before its program ran: out of memory");
}

#[test]
fn a_supervisor_that_dies_before_exec_is_forked_after_a_pause() {
    let mut state = listening();
    state.on(Event::LaunchFailed { pid: SUPERVISOR, failure: ended() }, 1);
    let actions = crash(&mut state, 2);
    let [Action::Print(line), Action::StartSupervisorIn { .. }] = &actions[..] else { panic!("{actions:?}") };
    assert!(line.contains("ended before its program ran: killed by signal 9; retrying"), "{line}");
}

#[test]
fn a_stop_request_survives_a_crash_of_the_supervisor() {
    let mut state = listening();
    crash(&mut state, 1);
    assert_eq!(state.on(Event::StopRequested("SIGTERM to init".into()), 2), []);
    let actions = state.on(Event::SupervisorStarted { pid: 20 }, 3);
    assert!(matches!(sent(&actions)[..], [FromInit::Welcome(_), FromInit::StopRequested { .. }]));
}

#[test]
fn the_root_is_mounted_once() {
    let mut state = listening();
    let request = || Event::Requested(FromSupervisor::MountRoot { writable_bytes: 7, reserved_bytes: 8 });
    assert_eq!(state.on(request(), 1), [Action::MountRoot { writable_bytes: 7, reserved_bytes: 8 }]);
    state.on(Event::RootMounted(Err("no such image".into())), 1);
    assert_eq!(state.on(request(), 2), [Action::MountRoot { writable_bytes: 7, reserved_bytes: 8 }]);
    state.on(Event::RootMounted(Ok(())), 2);
    assert_eq!(sent(&state.on(request(), 3)), [&FromInit::RootMounted { error: None }]);
}

#[test]
fn an_invalid_stash_request_kills_the_supervisor_which_would_wait_for_a_response() {
    let mut state = listening();
    let stash = |name: &str| Event::Requested(FromSupervisor::Stash { name: name.into(), fds: 0 });
    assert_eq!(state.on(stash("log.web_1.out"), 1), [Action::Stash { name: "log.web_1.out".into() }]);
    assert_eq!(state.on(stash("a/b"), 1), [Action::KillSupervisor]);
}

#[test]
fn an_orphan_is_reaped_and_not_reported() {
    assert_eq!(holding().on(reaped(999, 1), 4), []);
}

#[test]
fn the_final_state_is_passed_on_unchanged() {
    let json = r#"{"state":"exited","service":"web","code":3}"#;
    let state = RawState::from(serde_json::value::RawValue::from_string(json.into()).unwrap());
    let actions = listening().on(Event::Requested(FromSupervisor::PowerOff { state }), 1);
    assert_eq!(actions, [Action::PowerOff { state: json.into() }]);
}

/// An event to try next; one that cannot happen in the current world is skipped.
#[derive(Clone, Debug)]
enum Step {
    Spawn(u8),
    Fork,
    ForkFails,
    Launch,
    LaunchFails,
    End(u8),
    Empty,
    Forget(u8),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u8..3).prop_map(Step::Spawn),
        Just(Step::Fork),
        Just(Step::ForkFails),
        Just(Step::Launch),
        Just(Step::LaunchFails),
        any::<u8>().prop_map(Step::End),
        Just(Step::Empty),
        (0u8..3).prop_map(Step::Forget),
        Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..60)
}

/// The world around the state: what `crate::serve` would know, and what a supervisor received.
#[derive(Default)]
struct World {
    next_pid: u32,
    /// Names to be forked.
    requested: Vec<String>,
    processes: Vec<Process>,
    supervisor: u32,
    reported_exits: Vec<u32>,
}

#[derive(Clone)]
struct Process {
    name: String,
    pid: u32,
    runs: bool,
    ended: bool,
    emptied: bool,
}

impl World {
    fn events(&mut self, step: &Step) -> Option<Event> {
        let event = match step {
            Step::Spawn(n) => spawn(&format!("s{n}")),
            Step::Forget(n) => forget(&format!("s{n}")),
            Step::Fork => {
                let name = self.requested.pop()?;
                self.next_pid += 1;
                let pid = 100 + self.next_pid;
                self.processes.push(Process {
                    name: name.clone(),
                    pid,
                    runs: false,
                    ended: false,
                    emptied: false,
                });
                forked(&name, pid)
            }
            Step::ForkFails => Event::NotForked { name: self.requested.pop()?, failure: failure() },
            Step::Launch => {
                let process = self.processes.iter_mut().find(|p| !p.runs && !p.ended)?;
                process.runs = true;
                Event::Launched { pid: process.pid }
            }
            Step::LaunchFails => {
                let process = self.processes.iter_mut().find(|p| !p.runs && !p.ended)?;
                process.ended = true;
                process.emptied = true;
                Event::LaunchFailed { pid: process.pid, failure: failure() }
            }
            Step::End(code) => {
                let process = self.processes.iter_mut().find(|p| p.runs && !p.ended)?;
                process.ended = true;
                reaped(process.pid, *code)
            }
            Step::Empty => {
                let process = self.processes.iter_mut().find(|p| p.runs && p.ended && !p.emptied)?;
                process.emptied = true;
                emptied(&process.name)
            }
            Step::Crash => reaped(self.supervisor, 1),
        };
        Some(event)
    }
}

proptest! {
    #[test]
    fn in_any_order_nothing_is_forked_twice_and_each_exit_is_reported_once(steps in steps()) {
        let mut state = listening();
        let mut world = World { supervisor: SUPERVISOR, ..World::default() };
        let mut now = 0;
        for step in steps {
            now += CRASH_WINDOW_NS;
            let Some(event) = world.events(&step) else { continue };
            let mut queue = vec![event];
            if let Step::LaunchFails = step {
                let pid = world.processes.iter().rfind(|p| p.ended && !p.runs).unwrap().pid;
                queue.push(reaped(pid, 127));
                world.processes.retain(|p| p.pid != pid);
            }
            for event in queue {
                for action in state.on(event, now) {
                    match action {
                        Action::Launch { name, .. } => {
                            prop_assert!(!world.requested.contains(&name));
                            prop_assert!(!world.processes.iter().any(|p| p.name == name));
                            world.requested.push(name);
                        }
                        Action::RemoveGroup { name } => {
                            prop_assert!(world.processes.iter().all(|p| p.name != name || p.emptied));
                            world.processes.retain(|p| p.name != name);
                        }
                        Action::StartSupervisor => {
                            world.supervisor += 1;
                            let actions = state.on(Event::SupervisorStarted { pid: world.supervisor }, now);
                            let held = &welcome(&actions).held;
                            for process in world.processes.iter().filter(|p| p.ended) {
                                let entry = held.iter().find(|held| held.pid == process.pid);
                                prop_assert!(entry.is_none_or(|held| held.ended.is_some()));
                            }
                        }
                        Action::Send(FromInit::Exited(ended)) => {
                            prop_assert!(!world.reported_exits.contains(&ended.pid));
                            world.reported_exits.push(ended.pid);
                        }
                        Action::Fatal { .. } | Action::PowerOff { .. } => prop_assert!(false, "unexpected shutdown"),
                        _ => {}
                    }
                }
            }
            for process in world.processes.iter().filter(|p| p.runs && p.ended) {
                prop_assert!(world.reported_exits.contains(&process.pid), "an exit was not reported");
            }
        }
    }
}
