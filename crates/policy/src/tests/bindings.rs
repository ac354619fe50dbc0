//! Bindings, and flows that are judged by them.

use std::net::IpAddr;
use std::time::Duration;

use super::{operator, tcp, web};
use crate::{
    BINDINGS_PER_NAME, BINDINGS_PER_SERVICE, Bindings, Flow, Judge, MAX_ADDRESSES, MAX_LIFETIME,
    MIN_LIFETIME, Name, Narrowed, Reason,
};

const NOW: Duration = Duration::from_secs(1000);
const SHARED: [u8; 4] = [8, 8, 8, 8];

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn bindings(limit: usize) -> Bindings {
    Bindings::new(["web".to_owned(), "db".to_owned()], limit)
}

fn bound(names: &[&str]) -> Bindings {
    let mut bindings = bindings(100);
    for text in names {
        bindings.bind("web", &name(text), &[SHARED.into()], seconds(300), NOW);
    }
    bindings
}

fn flow(address: impl Into<IpAddr>) -> Flow<'static> {
    Flow { service: "web", address: address.into(), port: tcp(443) }
}

/// The decisions before and after the first bytes.
fn judged(policy: &dyn Judge, bindings: &Bindings, sni: Option<&str>) -> (Reason, Reason) {
    let before = policy.judge_flow(bindings, &flow(SHARED), NOW).reason;
    (before, policy.judge_hello(bindings, &flow(SHARED), sni, NOW).reason)
}

fn names(bindings: &Bindings, service: &str, now: Duration) -> Vec<String> {
    bindings.names(service, SHARED.into(), now).map(ToString::to_string).collect()
}

#[test]
fn a_binding_lasts_for_its_ttl_within_limits() {
    for (ttl, lifetime) in [
        (seconds(0), MIN_LIFETIME),
        (seconds(59), MIN_LIFETIME),
        (seconds(300), seconds(300)),
        (seconds(1 << 31), MAX_LIFETIME),
        (Duration::MAX, MAX_LIFETIME),
    ] {
        let mut bindings = bindings(10);
        bindings.bind("web", &name("a.test"), &[SHARED.into()], ttl, NOW);
        assert_eq!(names(&bindings, "web", NOW + lifetime.saturating_sub(seconds(1))), ["a.test"]);
        assert!(names(&bindings, "web", NOW + lifetime).is_empty());
        assert!(names(&bindings, "db", NOW).is_empty());
        assert_eq!(bindings.expire(NOW), Some(NOW + lifetime));
        assert_eq!(bindings.expire(NOW + lifetime), None);
        assert_eq!(bindings.len("web"), 0);
    }
}

#[test]
fn a_later_answer_extends_a_binding_and_never_shortens_it() {
    let mut bindings = bindings(10);
    let mut bind = |ttl, now| bindings.bind("web", &name("a.test"), &[SHARED.into()], seconds(ttl), now);
    bind(300, NOW);
    bind(60, NOW);
    bind(300, NOW + seconds(100));
    assert_eq!(bindings.len("web"), 1);
    assert_eq!(names(&bindings, "web", NOW + seconds(399)), ["a.test"]);
    assert!(names(&bindings, "web", NOW + seconds(400)).is_empty());
}

#[test]
fn the_binding_that_ends_first_makes_room() {
    let mut bindings = bindings(2);
    let mut bind = |service: &str, text: &str, ttl: u64, now: Duration| {
        bindings.bind(service, &name(text), &[SHARED.into()], seconds(ttl), now)
    };
    assert_eq!(bind("db", "db.test", 60, NOW), 0);
    assert_eq!(bind("web", "long.test", 900, NOW), 0);
    assert_eq!(bind("web", "short.test", 100, NOW), 0);
    assert_eq!(bind("web", "new.test", 500, NOW), 1);
    assert_eq!(bind("unknown", "new.test", 500, NOW), 0);
    assert_eq!(names(&bindings, "web", NOW), ["long.test", "new.test"]);
    assert_eq!(names(&bindings, "db", NOW), ["db.test"], "another service's bindings stay");
    assert_eq!((bindings.len("web"), bindings.len("unknown")), (2, 0));
}

#[test]
fn an_evicted_binding_that_had_expired_is_not_counted() {
    let mut bindings = bindings(1);
    bindings.bind("web", &name("old.test"), &[SHARED.into()], seconds(60), NOW);
    let later = NOW + seconds(60);
    assert_eq!(bindings.bind("web", &name("new.test"), &[SHARED.into()], seconds(60), later), 0);
}

