//! Properties of the machine for any sequence of events: nothing is spawned while it is held or released while it runs
//! (the simulator refuses both), every stop completes, and a crash of the supervisor at any point changes none of it.

use std::collections::BTreeMap;

use cloister_manifest::model::{Check, Live, Policy, Ready, Restart, Service};
use cloister_wire::control::{Phase, State as Enclave, Verb};
use proptest::prelude::*;

use super::lifecycle::SPAWN_MS;
use super::simulator::{Simulator, job, service};
use super::{CLOSING_MS, DRAIN_MS, Event, Id, KILL_GRACE_MS, Retry, Verdict};

/// An event that may happen to one of four services.
#[derive(Clone, Debug)]
enum Turn {
    Spawned(usize),
    SpawnFails(usize, Retry),
    Exits(usize, u8),
    Empties(usize),
    Notifies(usize, Notification),
    Requested(usize, Verb),
    Wait(u64),
    Crash,
    Stop,
    Drained,
}

/// A service's notification, over a socket of its own: before or after init reports its start.
#[derive(Clone, Copy, Debug)]
enum Notification {
    Ready,
    Alive,
    Dead,
    Leaving,
}

fn notification() -> impl Strategy<Value = Notification> {
    use Notification::{Alive, Dead, Leaving, Ready};
    prop_oneof![3 => Just(Ready), 1 => Just(Alive), 2 => Just(Dead), 1 => Just(Leaving)]
}

fn notify(sim: &mut Simulator, name: &str, notification: Notification) {
    let id = sim.id(name);
    let Some(run) = sim.machine.run(id) else { return };
    sim.on(match notification {
        Notification::Ready => Event::Ready { id, run },
        Notification::Alive => Event::WatchdogPing { id },
        Notification::Dead => Event::Checked { id, run, verdict: Verdict::Dead },
        Notification::Leaving => Event::Leaving { id },
    });
}

fn turn() -> impl Strategy<Value = Turn> {
    let who = 0usize..4;
    let retry = prop_oneof![Just(Retry::Soon), Just(Retry::ByPolicy), Just(Retry::Never)];
    let verb = prop_oneof![Just(Verb::Start), Just(Verb::Stop), Just(Verb::Restart)];
    prop_oneof![
        6 => who.clone().prop_map(Turn::Spawned),
        1 => (who.clone(), retry).prop_map(|(w, retry)| Turn::SpawnFails(w, retry)),
        4 => (who.clone(), 0u8..2).prop_map(|(w, code)| Turn::Exits(w, code)),
        4 => who.clone().prop_map(Turn::Empties),
        5 => (who.clone(), notification()).prop_map(|(w, notification)| Turn::Notifies(w, notification)),
        2 => (who, verb).prop_map(|(w, verb)| Turn::Requested(w, verb)),
        4 => (0u64..2_000).prop_map(Turn::Wait),
        1 => Just(Turn::Wait(SPAWN_MS)),
        2 => Just(Turn::Crash),
        1 => Just(Turn::Stop),
        1 => Just(Turn::Drained),
    ]
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let policy = prop_oneof![Just(Policy::Always), Just(Policy::OnFailure), Just(Policy::Never)];
    let one = (policy, any::<bool>(), any::<bool>(), any::<bool>(), 0usize..4, 0usize..4);
    prop::collection::vec(one, 4).prop_map(|rows| {
        let names = ["a", "b", "c", "d"];
        let build = |(place, row): (usize, (Policy, bool, bool, bool, usize, usize))| {
            let (policy, is_job, critical, probed, after, requires) = row;
            let base = if is_job { job(names[place]) } else { service(names[place]) };
            let before =
                |on: usize| names[..place].get(on).map(|n| vec![(*n).to_owned()]).unwrap_or_default();
            Service {
                critical,
                ready: if probed { Ready::Tcp(1) } else { Ready::Started },
                after: before(after),
                requires: before(requires),
                restart: Restart { policy, ..base.restart },
                ..base
            }
        };
        rows.into_iter().enumerate().map(build).collect()
    })
}

/// Whether the simulator holds the service and has not reported its start.
fn is_unreported(sim: &Simulator, name: &str) -> bool {
    sim.held.contains_key(name) && sim.machine.pid(sim.id(name)).is_err() && sim.held[name].ended.is_none()
}

fn play(sim: &mut Simulator, turn: &Turn) {
    let names = ["a", "b", "c", "d"];
    match *turn {
        Turn::Spawned(who) if is_unreported(sim, names[who]) => sim.spawned(names[who]),
        Turn::SpawnFails(who, retry) if is_unreported(sim, names[who]) => {
            sim.held.remove(names[who]);
            sim.on(Event::SpawnFailed { id: sim.id(names[who]), retry, error: "no".into() });
        }
        Turn::Exits(who, code) if is_reported(sim, names[who]) && sim.held[names[who]].ended.is_none() => {
            sim.exits(names[who], cloister_wire::control::Exit::Code(code));
        }
        Turn::Empties(who) if sim.held.get(names[who]).is_some_and(|h| h.ended.is_some() && h.populated) => {
            sim.empties(names[who]);
        }
        Turn::Notifies(who, notification) => notify(sim, names[who], notification),
        Turn::Requested(who, verb) => sim.on(Event::Requested { id: sim.id(names[who]), verb }),
        Turn::Wait(millis) => sim.wait(millis),
        Turn::Crash => sim.crash(),
        Turn::Stop => sim.on(Event::Stop { why: "requested".into() }),
        Turn::Drained => sim.on(Event::Drained),
        _ => {}
    }
}

