//! The host's own restrictions on top of a manifest's policy.
//!
//! Invariant: they only narrow. What [`Narrowed`] allows, the manifest's policy allows too; nothing in an operator's list can change
//! that. Without a rule of the operator's, the host's own addresses are refused whatever the manifest says: inside the enclave
//! 127.0.0.1 is the enclave, but on the host it is the host.

use std::net::IpAddr;

use crate::address::canonical;
use crate::compile::{self, Targets};
use crate::decision::{Decision, List, Origin, Reason, RuleRef, Section};
use crate::host::Name;
use crate::judge::Judge;
use crate::policy::Policy;
use crate::ports::{Port, Ports, Protocol};
use crate::reach::{closed, readings};
use crate::registry::Class;
use crate::ruleset::RuleSet;
use crate::source::{OperatorList, Report};

/// The operator's list, compiled.
#[derive(Clone, Debug, Default)]
pub struct Operator {
    only: Option<RuleSet>,
    deny: RuleSet,
    host: RuleSet,
}

/// A manifest's policy and an operator's list: both must allow.
#[derive(Clone, Debug)]
pub struct Narrowed {
    policy: Policy,
    operator: Operator,
}

impl Operator {
    /// Checks and compiles a list; reports all problems at once.
    pub fn new(list: &OperatorList) -> Result<Self, Report> {
        let mut report = Report::default();
        let mut compiled =
            |rules: &_, place, targets| RuleSet::new(compile::list(rules, place, targets, &mut report));
        let only = list.only.as_ref().map(|only| compiled(only, "operator.only", Targets::All));
        let deny = compiled(&list.deny, "operator.deny", Targets::All);
        let host = compiled(&list.host, "operator.host", Targets::OfTheHost);
        report.or(Self { only, deny, host })
    }

    fn denied_name(&self, name: &Name, port: Port) -> Option<Decision> {
        self.deny.by_name(name, port).map(|index| decision(Some((List::Deny, index)), Reason::Denied))
    }

    fn by_name(&self, name: &Name, port: Port) -> Decision {
        if let Some(denied) = self.denied_name(name, port) {
            return denied;
        }
        self.only(Reason::Name, |rules| rules.by_name(name, port))
    }

    fn by_number(&self, address: IpAddr, port: Port) -> Decision {
        if let Some(refused) = self.refused(address, port) {
            return refused;
        }
        let nothing = self.only.as_ref().is_some_and(RuleSet::is_empty);
        if let Some(index) = self.host.by_number(address, port, None).filter(|_| !nothing) {
            return decision(Some((List::Host, index)), Reason::Number);
        }
        self.only(Reason::Number, |rules| rules.by_number(address, port, None))
    }

    fn resolved(&self, name: &Name, address: IpAddr, port: Port) -> Decision {
        let by_name = self.by_name(name, port);
        if by_name.allowed() { self.refused(address, port).unwrap_or(by_name) } else { by_name }
    }

    /// The ports of `name` that are allowed.
    fn open(&self, name: &Name, protocol: Protocol) -> Ports {
        let left = Ports::new(self.deny.ports(name, protocol)).others();
        let only = self.only.as_ref().map(|only| Ports::new(only.ports(name, protocol)));
        only.map_or(left.clone(), |only| only.and(&left))
    }

    fn refused(&self, address: IpAddr, port: Port) -> Option<Decision> {
        let denied = readings(address)
            .find_map(|(reading, _)| self.deny.by_number(reading, port, None))
            .map(|index| decision(Some((List::Deny, index)), Reason::Denied));
        denied.or_else(|| {
            let opened = |address, range: &_| self.host.by_number(address, port, Some(range)).is_some();
            closed(address, Class::is_of_the_host, opened).map(|reason| decision(None, reason))
        })
    }

    fn only(&self, reason: Reason, find: impl Fn(&RuleSet) -> Option<u32>) -> Decision {
        match self.only.as_ref().map(find) {
            None => decision(None, Reason::Unrestricted),
            Some(None) => decision(None, Reason::NoRule),
            Some(Some(index)) => decision(Some((List::Only, index)), reason),
        }
    }
}

impl Narrowed {
    /// Both together.
    #[must_use]
    pub fn new(policy: Policy, operator: Operator) -> Self {
        Self { policy, operator }
    }

    /// The manifest's policy alone, for what it would decide.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

impl Judge for Narrowed {
    fn by_name(&self, service: &str, name: &Name, port: Port) -> Decision {
        both(self.policy.by_name(service, name, port), || self.operator.by_name(name, port))
    }

    fn by_number(&self, service: &str, address: IpAddr, port: Port) -> Decision {
        let manifest = self.policy.by_number(service, address, port);
        both(manifest, || self.operator.by_number(canonical(address), port))
    }

    fn resolved(&self, service: &str, name: &Name, address: IpAddr, port: Port) -> Decision {
        let manifest = self.policy.resolved(service, name, address, port);
        both(manifest, || self.operator.resolved(name, address, port))
    }

    /// A deny rule of either counts, also where the other says nothing about the name: a range may allow the flow.
    fn denied_name(&self, service: &str, name: &Name, port: Port) -> Option<Decision> {
        self.policy.denied_name(service, name, port).or_else(|| self.operator.denied_name(name, port))
    }

    fn lookup(&self, service: &str, name: &Name) -> Decision {
        let manifest = self.policy.lookup(service, name);
        if !manifest.allowed() {
            return manifest;
        }
        let mut refused = decision(None, Reason::NoRule);
        for protocol in Protocol::ALL {
            let open = self.policy.open(service, name, protocol);
            if let Some(number) = open.and(&self.operator.open(name, protocol)).first() {
                return self.policy.by_name(service, name, Port { number, protocol });
            }
            // No port of these is open to the operator either.
            refused =
                open.first().map_or(refused, |number| self.operator.by_name(name, Port { number, protocol }));
        }
        refused
    }

    fn rule(&self, service: &str, rule: RuleRef) -> Option<String> {
        if rule.section != Section::Operator {
            return self.policy.rule(service, rule);
        }
        let list = match rule.list {
            List::Only => self.operator.only.as_ref()?,
            List::Deny => &self.operator.deny,
            List::Host => &self.operator.host,
            List::Allow => return None,
        };
        list.get(rule.index).map(ToString::to_string)
    }
}

/// The manifest's decision if it refuses or if the operator allows as well, which only restates it; else the operator's.
fn both(manifest: Decision, operator: impl FnOnce() -> Decision) -> Decision {
    if !manifest.allowed() {
        return manifest;
    }
    let operator = operator();
    if operator.allowed() { manifest } else { operator }
}

fn decision(rule: Option<(List, u32)>, reason: Reason) -> Decision {
    let rule = rule.map(|(list, index)| RuleRef { section: Section::Operator, list, index });
    Decision { origin: Origin::Operator, rule, reason }
}