#[test]
fn a_flow_to_an_unbound_address_is_refused_whatever_it_names() {
    let policy = web(&["** any any"], &[]);
    let none = bindings(10);
    assert_eq!(judged(&policy, &none, None), (Reason::Unbound, Reason::Unbound));
    for sni in ["a.test", "other.test"] {
        assert_eq!(judged(&policy, &none, Some(sni)), (Reason::Unbound, Reason::Unbound), "{sni}");
    }
    assert_eq!(judged(&policy, &none, Some("8.8.8.8")), (Reason::Unbound, Reason::HelloElsewhere));
    let past = NOW + seconds(300);
    let decision = policy.judge_flow(&bound(&["a.test"]), &flow(SHARED), past);
    assert_eq!(decision.reason, Reason::Unbound);
}

#[test]
fn a_flow_must_name_a_bound_and_allowed_name_if_it_names_one() {
    let policy = web(&["a.test 443 tcp", "b.test 443 tcp"], &[]);
    let bindings = bound(&["a.test"]);
    for (sni, reason) in [
        (None, Reason::Name),
        (Some("a.test"), Reason::Name),
        (Some("A.TEST."), Reason::Name),
        (Some("b.test"), Reason::HelloElsewhere),
        (Some("evil.test"), Reason::HelloElsewhere),
        (Some("a.test.evil.test"), Reason::HelloElsewhere),
        (Some("8.8.8.8"), Reason::HelloElsewhere),
    ] {
        assert_eq!(judged(&policy, &bindings, sni), (Reason::Name, reason), "{sni:?}");
    }
    let (_, reason) = judged(&policy, &bindings, Some("a.test\0"));
    assert!(matches!(reason, Reason::HelloInvalid(_)), "{reason:?}");
}

#[test]
fn where_names_share_an_address_the_server_name_decides() {
    let policy = web(&["a.test 443 tcp", "b.test 443 tcp", "c.test 80 tcp"], &[]);
    let both = bound(&["a.test", "b.test"]);
    assert_eq!(judged(&policy, &both, Some("b.test")), (Reason::Name, Reason::Name));
    assert_eq!(judged(&policy, &both, None), (Reason::Name, Reason::Name));
    let mixed = bound(&["a.test", "c.test"]);
    assert_eq!(judged(&policy, &mixed, Some("a.test")), (Reason::Pending, Reason::Name));
    assert_eq!(judged(&policy, &mixed, Some("c.test")), (Reason::Pending, Reason::NoRule));
    assert_eq!(judged(&policy, &mixed, None), (Reason::Pending, Reason::HelloMissing));
    assert_eq!(judged(&policy, &bound(&["c.test"]), None), (Reason::NoRule, Reason::NoRule));
}

#[test]
fn a_range_allows_a_flow_unless_a_deny_rule_knows_its_name() {
    let policy = web(&["8.8.8.0/24 443 tcp"], &["evil.test 443 tcp"]);
    let none = bindings(10);
    for (sni, reason) in [
        (None, Reason::Number),
        (Some("any.test"), Reason::Number),
        (Some("8.8.8.8"), Reason::Number),
        (Some("134744072"), Reason::Number),
        (Some("evil.test"), Reason::Denied),
        (Some("8.8.8.9"), Reason::HelloElsewhere),
    ] {
        assert_eq!(judged(&policy, &none, sni), (Reason::Number, reason), "{sni:?}");
    }
    assert_eq!(judged(&policy, &bound(&["evil.test"]), None), (Reason::Denied, Reason::Denied));
    let mixed = bound(&["evil.test", "any.test"]);
    assert_eq!(judged(&policy, &mixed, None), (Reason::Pending, Reason::HelloMissing));
    assert_eq!(judged(&policy, &mixed, Some("any.test")), (Reason::Pending, Reason::Number));
}

#[test]
fn a_name_does_not_open_a_special_address() {
    let policy = web(&["a.test 443 tcp"], &[]);
    let mut bindings = bindings(10);
    let inner: IpAddr = [127, 0, 0, 1].into();
    bindings.bind("web", &name("a.test"), &[inner], seconds(60), NOW);
    let decision = policy.judge_hello(&bindings, &flow(inner), Some("a.test"), NOW);
    assert!(matches!(decision.reason, Reason::Special { .. }));
}

#[test]
fn mapped_addresses_are_bound_as_ipv4() {
    let policy = web(&["a.test 443 tcp"], &[]);
    let mapped: IpAddr = "::ffff:8.8.8.8".parse().unwrap();
    let decision = policy.judge_flow(&bound(&["a.test"]), &flow(mapped), NOW);
    assert_eq!(decision.reason, Reason::Name);
}

#[test]
fn a_range_does_not_hide_that_an_address_is_known_by_a_denied_name() {
    let policy = web(&["8.8.8.0/24 443 tcp"], &["evil.test 443 tcp"]);
    for sni in ["any.test", "8.8.8.8", "evil.test"] {
        let reasons = judged(&policy, &bound(&["evil.test"]), Some(sni));
        assert_eq!(reasons, (Reason::Denied, Reason::Denied), "{sni}");
    }
    let mixed = bound(&["evil.test", "any.test"]);
    for sni in ["other.test", "8.8.8.8"] {
        assert_eq!(judged(&policy, &mixed, Some(sni)), (Reason::Pending, Reason::HelloElsewhere), "{sni}");
    }
}

