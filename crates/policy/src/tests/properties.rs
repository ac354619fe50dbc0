//! Properties that hold for every input.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use crate::{
    Bindings, Cidr, Class, Egress, Flow, Host, Judge, Name, Narrowed, Operator, OperatorList, Pattern,
    Policy, Port, Ports, Protocol, Protocols, Rule, Rules, Target, special,
};

/// Few names, addresses and ports, so that rules and questions meet.
fn pattern() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "**",
        "*",
        "a.test",
        "*.test",
        "**.test",
        "b.a.test",
        "*.a.test",
        "**.a.test",
        "*.*.test",
        "b.*.test",
        "0.0.0.0/0",
        "::/0",
        "8.0.0.0/8",
        "8.8.8.8",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "127.0.0.0/8",
        "127.0.0.1",
        "169.254.0.0/16",
        "169.254.169.254",
        "::1",
        "fd00::/8",
        "2600::/16",
        "64:ff9b::/96",
        "2002::/16",
    ]);
    fixed.prop_map(str::to_owned)
}

fn rule() -> impl Strategy<Value = Rule> {
    let ports = prop::sample::select(vec!["any", "443", "80", "1-443", "400-500"]);
    let protocol = prop::sample::select(vec!["any", "tcp", "udp"]);
    (pattern(), prop::collection::vec(ports, 1..3), protocol).prop_map(|(to, ports, protocol)| Rule {
        to,
        ports: ports.into_iter().map(str::to_owned).collect(),
        protocol: protocol.to_owned(),
    })
}

fn list() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(), 0..5)
}

fn egress() -> impl Strategy<Value = Egress> {
    (list(), list(), list(), list()).prop_map(|(allow, deny, all_allow, all_deny)| Egress {
        every: Rules { allow: all_allow, deny: all_deny },
        services: [("web".to_owned(), Rules { allow, deny })].into(),
    })
}

fn operator() -> impl Strategy<Value = Operator> {
    let host =
        prop::sample::subsequence(vec!["127.0.0.0/8", "169.254.0.0/16", "169.254.169.254", "::1"], 0..=4);
    (prop::option::of(list()), list(), host).prop_map(|(only, deny, host)| {
        let rule =
            |to: &str| Rule { to: to.to_owned(), ports: vec!["any".to_owned()], protocol: "any".to_owned() };
        let host = host.into_iter().map(rule).collect();
        Operator::new(&OperatorList { only, deny, host }).expect("the rules are valid")
    })
}

fn name() -> impl Strategy<Value = Name> {
    let names =
        prop::sample::select(vec!["a.test", "b.test", "test", "b.a.test", "c.b.a.test", "x.y.test", "a"]);
    names.prop_map(|text| Name::parse(text).expect("a valid name"))
}

