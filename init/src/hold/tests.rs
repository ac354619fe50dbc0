//! What is decided, told as stories, and checked over any order of events.

use cloister_wire::control::{Cause, Exit};
use cloister_wire::hold::{
    EXITED_BEFORE_EXEC, FromInit, FromSupervisor, Limits, MAX_HELD, Place, RawState, SignalTarget, Spawn,
    View, Welcome,
};
use proptest::prelude::*;

use super::state::{CRASH_WINDOW_NS, FIRST_PAUSE_MS, MAX_CRASHES, MAX_TRIES};
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
    Event::Asked(FromSupervisor::Spawn { name: name.into(), spec: spec() })
}

fn forget(name: &str) -> Event {
    Event::Asked(FromSupervisor::Forget { name: name.into() })
}

fn signal(name: &str, signal: u8, to: SignalTarget) -> Event {
    Event::Asked(FromSupervisor::Signal { name: name.into(), signal, to })
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

fn told(actions: &[Action]) -> Vec<&FromInit> {
    actions
        .iter()
        .filter_map(|action| if let Action::Tell(message) = action { Some(message) } else { None })
        .collect()
}

fn welcome(actions: &[Action]) -> &Welcome {
    match told(actions).as_slice() {
        [FromInit::Welcome(welcome), ..] => welcome,
        other => panic!("no welcome but {other:?}"),
    }
}

fn crash(state: &mut HoldState, now: u64) -> Vec<Action> {
    state.on(Event::Reaped { pid: SUPERVISOR, exit: Exit::Signal { signal: 9, cause: Cause::Sent } }, now)
}

#[test]
fn a_spawn_is_forked_and_told_when_its_program_runs() {
    let mut state = listening();
    assert_eq!(state.on(spawn("web"), 1), [Action::Launch { name: "web".into(), spec: spec() }]);
    assert_eq!(state.on(forked("web", 10), 2), []);
    let spawned = FromInit::Spawned { name: "web".into(), pid: 10, at_ns: 3, cgroup: 77 };
    assert_eq!(state.on(Event::Launched { pid: 10 }, 3), [Action::Tell(spawned)]);
}

#[test]
fn a_name_that_is_held_is_not_spawned_twice() {
    let mut state = holding();
    let actions = state.on(spawn("web"), 4);
    assert!(matches!(told(&actions)[..], [FromInit::SpawnFailed { errno: 17, .. }]));
    assert_eq!(actions.len(), 1);
}

#[test]
fn names_that_are_no_names_never_become_folders() {
    for name in ["", "..", "a/b", "Web", "a.b", &"x".repeat(64)] {
        let actions = listening().on(spawn(name), 1);
        assert!(matches!(told(&actions)[..], [FromInit::SpawnFailed { errno: 22, .. }]), "{name:?}");
    }
}

#[test]
fn names_with_an_at_sign_are_for_servants_and_no_other() {
    let at = |name: &str, place: Place| {
        let spec = Box::new(Spawn { place, ..*spec() });
        listening().on(Event::Asked(FromSupervisor::Spawn { name: name.into(), spec }), 1)
    };
    let root = || spec().place;
    assert!(matches!(at("@gateway", Place::Empty)[..], [Action::Launch { .. }]));
    let cases = [("gateway", Place::Empty), ("@web", root()), ("@", Place::Empty), ("@@a", Place::Empty)];
    let long = format!("@{}", "x".repeat(63));
    for (name, place) in cases.into_iter().chain([(long.as_str(), Place::Empty), ("a@b", root())]) {
        let actions = at(name, place);
        assert!(matches!(told(&actions)[..], [FromInit::SpawnFailed { errno: 22, .. }]), "{name:?}");
        assert_eq!(actions.len(), 1, "{name:?}");
    }
}

#[test]
fn a_confused_supervisor_cannot_fill_pid_1() {
    let mut state = listening();
    for number in 0..MAX_HELD {
        assert!(matches!(state.on(spawn(&format!("s{number}")), 1)[..], [Action::Launch { .. }]));
    }
    let actions = state.on(spawn("more"), 1);
    assert!(matches!(told(&actions)[..], [FromInit::SpawnFailed { errno: 11, .. }]));
}

#[test]
fn a_failed_launch_is_told_once_nothing_of_it_is_left() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    state.on(forked("web", 10), 2);
    assert_eq!(state.on(Event::LaunchFailed { pid: 10, failure: failure() }, 3), []);
    let actions = state.on(reaped(10, 127), 4);
    assert_eq!(actions[0], Action::ClosePipes { name: "web".into() });
    assert_eq!(actions[1], Action::RemoveGroup { name: "web".into() });
    assert!(matches!(told(&actions)[..], [FromInit::SpawnFailed { errno: 2, .. }]));
    assert!(matches!(state.on(spawn("web"), 5)[..], [Action::Launch { .. }]));
}

