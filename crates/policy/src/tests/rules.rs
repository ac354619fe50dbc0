//! Reading and checking rules, and showing decisions.

use super::{rule, rules, tcp, web};
use crate::{
    Egress, Host, Judge, MAX_ADDRESSES, MAX_PROBLEMS, MAX_RANGES, MAX_RULES, Name, Narrowed, Operator,
    OperatorList, Pattern, Policy, Protocol, Reason, Record, Report, Rules, Target, refused_input,
};

fn problems(rules: Rules) -> Report {
    let egress = Egress { every: Rules::default(), services: [("web".to_owned(), rules)].into() };
    Policy::new(&egress).unwrap_err()
}

#[test]
fn all_problems_are_reported_at_once_with_their_place() {
    let report = problems(rules(
        &[
            "foo*.example.com 443 tcp",
            "a.**.com 443 tcp",
            "10.0.0.1/8 443 tcp",
            "ok.test 0,70000,9-8,x,080 icmp",
        ],
        &[
            "127.1 any any",
            "*.localhost any any",
            "[::1] any any",
            "10.0.0.300 any any",
            "a。b.*.test any any",
        ],
    ));
    let expected = "\
services.web.allow[0].to: `foo*.example.com`: `*` replaces a whole label: write `*.example.com`, or list the names
services.web.allow[1].to: `a.**.com`: `**` must be the first label: it matches one or more labels to the left of the others
services.web.allow[2].to: `10.0.0.1/8`: bits after the prefix are set: the range is 10.0.0.0/8
services.web.allow[3].ports[0]: `0`: not a port from 1 to 65535
services.web.allow[3].ports[1]: `70000`: not a port from 1 to 65535
services.web.allow[3].ports[2]: `9-8`: the range ends before it starts
services.web.allow[3].ports[3]: `x`: not a port such as `443`, a range such as `8000-8099`, or `any`
services.web.allow[3].ports[4]: `080`: not a port such as `443`, a range such as `8000-8099`, or `any`
services.web.allow[3].protocol: `icmp`: not a protocol: write `tcp`, `udp` or `any`
services.web.deny[0].to: `127.1`: this is the address 127.0.0.1 in another spelling: write the address
services.web.deny[1].to: `*.localhost`: `localhost` is the machine itself and never leaves the enclave: give an address of the \
loopback interface
services.web.deny[2].to: `[::1]`: not an address: write IPv4 as four decimal numbers without leading zeros, IPv6 without brackets \
or zone
services.web.deny[3].to: `10.0.0.300`: the last label is a number, so this is an IPv4 address, and it is not valid: give four \
numbers from 0 to 255
services.web.deny[4].to: `a\\u{3002}b.*.test`: a dot is not the ASCII dot: separate labels with `.`";
    assert_eq!(report.to_string(), expected);
}

#[test]
fn limits_are_enforced() {
    let many = vec![rule("a.test 443 tcp"); MAX_RULES + 1];
    let report = problems(Rules { allow: many, deny: Vec::new() });
    assert_eq!(report.to_string(), "services.web.allow: 4097 rules, more than the limit of 4096");
    let mut wide = rule("a.test 443 tcp");
    wide.ports = vec!["443".to_owned(); MAX_RANGES + 1];
    let none = crate::Rule { ports: Vec::new(), ..wide.clone() };
    let report = problems(Rules { allow: vec![wide, none], deny: Vec::new() });
    assert_eq!(report.problems().len(), 2);
    let report = problems(Rules { allow: vec![rule("! x y"); 200], deny: Vec::new() });
    assert_eq!((report.problems().len(), report.dropped()), (MAX_PROBLEMS, 500));
}