#[test]
fn an_operators_denial_of_a_name_counts_on_a_flow_that_a_range_allows() {
    let policy =
        Narrowed::new(web(&["8.8.8.0/24 443 tcp"], &[]), operator(None, &["evil.test 443 tcp"], &[]));
    let none = bindings(10);
    assert_eq!(judged(&policy, &none, Some("any.test")), (Reason::Number, Reason::Number));
    assert_eq!(judged(&policy, &none, Some("evil.test")), (Reason::Number, Reason::Denied));
    for sni in [None, Some("any.test"), Some("evil.test")] {
        assert_eq!(judged(&policy, &bound(&["evil.test"]), sni), (Reason::Denied, Reason::Denied), "{sni:?}");
    }
    let mixed = bound(&["evil.test", "any.test"]);
    assert_eq!(judged(&policy, &mixed, Some("evil.test")), (Reason::Pending, Reason::Denied));
    assert_eq!(judged(&policy, &mixed, Some("any.test")), (Reason::Pending, Reason::Number));
}

fn addresses(first: u32, count: usize) -> Vec<IpAddr> {
    (first..).take(count).map(|bits| IpAddr::V4(bits.into())).collect()
}

#[test]
fn one_answer_binds_a_limited_number_of_addresses() {
    let mut bindings = bound(&["a.test"]);
    let many = addresses(1 << 30, 4096);
    assert_eq!(bindings.bind("web", &name("many.test"), &many, seconds(900), NOW), 0);
    assert_eq!(bindings.len("web"), 1 + MAX_ADDRESSES);
    assert_eq!(names(&bindings, "web", NOW), ["a.test"]);
}

#[test]
fn a_name_whose_addresses_rotate_evicts_its_own_bindings_only() {
    let mut bindings = bindings(BINDINGS_PER_SERVICE);
    bindings.bind("web", &name("a.test"), &[SHARED.into()], seconds(60), NOW);
    for round in 0..100 {
        let answer = addresses((1 << 30) + 64 * round, 64);
        bindings.bind("web", &name("rotates.test"), &answer, seconds(900), NOW);
        let is_bound = |address| bindings.names("web", address, NOW).next().is_some();
        assert!(answer.into_iter().all(is_bound), "an answer is bound");
        assert!(bindings.len("web") <= 1 + BINDINGS_PER_NAME);
    }
    assert_eq!(names(&bindings, "web", NOW), ["a.test"]);
}

#[test]
fn a_binding_is_evicted_from_the_name_with_most_and_never_from_the_answer() {
    let mut bindings = bindings(10);
    bindings.bind("web", &name("small.test"), &[SHARED.into()], seconds(60), NOW);
    bindings.bind("web", &name("large.test"), &addresses(1 << 30, 8), seconds(900), NOW);
    let one: [IpAddr; 2] = [[9, 9, 9, 9].into(), [9, 9, 9, 8].into()];
    assert_eq!(bindings.bind("web", &name("new.test"), &one, seconds(0), NOW), 1);
    assert_eq!(names(&bindings, "web", NOW), ["small.test"]);
    // Bound again, with a shorter TTL than everything else.
    assert_eq!(bindings.bind("web", &name("new.test"), &addresses(1 << 29, 10), seconds(0), NOW), 10);
    assert_eq!(bindings.len("web"), 10);
    for address in addresses(1 << 29, 10) {
        assert!(bindings.names("web", address, NOW).next().is_some(), "{address}");
    }
    assert_eq!(bindings.expire(NOW + MAX_LIFETIME), None);
    assert_eq!(bindings.len("web"), 0);
}

#[test]
fn a_server_name_that_is_not_ascii_is_refused() {
    let policy = web(&["8.8.8.0/24 443 tcp", "a.test 443 tcp"], &[]);
    for sni in ["\u{ff41}.test", "a\u{3002}test", "a\u{ad}.test"] {
        let decision = policy.judge_hello(&bound(&["a.test"]), &flow(SHARED), Some(sni), NOW);
        assert!(matches!(decision.reason, Reason::HelloInvalid(_)), "{sni:?}: {decision:?}");
    }
}

#[test]
fn localhost_is_named_only_on_a_loopback_address_that_a_range_allows() {
    let policy = web(&["127.0.0.0/8 443 tcp", "8.8.8.8 443 tcp"], &[]);
    let allowed =
        |address: [u8; 4]| policy.judge_hello(&bindings(1), &flow(address), Some("localhost"), NOW).allowed();
    assert!(allowed([127, 0, 0, 1]));
    assert!(!allowed(SHARED));
    assert!(
        !web(&["** 443 tcp"], &[])
            .judge_hello(&bindings(1), &flow([127, 0, 0, 1]), Some("localhost"), NOW)
            .allowed()
    );
}