#[test]
fn a_process_becomes_its_program_once() {
    let mut state = holding();
    assert_eq!(state.on(Event::Launched { pid: 10 }, 4), []);
}

#[test]
fn a_process_that_is_killed_while_it_becomes_its_program_has_not_started() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    state.on(forked("web", 10), 2);
    let killed = Exit::Signal { signal: 9, cause: Cause::OutOfMemory };
    let actions = state.on(Event::Reaped { pid: 10, exit: killed }, 3);
    let [FromInit::SpawnFailed { step, errno: EXITED_BEFORE_EXEC, error, .. }] = &told(&actions)[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        (step.as_str(), error.as_str()),
        ("exec", "exec: it ended before its program ran, out of memory")
    );
    assert!(matches!(state.on(spawn("web"), 5)[..], [Action::Launch { .. }]), "nothing of it is left");
}

#[test]
fn nothing_forked_is_told_at_once() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    let actions = state.on(Event::NotForked { name: "web".into(), failure: failure() }, 2);
    assert!(matches!(told(&actions)[..], [FromInit::SpawnFailed { .. }]));
    assert!(matches!(state.on(spawn("web"), 5)[..], [Action::Launch { .. }]));
}

#[test]
fn the_end_of_a_process_is_told_before_the_emptiness_of_its_cgroup() {
    let mut state = holding();
    assert_eq!(state.on(emptied("web"), 4), []);
    let actions = state.on(reaped(10, 3), 5);
    assert!(matches!(told(&actions)[..], [FromInit::Exited(_), FromInit::Emptied { .. }]));
}