fn is_reported(sim: &Simulator, name: &str) -> bool {
    sim.held.contains_key(name) && sim.machine.pid(sim.id(name)).is_ok()
}

/// Init reports everything that it has started. A crash reports it too, and the report of a start may start a dependent
/// service: that is not a restart.
fn report_starts(sim: &mut Simulator) {
    for _ in 0..4 {
        for name in ["a", "b", "c", "d"] {
            if is_unreported(sim, name) {
                sim.spawned(name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stop_always_completes(services in services(), turns in prop::collection::vec(turn(), 0..60)) {
        let mut sim = Simulator::new(services);
        for turn in &turns {
            play(&mut sim, turn);
        }
        sim.on(Event::Stop { why: "requested".into() });
        sim.wait(DRAIN_MS + 5_000 + KILL_GRACE_MS + CLOSING_MS);
        prop_assert!(sim.off.is_some(), "{:?}", sim.machine.state());
        prop_assert_eq!(sim.machine.next_deadline(), None);
        sim.crash();
        prop_assert!(sim.off.is_some(), "not powered off: {:?}", sim.machine.state());
    }

    #[test]
    fn notifications_count_the_same_however_late_the_start_is_reported(
        ready in prop_oneof![3 => Just(Ready::Notify), 1 => Just(Ready::Started), 1 => Just(Ready::Tcp(1))],
        notifications in prop::collection::vec(notification(), 0..12),
        early in 0usize..12,
        crash in any::<bool>(),
    ) {
        let live = Some(Live { check: Check::Watchdog, interval_ms: 100, timeout_ms: 100, threshold: 2 });
        let start = || Simulator::new(vec![Service { ready: ready.clone(), live: live.clone(), ..service("a") }]);
        let (mut in_order, mut late) = (start(), start());
        in_order.spawned("a");
        let (first, rest) = notifications.split_at(early.min(notifications.len()));
        for notification in first {
            notify(&mut in_order, "a", *notification);
            notify(&mut late, "a", *notification);
        }
        if crash {
            in_order.crash();
            late.crash();
        }
        late.spawned("a");
        for notification in rest {
            notify(&mut in_order, "a", *notification);
            notify(&mut late, "a", *notification);
        }
        prop_assert_eq!(in_order.machine.statuses(), late.machine.statuses());
        if !crash {
            prop_assert_eq!(in_order.machine.state(), late.machine.state());
            prop_assert_eq!(in_order.done, late.done);
        }
    }

    #[test]
    fn a_service_reported_as_running_is_held(services in services(), turns in prop::collection::vec(turn(), 0..60)) {
        let mut sim = Simulator::new(services);
        for turn in &turns {
            play(&mut sim, turn);
            for (place, status) in (0u16..).zip(sim.machine.statuses()) {
                let runs = matches!(status.phase, Phase::Starting | Phase::Ready | Phase::Unhealthy);
                prop_assert_eq!(sim.machine.find(&status.name).unwrap(), Id(place));
                prop_assert!(!runs || sim.held.contains_key(&status.name), "{:?}", status);
                if let Some(pid) = status.pid {
                    prop_assert_eq!(pid, sim.held[&status.name].pid);
                }
            }
        }
    }

    #[test]
    fn an_ended_service_is_released_once_and_each_later_start_is_a_restart(
        services in services(),
        turns in prop::collection::vec(turn(), 0..60),
    ) {
        let mut sim = Simulator::new(services);
        let mut spawns = BTreeMap::<String, u32>::new();
        for turn in &turns {
            play(&mut sim, turn);
            // The simulator refuses to release what is not held, so nothing is released twice.
            let left = sim.held.values().find(|held| held.ended.is_some() && !held.populated);
            prop_assert!(left.is_none(), "{left:?} has ended and is still held");
            for name in sim.spawns() {
                *spawns.entry(name).or_default() += 1;
            }
            for status in sim.machine.statuses() {
                let starts = spawns.get(&status.name).copied().unwrap_or_default();
                prop_assert_eq!(status.restarts, starts.saturating_sub(1), "{}", status.name);
            }
        }
    }

    #[test]
    fn a_crash_never_makes_an_enclave_that_has_served_starting_again(
        services in services(),
        turns in prop::collection::vec(turn(), 0..40),
    ) {
        let mut sim = Simulator::new(services);
        for turn in &turns {
            play(&mut sim, turn);
            if matches!(sim.enclave(), Enclave::Ready | Enclave::Degraded { .. }) {
                sim.crash();
                let is_degraded = matches!(sim.enclave(), Enclave::Degraded { .. });
                prop_assert!(is_degraded, "{:?}", sim.enclave());
                sim.on(Event::StatusSent);
            }
        }
    }

    #[test]
    fn a_crash_restarts_no_service(services in services(), turns in prop::collection::vec(turn(), 0..40)) {
        let mut sim = Simulator::new(services);
        for turn in &turns {
            play(&mut sim, turn);
        }
        report_starts(&mut sim);
        let before: Vec<(String, u32)> = sim.held.values().map(|h| (h.name.clone(), h.pid)).collect();
        let restarts: Vec<u32> = sim.machine.statuses().iter().map(|s| s.restarts).collect();
        sim.crash();
        for (name, pid) in before {
            prop_assert_eq!(sim.held.get(&name).map(|h| h.pid), Some(pid));
        }
        prop_assert_eq!(restarts, sim.machine.statuses().iter().map(|s| s.restarts).collect::<Vec<_>>());
    }
}
