//! Tests: tables of cases, then properties that hold for every input.
mod bindings;
mod decisions;
mod hosts;
mod properties;
mod rules;
mod special;

use crate::{Egress, Operator, OperatorList, Policy, Port, Protocol, Rule, Rules};

/// A rule from `TO PORTS PROTOCOL`; several ports are separated by commas.
pub(crate) fn rule(text: &str) -> Rule {
    let mut fields = text.split_whitespace().map(str::to_owned);
    let mut next = || fields.next().unwrap_or_else(|| panic!("a field is missing in {text:?}"));
    let (to, ports, protocol) = (next(), next(), next());
    Rule { to, ports: ports.split(',').map(str::to_owned).collect(), protocol }
}

pub(crate) fn rules(allow: &[&str], deny: &[&str]) -> Rules {
    let list = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect();
    Rules { allow: list(allow), deny: list(deny) }
}

/// A policy with rules of the service `web` alone.
pub(crate) fn web(allow: &[&str], deny: &[&str]) -> Policy {
    let services = [("web".to_owned(), rules(allow, deny))].into();
    Policy::new(&Egress { every: Rules::default(), services }).expect("the rules are valid")
}

/// An operator's list.
pub(crate) fn operator(only: Option<&[&str]>, deny: &[&str], host: &[&str]) -> Operator {
    let list = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect();
    let list = OperatorList { only: only.map(list), deny: list(deny), host: list(host) };
    Operator::new(&list).expect("the rules are valid")
}

pub(crate) fn tcp(number: u16) -> Port {
    Port { number, protocol: Protocol::Tcp }
}

pub(crate) fn udp(number: u16) -> Port {
    Port { number, protocol: Protocol::Udp }
}