fn address() -> impl Strategy<Value = IpAddr> {
    let fixed = prop::sample::select(vec![
        "8.8.8.8",
        "8.0.0.1",
        "9.9.9.9",
        "10.0.0.1",
        "10.1.0.1",
        "127.0.0.1",
        "127.0.0.2",
        "169.254.0.1",
        "169.254.169.254",
        "::1",
        "::",
        "fd00::1",
        "fd00:ec2::254",
        "2600::1",
        "64:ff9b::808:808",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2002:808:808::",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "2600::5efe:a00:1",
    ]);
    prop_oneof![
        4 => fixed.prop_map(|text| text.parse().expect("a valid address")),
        1 => any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        1 => any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

fn port() -> impl Strategy<Value = Port> {
    let number = prop::sample::select(vec![0, 1, 80, 443, 444, 500, 501, 65535]);
    (number, prop::sample::select(Protocol::ALL.to_vec()))
        .prop_map(|(number, protocol)| Port { number, protocol })
}

/// One of the spellings that `inet_aton` reads, with dots and digits of other scripts that UTS 46 maps to ASCII.
fn spelling(address: Ipv4Addr, parts: usize, radix: &[u8], wide: bool, dot: bool) -> String {
    let bytes = address.octets();
    let bits = address.to_bits();
    let mut values: Vec<u32> = bytes.iter().take(parts - 1).map(|byte| u32::from(*byte)).collect();
    let shift = 8 * u32::try_from(parts - 1).unwrap();
    values.push(bits & u32::MAX.checked_shr(shift).unwrap_or(0));
    let words = values.iter().zip(radix).map(|(value, radix)| match radix % 4 {
        0 => format!("{value}"),
        1 => format!("0{value:o}"),
        2 => format!("0x{value:x}"),
        _ => format!("0X{value:X}"),
    });
    let mut text = words.collect::<Vec<_>>().join(".");
    if wide {
        let widen = |letter: char| match letter {
            '.' => '\u{3002}',
            letter => char::from_u32(u32::from(letter) + 0xfee0).unwrap(),
        };
        text = text.chars().map(widen).collect();
    }
    text + if dot { "." } else { "" }
}

/// Text that is often nearly a host.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "test",
        "xn--",
        "mnchen-3ya",
        "ü",
        "ß",
        "\u{301}",
        "\u{200d}",
        "\u{ad}",
        "。",
        "．",
        ".",
        ".",
        ".",
        "-",
        "_",
        "0",
        "1",
        "127",
        "0x7f",
        "0177",
        "255",
        "256",
        "localhost",
        "LOCAL",
        "HOST",
        ":",
        "::",
        "[",
        "]",
        "%",
        "ffff",
        "１",
        "ⓛ",
        " ",
        "\0",
        "\u{1b}",
        "ℂ",
        "א",
        "٣",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// What a deny rule matches is refused in every question, whatever allows it.
fn wins(
    judge: &dyn Judge,
    rule: &Rule,
    name: &Name,
    address: IpAddr,
    port: Port,
) -> Result<(), TestCaseError> {
    let other = Name::parse("zz.zz").unwrap();
    let now = Duration::from_secs(1);
    let flow = Flow { service: "web", address, port };
    if to_name(rule).is_some_and(|pattern| covers(rule, port) && pattern.matches(name)) {
        let mut bindings = Bindings::new(["web".to_owned()], 100);
        prop_assert!(!judge.judge_hello(&bindings, &flow, Some(name.as_str()), now).allowed(), "unbound");
        bindings.bind("web", name, &[address], now, now);
        prop_assert!(!judge.by_name("web", name, port).allowed());
        prop_assert!(!judge.resolved("web", name, address, port).allowed());
        prop_assert!(!judge.decide_resolved("web", name, &[address], port).decision.allowed());
        for sni in [None, Some(name.as_str()), Some(other.as_str())] {
            prop_assert!(!judge.judge_hello(&bindings, &flow, sni, now).allowed(), "{:?}", sni);
        }
        prop_assert!(!judge.judge_flow(&bindings, &flow, now).allowed());
        bindings.bind("web", &other, &[address], now, now);
        for sni in [None, Some(name.as_str())] {
            prop_assert!(!judge.judge_hello(&bindings, &flow, sni, now).allowed(), "shared: {:?}", sni);
        }
        if rule.ports.iter().any(|port| port == "any") && rule.protocol == "any" {
            prop_assert!(!judge.lookup("web", name).allowed());
        }
    }
    let within = Cidr::parse(&rule.to).is_ok_and(|range| range.contains(crate::canonical(address)));
    if within && covers(rule, port) {
        let mut bindings = Bindings::new(["web".to_owned()], 100);
        bindings.bind("web", name, &[address], now, now);
        prop_assert!(!judge.by_number("web", address, port).allowed());
        prop_assert!(!judge.resolved("web", name, address, port).allowed());
        prop_assert!(!judge.judge_flow(&bindings, &flow, now).allowed());
        prop_assert!(!judge.judge_hello(&bindings, &flow, Some(name.as_str()), now).allowed());
    }
    Ok(())
}

fn to_name(rule: &Rule) -> Option<Pattern> {
    Cidr::parse(&rule.to).is_err().then(|| Pattern::parse(&rule.to).expect("a valid pattern"))
}

fn covers(rule: &Rule, port: Port) -> bool {
    let ports = rule.ports.iter().map(|text| Ports::range(text).expect("a valid range")).collect();
    let protocol =
        Protocols::parse(&rule.protocol).is_some_and(|protocols| protocols.contains(port.protocol));
    protocol && Ports::new(ports).contains(port.number)
}

proptest! {
    #[test]
    fn a_canonical_form_is_its_own_canonical_form(text in prop_oneof![nearly(), any::<String>()]) {
        if let Ok(host) = Host::parse(&text) {
            let shown = host.to_string();
            prop_assert_eq!(Host::parse(&shown), Ok(host.clone()), "{:?}", text);
            if let Host::Name(name) = host {
                let name = name.as_str();
                prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
                prop_assert!(name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len())));
                prop_assert!(name.rsplit('.').next() != Some("localhost"));
                // What a C library would connect to without asking a resolver is no name.
                let last = name.rsplit('.').next().unwrap_or_default();
                prop_assert!(!last.bytes().all(|byte| byte.is_ascii_digit()) && !last.starts_with("0x0"));
            }
        }
    }

    #[test]
    fn a_plain_name_stays_the_same_name(
        labels in prop::collection::vec("[a-wA-W][a-zA-Z0-9_]{0,10}", 1..6), dot in any::<bool>(),
    ) {
        let text = labels.join(".") + if dot { "." } else { "" };
        prop_assume!(!text.to_lowercase().trim_end_matches('.').ends_with("localhost"));
        let host = Host::parse(&text).unwrap().to_string();
        prop_assert_eq!(host, labels.join(".").to_ascii_lowercase());
    }

    #[test]
    fn an_address_in_any_spelling_is_never_a_name(
        bits in any::<u32>(), parts in 1_usize..5, radix in prop::array::uniform4(any::<u8>()), wide in any::<bool>(),
        dot in any::<bool>(),
    ) {
        let address = Ipv4Addr::from_bits(bits);
        let text = spelling(address, parts, &radix, wide, dot);
        prop_assert_eq!(Host::parse(&text), Ok(Host::Address(IpAddr::V4(address))), "{:?}", text);
        // A policy that allows every name allows no address.
        let everything = super::web(&["** any any"], &[]);
        let target = Target { host: Host::parse(&text).unwrap(), port: super::tcp(443) };
        prop_assert!(!everything.decide("web", &target).allowed());
    }

    #[test]
    fn a_deny_rule_always_wins(
        egress in egress(), denied in list(), only in prop::option::of(list()), name in name(), address in address(), port in port(),
    ) {
        let policy = Policy::new(&egress).unwrap();
        let deny = denied.clone();
        let operator = Operator::new(&OperatorList { only, deny, host: Vec::new() }).unwrap();
        let narrowed = Narrowed::new(policy.clone(), operator);
        for rule in egress.every.deny.iter().chain(&egress.services["web"].deny) {
            wins(&policy, rule, &name, address, port)?;
            wins(&narrowed, rule, &name, address, port)?;
        }
        for rule in &denied {
            wins(&narrowed, rule, &name, address, port)?;
        }
    }

    #[test]
    fn a_denial_of_everything_leaves_nothing(
        egress in egress(), name in name(), address in address(), port in port(), by_operator in any::<bool>(),
    ) {
        let wide = ["**", "0.0.0.0/0", "::/0"].map(|to| super::rule(&format!("{to} any any"))).to_vec();
        let (mut egress, mut list) = (egress, OperatorList::default());
        if by_operator { list.deny = wide.clone() } else { egress.every.deny = wide.clone() }
        let policy = Policy::new(&egress).unwrap();
        let narrowed = Narrowed::new(policy, Operator::new(&list).unwrap());
        prop_assert!(!narrowed.lookup("web", &name).allowed());
        prop_assert!(!narrowed.by_number("web", address, port).allowed());
        for rule in &wide {
            wins(&narrowed, rule, &name, address, port)?;
        }
    }

    #[test]
    fn narrowing_never_widens(
        egress in egress(), operator in operator(), names in prop::collection::vec(name(), 1..4),
        addresses in prop::collection::vec(address(), 1..5), port in port(), sni in prop::option::of(name()),
    ) {
        let policy = Policy::new(&egress).unwrap();
        let narrowed = Narrowed::new(policy.clone(), operator);
        let now = Duration::from_secs(1);
        let mut bindings = Bindings::new(["web".to_owned()], 100);
        for name in &names {
            bindings.bind("web", name, &addresses, now, now);
            prop_assert!(policy.lookup("web", name).allowed() || !narrowed.lookup("web", name).allowed());
            let wide = policy.decide_resolved("web", name, &addresses, port);
            let narrow = narrowed.decide_resolved("web", name, &addresses, port);
            prop_assert!(narrow.allowed.iter().all(|address| wide.allowed.contains(address)));
            prop_assert!(wide.decision.allowed() || !narrow.decision.allowed());
        }
        for address in addresses {
            let flow = Flow { service: "web", address, port };
            let sni = sni.as_ref().map(Name::as_str);
            let judged = |judge: &dyn Judge| [
                judge.by_number("web", address, port),
                judge.judge_flow(&bindings, &flow, now),
                judge.judge_hello(&bindings, &flow, sni, now),
            ];
            for (wide, narrow) in judged(&policy).iter().zip(&judged(&narrowed)) {
                prop_assert!(wide.allowed() || !narrow.allowed(), "{:?} {:?}", wide, narrow);
            }
        }
    }

    #[test]
    fn a_hello_never_allows_what_the_address_alone_refused(
        egress in egress(), names in prop::collection::vec(name(), 0..4), address in address(), port in port(), sni in nearly(),
    ) {
        let policy = Policy::new(&egress).unwrap();
        let now = Duration::from_secs(1);
        let mut bindings = Bindings::new(["web".to_owned()], 100);
        for name in &names {
            bindings.bind("web", name, &[address], now, now);
        }
        let flow = Flow { service: "web", address, port };
        let before = policy.judge_flow(&bindings, &flow, now);
        for sni in names.iter().map(Name::as_str).chain([sni.as_str(), "a.test"]).map(Some).chain([None]) {
            let after = policy.judge_hello(&bindings, &flow, sni, now);
            prop_assert!(before.allowed() || !after.allowed(), "{:?} {:?}", before, after);
            prop_assert!(after.reason.key() != "pending");
        }
    }

    #[test]
    fn a_special_address_needs_a_range_within_its_own(
        egress in egress(), name in name(), address in address(), port in port(),
    ) {
        let policy = Policy::new(&egress).unwrap();
        let address = crate::canonical(address);
        let allowed = policy.by_number("web", address, port).allowed()
            || policy.resolved("web", &name, address, port).allowed();
        if let Some(special) = special(address).filter(|special| special.class != Class::Nat64 && allowed) {
            let rules = egress.every.allow.iter().chain(&egress.services["web"].allow);
            let mut ranges = rules.filter_map(|rule| Cidr::parse(&rule.to).ok());
            prop_assert!(ranges.any(|range| range.is_within(&special.range) && range.contains(address)));
        }
    }

    #[test]
    fn a_lookup_is_allowed_exactly_if_a_port_is(egress in egress(), operator in operator(), name in name()) {
        let policy = Policy::new(&egress).unwrap();
        let narrowed = Narrowed::new(policy.clone(), operator);
        let judges: [&dyn Judge; 2] = [&policy, &narrowed];
        for judge in judges {
            let ports = [1, 79, 80, 81, 399, 400, 442, 443, 444, 500, 501, 65535];
            let any = ports.iter().any(|number| {
                let ports = Protocol::ALL.map(|protocol| Port { number: *number, protocol });
                ports.iter().any(|port| judge.by_name("web", &name, *port).allowed())
            });
            prop_assert_eq!(judge.lookup("web", &name).allowed(), any);
        }
    }
}
