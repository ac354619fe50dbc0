//! The egress policy: rules, hosts in any spelling, and what is decided about them.

use std::net::IpAddr;
use std::time::Duration;

use cloister_policy::{
    Bindings, Egress, Flow, Host, Judge, Name, Narrowed, Operator, OperatorList, Policy, Port, Protocol,
    Record, Rule, Rules, Target, refused_input,
};

/// Text: the first line may be rules as JSON, the next an operator's list, every other line is a host that the service `web` connects to.
/// Hosts have one canonical form, a denial of everything wins over any rules, an operator's list never widens them and its denials win,
/// and records are printable.
pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (egress, hosts) = match serde_json::from_str::<Egress>(first) {
        Ok(egress) => (egress, rest),
        Err(_) => (every_name(), text),
    };
    let policy = match Policy::new(&egress) {
        Ok(policy) => policy,
        Err(report) => {
            assert!(!report.problems().is_empty(), "refused without a problem");
            let shown = report.to_string();
            assert!(shown.chars().all(|letter| letter == '\n' || !letter.is_control()), "{shown:?}");
            return;
        }
    };
    let (second, after) = hosts.split_once('\n').unwrap_or((hosts, ""));
    let (list, hosts) = match serde_json::from_str::<OperatorList>(second) {
        Ok(list) => (list, after),
        Err(_) => (OperatorList::default(), hosts),
    };
    // Without `host`, the host's own addresses are closed whatever the rest of the list says.
    let list = OperatorList { host: Vec::new(), ..list };
    let Ok(operator) = Operator::new(&list) else { return };
    let narrowed = Narrowed::new(policy.clone(), operator);
    let deny = list.deny.iter().cloned().chain(WIDE.map(rule)).collect();
    let closed =
        Operator::new(&OperatorList { deny, ..list }).map(|closed| Narrowed::new(policy.clone(), closed));
    let denied = Policy::new(&denying(egress)).expect("two more rules are valid");
    for text in hosts.lines().take(MAX_HOSTS) {
        match Host::parse(text) {
            Ok(host) => {
                decided(&host, &policy, &narrowed, &denied);
                closed.iter().for_each(|closed| refused(&host, closed));
                refused(&host, &denied);
            }
            Err(_) => printable(&refused_input("web", text)),
        }
        by_labels(text);
        named(&policy, text);
        named(&narrowed, text);
    }
}

/// Hosts of one input: more would only make it slow.
const MAX_HOSTS: usize = 64;

/// Everything.
const WIDE: [&str; 3] = ["**", "0.0.0.0/0", "::/0"];

const PORTS: [Port; 2] =
    [Port { number: 443, protocol: Protocol::Tcp }, Port { number: 53, protocol: Protocol::Udp }];

fn decided(host: &Host, policy: &Policy, narrowed: &Narrowed, denied: &Policy) {
    assert_eq!(Host::parse(&host.to_string()).as_ref(), Ok(host), "a canonical form is its own");
    for port in PORTS {
        let target = Target { host: host.clone(), port };
        let decision = policy.decide("web", &target);
        assert_eq!(decision, policy.decide("web", &target), "the same question has the same answer");
        assert!(decision.allowed() || !narrowed.decide("web", &target).allowed(), "widened: {target}");
        assert!(!denied.decide("web", &target).allowed(), "denied and allowed: {target}");
        printable(&Record::new("web", host, port, &decision));
        let explained = policy.explain("web", &target, &decision, &|_| None);
        assert!(explained.chars().all(|letter| letter == '\n' || !letter.is_control()), "{explained:?}");
        if let Host::Name(name) = host {
            let loopback = [IpAddr::from([127, 0, 0, 1])];
            let resolved = narrowed.decide_resolved("web", name, &loopback, port);
            assert!(!resolved.decision.allowed(), "the host's loopback interface by name: {name}");
            assert!(!decision.allowed() || policy.lookup("web", name).allowed(), "no lookup: {name}");
        }
    }
}

/// Where everything is denied, nothing is allowed: in no question, bound or not.
fn refused(host: &Host, judge: &dyn Judge) {
    let address = IpAddr::from([8, 8, 8, 8]);
    let sni = host.to_string();
    for port in PORTS {
        let flow = Flow { service: "web", address, port };
        let mut bindings = Bindings::new(["web".to_owned()], 1);
        assert!(!judge.decide("web", &Target { host: host.clone(), port }).allowed(), "{host}");
        if let Host::Name(name) = host {
            assert!(!judge.lookup("web", name).allowed(), "looked up: {host}");
            assert!(judge.denied_name("web", name, port).is_some(), "not denied: {host}");
            bindings.bind("web", name, &[address], Duration::ZERO, Duration::ZERO);
        }
        assert!(!judge.judge_flow(&bindings, &flow, Duration::ZERO).allowed(), "began: {host}");
        assert!(
            !judge.judge_hello(&bindings, &flow, Some(&sni), Duration::ZERO).allowed(),
            "went on: {host}"
        );
    }
}

/// A name that is read label by label, as from a DNS message, is the name that is read as a text.
fn by_labels(text: &str) {
    let labels = text.strip_suffix('.').unwrap_or(text).split('.').map(str::as_bytes);
    if let Ok(name) = Name::from_labels(labels) {
        assert_eq!(Name::parse(text).as_ref(), Ok(&name));
    }
}

/// Whatever a connection names, an address that no answer contained is only reached by number.
fn named(policy: &dyn Judge, sni: &str) {
    let bindings = Bindings::new(["web".to_owned()], 1);
    for address in [IpAddr::from([8, 8, 8, 8]), IpAddr::from([127, 0, 0, 1])] {
        let flow = Flow { service: "web", address, port: PORTS[0] };
        let by_number = policy.by_number("web", address, PORTS[0]);
        let decision = policy.judge_hello(&bindings, &flow, Some(sni), Duration::ZERO);
        assert!(by_number.allowed() || !decision.allowed(), "{sni:?} opened {address}");
    }
}

fn printable(record: &Record) {
    let line = record.to_string();
    assert!(line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{line:?}");
}

fn rule(to: &str) -> Rule {
    Rule { to: to.to_owned(), ports: vec!["any".to_owned()], protocol: "any".to_owned() }
}

fn every_name() -> Egress {
    let every = Rules { allow: vec![rule("**")], deny: Vec::new() };
    Egress { every, ..Egress::default() }
}

fn denying(mut egress: Egress) -> Egress {
    egress.every.deny = WIDE.map(rule).to_vec();
    egress
}