#[test]
fn unknown_and_missing_fields_are_refused() {
    let read = |text: &str| serde_json::from_str::<Egress>(text).map_err(|error| error.to_string());
    let full =
        r#"{"every":{"allow":[{"to":"a.test","ports":["443"],"protocol":"tcp"}],"deny":[]},"services":{}}"#;
    let egress = read(full).unwrap();
    assert_eq!(serde_json::to_string(&egress).unwrap(), full);
    for (from, to, words) in [
        ("\"deny\":[]", "\"deny\":[],\"alow\":[]", "unknown field `alow`"),
        (",\"deny\":[]", "", "missing field `deny`"),
        ("\"protocol\"", "\"proto\"", "unknown field `proto`"),
        ("[\"443\"]", "[443]", "expected a string"),
        (",\"services\":{}", "", "missing field `services`"),
    ] {
        let error = read(&full.replace(from, to)).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert!(serde_json::from_str::<OperatorList>("{}").is_ok());
    assert!(serde_json::from_str::<OperatorList>("{\"allow\":[]}").is_err());
}

#[test]
fn the_operator_opens_only_addresses_of_the_host() {
    let list =
        |to: &str| OperatorList { host: vec![rule(&format!("{to} 80 tcp"))], ..OperatorList::default() };
    for to in [
        "127.0.0.1",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "169.254.169.254",
        "::1",
        "fe80::/10",
        "fd00:ec2::/32",
        "224.0.0.251",
        "ff02::/16",
        "255.255.255.255",
    ] {
        assert!(Operator::new(&list(to)).is_ok(), "{to}");
    }
    for to in ["0.0.0.0/0", "10.0.0.0/8", "8.8.8.8", "example.com", "**", "126.0.0.0/7", "::/0"] {
        let report = Operator::new(&list(to)).unwrap_err();
        assert!(report.to_string().starts_with("operator.host[0].to: "), "{report}");
    }
}

#[test]
fn patterns_are_shown_in_canonical_form() {
    for (text, shown) in
        [("**", "**"), ("*.A.test.", "*.a.test"), ("**.*.MÜNCHEN.de", "**.*.xn--mnchen-3ya.de"), ("x", "x")]
    {
        assert_eq!(Pattern::parse(text).unwrap().to_string(), shown);
    }
    let pattern = Pattern::parse("*.a.test").unwrap();
    assert!(pattern.matches(&Name::parse("B.a.test").unwrap()));
    assert!(!pattern.matches(&Name::parse("a.test").unwrap()));
}

#[test]
fn a_decision_is_one_line_and_an_explanation() {
    let policy = web(&["**.example.com 443,8000-8099 tcp"], &["bad.example.com any any"]);
    let target = Target::parse("Bad.example.com:443", Protocol::Tcp).unwrap();
    let decision = policy.decide("web", &target);
    let record = Record::new("web", &target.host, target.port, &decision);
    assert_eq!(
        record.to_string(),
        "egress refused service=web to=bad.example.com port=443 protocol=tcp rule=services.web.deny[0] reason=denied"
    );
    assert_eq!(
        serde_json::to_string(&record).unwrap(),
        "{\"allowed\":false,\"service\":\"web\",\"to\":\"bad.example.com\",\"port\":443,\"protocol\":\"tcp\",\
         \"rule\":\"services.web.deny[0]\",\"reason\":\"denied\"}"
    );
    assert_eq!(
        policy.explain("web", &target, &decision, &|_| Some("cloister.yaml:12".to_owned())),
        "refused: web to bad.example.com:443/tcp\n  rule: cloister.yaml:12: bad.example.com, ports any, protocol any\n  \
         why: this rule denies it, and a deny rule wins over every allow rule"
    );
    let target = Target::parse("[2002:a00:1::]:443", Protocol::Tcp).unwrap();
    let opened = web(&["2002::/16 any any"], &[]);
    assert_eq!(
        opened.explain("web", &target, &opened.decide("web", &target), &|_| None),
        "refused: web to [2002:a00:1::]:443/tcp\n  why: the address contains 10.0.0.1 (6to4): 10.0.0.1 is a private address \
         (10.0.0.0/8, RFC 1918); only a rule with a range within 10.0.0.0/8 allows it, never a name or a wider range"
    );
}

#[test]
fn records_of_hostile_texts_are_printable() {
    let record = refused_input("we\u{1b}b", "a\n=\"é\u{202e}");
    assert_eq!(
        record.to_string(),
        r"egress refused service=we\u{1b}b to=a\u{a}\u{3d}\u{22}\u{e9}\u{202e} reason=invalid-host"
    );
    assert!(refused_input("web", &"\0".repeat(10_000)).to_string().len() < 2000);
}

#[test]
fn a_long_answer_is_cut() {
    let policy = web(&["** any any"], &[]);
    let addresses: Vec<_> = (0..200_u8).map(|last| [8, 8, 8, last].into()).collect();
    let name = Name::parse("a.test").unwrap();
    let resolved = policy.decide_resolved("web", &name, &addresses, tcp(443));
    assert_eq!(resolved.allowed.len(), MAX_ADDRESSES);
    assert_eq!(resolved.refused[0].1.reason.key(), "too-many-addresses");
}

#[test]
fn a_thousand_rules_decide_as_one() {
    let mut allow: Vec<String> = (0..1000).map(|n| format!("*.n{n}.test {} tcp", n + 1)).collect();
    allow.extend((0..250).map(|n| format!("8.8.{n}.0/24 53 udp")));
    let allow: Vec<&str> = allow.iter().map(String::as_str).collect();
    let policy = web(&allow, &[]);
    let Host::Name(name) = Host::parse("a.n999.test").unwrap() else { panic!("a name") };
    let decision = policy.by_name("web", &name, tcp(1000));
    assert_eq!(decision.rule.unwrap().place("web"), "services.web.allow[999]");
    assert!(!policy.by_name("web", &name, tcp(999)).allowed());
    let decision = policy.by_number("web", [8, 8, 249, 1].into(), super::udp(53));
    assert_eq!(decision.rule.unwrap().place("web"), "services.web.allow[1249]");
}

#[test]
fn a_lookup_joins_half_a_million_port_ranges() {
    let ports = |first: u16| -> String {
        (0..64).map(|index| (first + 2 * index).to_string()).collect::<Vec<_>>().join(",")
    };
    let lists: Vec<String> =
        (0..4096_u16).map(|rule| format!("** {} tcp", ports(1 + 128 * (rule % 500)))).collect();
    let texts: Vec<&str> = lists.iter().map(String::as_str).collect();
    let policy = super::web(&texts, &texts);
    // Half a million ranges: compared with every rule each, it would be two thousand million steps, and the test would not end soon.
    assert!(!policy.lookup("web", &crate::Name::parse("a.test").unwrap()).allowed());
}

#[test]
fn an_empty_only_allows_nothing() {
    let policy = super::web(&["** any any", "0.0.0.0/0 any any", "127.0.0.0/8 any any"], &[]);
    let narrowed = Narrowed::new(policy, super::operator(Some(&[]), &[], &["127.0.0.1 any any"]));
    for host in ["a.test", "8.8.8.8", "127.0.0.1"] {
        let target = Target { host: Host::parse(host).unwrap(), port: super::tcp(443) };
        assert_eq!(narrowed.decide("web", &target).reason, Reason::NoRule, "{host}");
    }
    assert!(!narrowed.lookup("web", &Name::parse("a.test").unwrap()).allowed());
}

#[test]
fn the_host_reaches_no_group_unless_its_operator_allows_it() {
    let policy = super::web(&["224.0.0.0/4 any any", "255.255.255.255 any any", "ff02::/16 any any"], &[]);
    let guarded = Narrowed::new(policy.clone(), Operator::default());
    let opened =
        super::operator(None, &[], &["224.0.0.0/4 any any", "255.255.255.255 any any", "ff02::/16 any any"]);
    let opened = Narrowed::new(policy.clone(), opened);
    for text in ["224.0.0.251", "255.255.255.255", "ff02::fb"] {
        let address = text.parse().unwrap();
        let allowed = |judge: &dyn Judge| judge.by_number("web", address, super::udp(5353)).allowed();
        assert_eq!((allowed(&policy), allowed(&guarded), allowed(&opened)), (true, false, true), "{text}");
    }
}

#[test]
fn a_label_that_vanishes_or_splits_does_not_move_a_star() {
    for text in ["*.a\u{3002}b.\u{ad}", "*.\u{ad}.a\u{3002}b", "a\u{3002}b.test", "\u{ad}.test", "a.\u{200b}"]
    {
        assert!(Pattern::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_repeated_address_has_one_decision() {
    let policy = super::web(&["** any any"], &[]);
    let name = Name::parse("a.test").unwrap();
    let one: std::net::IpAddr = [8, 8, 8, 8].into();
    let resolved = policy.decide_resolved("web", &name, &[one; 65], super::tcp(443));
    assert_eq!((resolved.allowed, resolved.refused), (vec![one], Vec::new()));
}
