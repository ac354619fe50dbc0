//! The table of decisions in testdata/decisions.txt.

use std::net::IpAddr;

use super::rule;
use crate::{
    Egress, Host, Judge, Narrowed, Operator, OperatorList, Policy, Port, Protocol, Record, RuleRef, Target,
};

const TABLE: &str = include_str!("../../testdata/decisions.txt");

/// The table is the specification of the language: it must not shrink.
const MIN_CASES: usize = 200;

/// A policy that is being read.
#[derive(Default)]
struct Source {
    name: String,
    egress: Egress,
    operator: Option<OperatorList>,
}

impl Source {
    fn rule(&mut self, kind: &str, text: &str) {
        let list = match kind {
            "allow" | "deny" => {
                let (service, text) = text.split_once(' ').unwrap();
                let rules = match service {
                    "every" => &mut self.egress.every,
                    service => self.egress.services.entry(service.to_owned()).or_default(),
                };
                let list = if kind == "allow" { &mut rules.allow } else { &mut rules.deny };
                list.push(rule(text));
                return;
            }
            _ => self.operator.get_or_insert_default(),
        };
        match kind {
            "only" => list.only.get_or_insert_default().push(rule(text)),
            "block" => list.deny.push(rule(text)),
            "host" => list.host.push(rule(text)),
            other => panic!("{other} is not a word of the table"),
        }
    }

    fn judge(&self) -> Box<dyn Judge> {
        let policy = Policy::new(&self.egress).unwrap_or_else(|report| panic!("{}: {report}", self.name));
        match &self.operator {
            None => Box::new(policy),
            Some(list) => Box::new(Narrowed::new(policy, Operator::new(list).unwrap())),
        }
    }
}

fn port(text: &str) -> Port {
    let (number, protocol) = text.split_once('/').unwrap();
    let protocol = if protocol == "tcp" { Protocol::Tcp } else { Protocol::Udp };
    Port { number: number.parse().unwrap(), protocol }
}

/// The answer to a question, in the words of the table.
fn answer(judge: &dyn Judge, question: &str) -> String {
    let (asked, addresses) = match question.split_once(" =") {
        Some((asked, addresses)) => (asked, Some(addresses)),
        None => (question, None),
    };
    let fields: Vec<&str> = asked.split_whitespace().collect();
    let [service, host, port_text] = fields[..] else { panic!("{question}") };
    let target = Target { host: Host::parse(host).unwrap(), port: port(port_text) };
    let (decision, allowed) = match (&target.host, addresses) {
        (Host::Name(name), Some(addresses)) => {
            let addresses: Vec<IpAddr> =
                addresses.split_whitespace().map(|address| address.parse().unwrap()).collect();
            let resolved = judge.decide_resolved(service, name, &addresses, target.port);
            assert_eq!(resolved.decision.allowed(), !resolved.allowed.is_empty(), "{question}");
            (resolved.decision, resolved.allowed)
        }
        _ => (judge.decide(service, &target), Vec::new()),
    };
    let record = Record::new(service, &target.host, target.port, &decision);
    let explained = judge.explain(service, &target, &decision, &|_: RuleRef| None);
    assert!(explained.contains(record.rule.as_deref().unwrap_or("why")), "{explained}");
    assert_eq!(decision.rule.is_some(), decision.rule.and_then(|rule| judge.rule(service, rule)).is_some());
    let allowed = allowed.iter().map(ToString::to_string);
    let words = [record.reason.to_owned()].into_iter().chain(record.rule).chain(allowed);
    words.collect::<Vec<_>>().join(" ")
}

fn lookup(judge: &dyn Judge, question: &str) -> String {
    let (service, name) = question.trim().split_once(' ').unwrap();
    let Host::Name(name) = Host::parse(name.trim()).unwrap() else { panic!("{question}") };
    judge.lookup(service, &name).reason.key().to_owned()
}

#[test]
fn the_table_of_decisions_holds() {
    let mut source = Source::default();
    let (mut cases, mut wrong) = (0, Vec::new());
    for line in TABLE.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap();
        if word == "policy" {
            source = Source { name: rest.to_owned(), ..Source::default() };
        } else if let Some((question, expected)) = rest.split_once(" -> ") {
            let judge = source.judge();
            let found = if word == "?" { answer(&*judge, question) } else { lookup(&*judge, question) };
            cases += 1;
            if found != expected {
                wrong.push(format!("{}: {line}\n    found: {found}", source.name));
            }
        } else {
            source.rule(word, rest);
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= MIN_CASES, "{cases} cases");
}