#[test]
fn a_signal_is_sent_from_the_fork_on() {
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
fn a_kill_of_the_whole_goes_by_the_cgroup() {
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
fn what_runs_cannot_be_forgotten() {
    assert_eq!(holding().on(forget("web"), 4), []);
}

#[test]
fn a_forgotten_holding_leaves_nothing() {
    let mut state = holding();
    state.on(reaped(10, 0), 4);
    state.on(emptied("web"), 4);
    let actions = state.on(forget("web"), 5);
    let name = "web".to_owned();
    assert_eq!(actions, [Action::ClosePipes { name: name.clone() }, Action::RemoveGroup { name }]);
    assert!(matches!(state.on(spawn("web"), 6)[..], [Action::Launch { .. }]));
}

#[test]
fn forgetting_kills_what_a_service_left_behind() {
    let mut state = holding();
    state.on(reaped(10, 0), 4);
    let actions = state.on(forget("web"), 5);
    let name = "web".to_owned();
    assert_eq!(
        actions,
        [Action::ClosePipes { name: name.clone() }, Action::KillGroup { name: name.clone() }]
    );
    assert!(matches!(told(&state.on(spawn("web"), 5))[..], [FromInit::SpawnFailed { .. }]));
    assert_eq!(state.on(emptied("web"), 6), [Action::RemoveGroup { name }]);
    assert!(matches!(state.on(spawn("web"), 7)[..], [Action::Launch { .. }]));
}

#[test]
fn a_new_supervisor_is_handed_everything_that_is_held() {
    let mut state = holding();
    state.on(Event::Stashed { name: "log.web.out".into() }, 4);
    state.on(Event::RootMounted(Ok(())), 4);
    let actions = crash(&mut state, 5);
    assert!(matches!(actions[..], [Action::Say(_), Action::StartSupervisor]));
    assert_eq!(state.on(reaped(10, 3), 6), []);
    let actions = state.on(Event::SupervisorStarted { pid: 20 }, 7);
    let welcome = welcome(&actions);
    assert_eq!((welcome.restarts, welcome.root_mounted), (1, true));
    assert_eq!(welcome.stash, ["log.web.out"]);
    assert_eq!(welcome.held[0].ended.as_ref().unwrap().exit, Exit::Code(3));
    assert!(welcome.held[0].populated);
}

#[test]
fn a_process_on_its_way_to_its_program_is_not_handed_over_as_running() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    state.on(forked("web", 10), 2);
    let fds =
        |state: &mut HoldState, pid| welcome(&state.on(Event::SupervisorStarted { pid }, 3)).held[0].fds;
    assert_eq!(fds(&mut state, 20), 0);
    assert!(matches!(told(&state.on(Event::Launched { pid: 10 }, 4))[..], [FromInit::Spawned { .. }]));
    assert_eq!(fds(&mut state, 30), 2);
}

#[test]
fn an_exit_is_told_with_each_welcome_until_it_is_forgotten() {
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
fn a_supervisor_that_talks_nonsense_is_killed_once_and_started_again() {
    let mut state = holding();
    assert_eq!(state.on(Event::Lost("it said nonsense".into()), 4), [Action::KillSupervisor]);
    assert_eq!(state.on(Event::Lost("again".into()), 4), []);
    let actions = crash(&mut state, 5);
    let Action::Say(line) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(line, "supervisor: ended by signal 9 (it said nonsense); starting it again");
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
    assert_eq!(error, "it ended 5 times within 60 s, the last time by signal 9");
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
fn a_supervisor_that_is_missing_is_fatal_at_once() {
    let mut state = listening();
    assert_eq!(state.on(Event::LaunchFailed { pid: SUPERVISOR, failure: failure() }, 1), []);
    let actions = state.on(reaped(SUPERVISOR, 127), 1);
    assert!(matches!(actions[..], [Action::Fatal { stage: "supervisor", .. }]));
    let actions = listening().on(Event::NoSupervisor(failure()), 1);
    assert!(matches!(actions[..], [Action::Fatal { stage: "supervisor", .. }]));
}

/// A fork that the kernel refuses for want of processes.
fn no_fork() -> Failure {
    Failure {
        step: "fork".into(),
        errno: 11,
        error: "fork: a process: Resource temporarily unavailable".into(),
    }
}

#[test]
fn a_supervisor_that_hangs_on_its_way_is_killed_and_started_again() {
    let late = || Failure { step: "limits".into(), errno: 110, error: "limits: it takes too long".into() };
    let mut state = listening();
    for attempt in 0..MAX_TRIES {
        assert_eq!(state.on(Event::Late(late()), 1), [Action::KillSupervisor]);
        // It may still become its program before it is killed, which is no start.
        state.on(
            match attempt % 2 {
                0 => Event::LaunchFailed { pid: SUPERVISOR, failure: Failure::early("limits") },
                _ => Event::Launched { pid: SUPERVISOR },
            },
            2,
        );
        let actions = crash(&mut state, 3);
        let [Action::Say(line), Action::StartSupervisorIn { .. }] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(line, "supervisor: limits: it takes too long; trying again");
        state.on(Event::SupervisorStarted { pid: SUPERVISOR }, 4);
    }
    state.on(Event::Late(late()), 5);
    let actions = crash(&mut state, 6);
    assert!(matches!(actions[..], [Action::Fatal { stage: "supervisor", .. }]), "{actions:?}");
}

#[test]
fn a_supervisor_that_cannot_even_be_killed_is_fatal() {
    let late = || Failure { step: "exec".into(), errno: 110, error: "exec: it takes too long".into() };
    let mut state = listening();
    assert_eq!(state.on(Event::Late(late()), 1), [Action::KillSupervisor]);
    let actions = state.on(Event::Late(late()), 2);
    let [Action::Fatal { stage: "supervisor", error }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(error, "exec: it takes too long, and cannot be killed");
}

#[test]
fn a_supervisor_that_cannot_be_forked_for_a_moment_is_forked_after_a_pause() {
    let mut state = holding();
    crash(&mut state, 4);
    for doubled in [1, 2, 4] {
        let actions = state.on(Event::NoSupervisor(no_fork()), 5);
        let [Action::Say(line), Action::StartSupervisorIn { pause_ms }] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(*pause_ms, FIRST_PAUSE_MS * doubled);
        assert!(line.contains("Resource temporarily unavailable; trying again"), "{line}");
    }
    let actions = state.on(Event::SupervisorStarted { pid: 20 }, 6);
    assert_eq!((welcome(&actions).restarts, welcome(&actions).held.len()), (1, 1), "no crash but the first");
    state.on(Event::Launched { pid: 20 }, 7);
    state.on(reaped(20, 1), 8);
    let actions = state.on(Event::NoSupervisor(no_fork()), 9);
    assert!(
        actions.contains(&Action::StartSupervisorIn { pause_ms: FIRST_PAUSE_MS }),
        "counted anew: {actions:?}"
    );
}

#[test]
fn a_supervisor_that_can_never_be_forked_is_fatal_in_the_end() {
    let mut state = listening();
    crash(&mut state, 1);
    for _ in 0..MAX_TRIES {
        assert!(matches!(
            state.on(Event::NoSupervisor(no_fork()), 2)[..],
            [_, Action::StartSupervisorIn { .. }]
        ));
    }
    let actions = state.on(Event::NoSupervisor(no_fork()), 3);
    let [Action::Fatal { stage: "supervisor", error }] = &actions[..] else { panic!("{actions:?}") };
    assert!(error.contains("Resource temporarily unavailable"), "{error}");
}

/// A process that was killed on its way to its program.
fn ended() -> Failure {
    let error = "mounts: it ended before its program ran".into();
    Failure { step: "mounts".into(), errno: EXITED_BEFORE_EXEC, error }
}

#[test]
fn a_process_that_dies_on_its_way_never_started_and_its_death_is_told() {
    let mut state = listening();
    state.on(spawn("web"), 1);
    state.on(forked("web", 10), 2);
    assert_eq!(state.on(Event::LaunchFailed { pid: 10, failure: ended() }, 3), []);
    let exit = Exit::Signal { signal: 9, cause: Cause::OutOfMemory };
    let actions = state.on(Event::Reaped { pid: 10, exit }, 4);
    let [FromInit::SpawnFailed { step, errno, error, .. }] = told(&actions)[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((step.as_str(), *errno), ("mounts", EXITED_BEFORE_EXEC));
    assert_eq!(error, "mounts: it ended before its program ran, out of memory");
}

#[test]
fn a_supervisor_that_dies_on_its_way_is_forked_after_a_pause() {
    let mut state = listening();
    state.on(Event::LaunchFailed { pid: SUPERVISOR, failure: ended() }, 1);
    let actions = crash(&mut state, 2);
    let [Action::Say(line), Action::StartSupervisorIn { .. }] = &actions[..] else { panic!("{actions:?}") };
    assert!(line.contains("it ended before its program ran, by signal 9; trying again"), "{line}");
}

#[test]
fn a_wish_to_stop_survives_a_crash_of_the_supervisor() {
    let mut state = listening();
    crash(&mut state, 1);
    assert_eq!(state.on(Event::StopRequested("SIGTERM to init".into()), 2), []);
    let actions = state.on(Event::SupervisorStarted { pid: 20 }, 3);
    assert!(matches!(told(&actions)[..], [FromInit::Welcome(_), FromInit::StopRequested { .. }]));
}

#[test]
fn the_root_is_mounted_once() {
    let mut state = listening();
    let ask = || Event::Asked(FromSupervisor::MountRoot { writable_bytes: 7, reserved_bytes: 8 });
    assert_eq!(state.on(ask(), 1), [Action::MountRoot { writable_bytes: 7, reserved_bytes: 8 }]);
    state.on(Event::RootMounted(Err("no such image".into())), 1);
    assert_eq!(state.on(ask(), 2), [Action::MountRoot { writable_bytes: 7, reserved_bytes: 8 }]);
    state.on(Event::RootMounted(Ok(())), 2);
    assert_eq!(told(&state.on(ask(), 3)), [&FromInit::RootMounted { error: None }]);
}

#[test]
fn a_stash_without_an_answer_would_be_waited_for_so_its_asker_is_given_up() {
    let mut state = listening();
    let keep = |name: &str| Event::Asked(FromSupervisor::Stash { name: name.into(), fds: 0 });
    assert_eq!(state.on(keep("log.web_1.out"), 1), [Action::Stash { name: "log.web_1.out".into() }]);
    assert_eq!(state.on(keep("a/b"), 1), [Action::KillSupervisor]);
}

#[test]
fn an_orphan_is_reaped_and_nobody_is_told() {
    assert_eq!(holding().on(reaped(999, 1), 4), []);
}

#[test]
fn the_last_state_is_passed_on_as_it_came() {
    let words = r#"{"state":"exited","service":"web","code":3}"#;
    let state = RawState::from(serde_json::value::RawValue::from_string(words.into()).unwrap());
    let actions = listening().on(Event::Asked(FromSupervisor::PowerOff { state }), 1);
    assert_eq!(actions, [Action::PowerOff { state: words.into() }]);
}

/// What can happen next, as far as the world allows it.
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

/// The world beside the state: what init's performing part would know, and what a supervisor heard.
#[derive(Default)]
struct World {
    next_pid: u32,
    /// Names to be forked.
    asked: Vec<String>,
    /// Name, process, whether it runs its program, whether it has ended, whether it failed.
    processes: Vec<Process>,
    supervisor: u32,
    exits_told: Vec<u32>,
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
                let name = self.asked.pop()?;
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
            Step::ForkFails => Event::NotForked { name: self.asked.pop()?, failure: failure() },
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
    fn in_any_order_nothing_is_forked_twice_and_each_exit_is_told_until_forgotten(steps in steps()) {
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
                            prop_assert!(!world.asked.contains(&name));
                            prop_assert!(!world.processes.iter().any(|p| p.name == name));
                            world.asked.push(name);
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
                                let known = held.iter().find(|held| held.pid == process.pid);
                                prop_assert!(known.is_none_or(|held| held.ended.is_some()));
                            }
                        }
                        Action::Tell(FromInit::Exited(ended)) => {
                            prop_assert!(!world.exits_told.contains(&ended.pid));
                            world.exits_told.push(ended.pid);
                        }
                        Action::Fatal { .. } | Action::PowerOff { .. } => prop_assert!(false, "no end was due"),
                        _ => {}
                    }
                }
            }
            for process in world.processes.iter().filter(|p| p.runs && p.ended) {
                prop_assert!(world.exits_told.contains(&process.pid), "an exit that nobody was told");
            }
        }
    }
}
