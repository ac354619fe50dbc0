//! The manifest's rules, compiled, and what they decide.
//!
//! Invariant: the rules of a service and those of every service count alike: a deny rule of either wins, an allow rule of either
//! suffices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::canonical;
use crate::compile::{self, Targets, shown};
use crate::decision::{Decision, List, Origin, Reason, RuleRef, Section};
use crate::host::Name;
use crate::judge::Judge;
use crate::ports::{Port, Ports, Protocol};
use crate::reach::{closed, readings};
use crate::ruleset::RuleSet;
use crate::source::{Egress, Report, Rules};

/// The egress policy of an enclave.
#[derive(Clone, Debug)]
pub struct Policy {
    every: Lists,
    services: BTreeMap<String, Lists>,
}

#[derive(Clone, Debug, Default)]
struct Lists {
    allow: RuleSet,
    deny: RuleSet,
}

/// What applies to one service.
#[derive(Clone, Copy)]
struct Scope<'a> {
    own: Option<&'a Lists>,
    every: &'a Lists,
}

impl Policy {
    /// Checks and compiles rules; reports all problems at once.
    pub fn new(egress: &Egress) -> Result<Self, Report> {
        let mut report = Report::default();
        let every = lists(&egress.every, "every", &mut report);
        let mut services = BTreeMap::new();
        for (name, rules) in &egress.services {
            let place = format!("services.{}", shown(name));
            services.insert(name.clone(), lists(rules, &place, &mut report));
        }
        report.or(Self { every, services })
    }

    /// The ports of `name` that are allowed.
    pub(crate) fn open(&self, service: &str, name: &Name, protocol: Protocol) -> Ports {
        self.scope(service).open(name, protocol)
    }

    fn scope(&self, service: &str) -> Scope<'_> {
        Scope { own: self.services.get(service), every: &self.every }
    }
}

fn lists(rules: &Rules, place: &str, report: &mut Report) -> Lists {
    let allow = compile::list(&rules.allow, &format!("{place}.allow"), Targets::All, report);
    let deny = compile::list(&rules.deny, &format!("{place}.deny"), Targets::All, report);
    Lists { allow: RuleSet::new(allow), deny: RuleSet::new(deny) }
}

impl<'a> Scope<'a> {
    fn parts(self) -> impl Iterator<Item = (Section, &'a Lists)> {
        self.own.map(|own| (Section::Service, own)).into_iter().chain([(Section::Every, self.every)])
    }

    fn allow(self, find: impl Fn(&RuleSet) -> Option<u32>) -> Option<RuleRef> {
        self.parts().find_map(|(section, lists)| {
            find(&lists.allow).map(|index| RuleRef { section, list: List::Allow, index })
        })
    }

    fn deny(self, find: impl Fn(&RuleSet) -> Option<u32>) -> Option<RuleRef> {
        self.parts().find_map(|(section, lists)| {
            find(&lists.deny).map(|index| RuleRef { section, list: List::Deny, index })
        })
    }

    fn denied_name(self, name: &Name, port: Port) -> Option<Decision> {
        self.deny(|rules| rules.by_name(name, port)).map(|rule| decision(Some(rule), Reason::Denied))
    }

    fn by_name(self, name: &Name, port: Port) -> Decision {
        if let Some(denied) = self.denied_name(name, port) {
            return denied;
        }
        match self.allow(|rules| rules.by_name(name, port)) {
            Some(rule) => decision(Some(rule), Reason::Name),
            None => decision(None, Reason::NoRule),
        }
    }

    /// Why an address is refused whatever allows it.
    fn refused(self, address: IpAddr, port: Port) -> Option<Decision> {
        let denied = readings(address)
            .find_map(|(reading, _)| self.deny(|rules| rules.by_number(reading, port, None)))
            .map(|rule| decision(Some(rule), Reason::Denied));
        denied.or_else(|| {
            let opened = |address, range: &_| {
                self.allow(|rules| rules.by_number(address, port, Some(range))).is_some()
            };
            closed(address, |_| true, opened).map(|reason| decision(None, reason))
        })
    }

    /// The ports that rules about `name` allow, whatever is denied.
    fn listed(self, name: &Name, protocol: Protocol) -> Ports {
        Ports::new(self.parts().flat_map(|(_, lists)| lists.allow.ports(name, protocol)).collect())
    }

    /// The ports that are left of them after the deny rules.
    fn open(self, name: &Name, protocol: Protocol) -> Ports {
        let denied = self.parts().flat_map(|(_, lists)| lists.deny.ports(name, protocol)).collect();
        self.listed(name, protocol).and(&Ports::new(denied).others())
    }
}

impl Judge for Policy {
    fn by_name(&self, service: &str, name: &Name, port: Port) -> Decision {
        if port.number == 0 {
            return decision(None, Reason::PortZero);
        }
        self.scope(service).by_name(name, port)
    }

    fn by_number(&self, service: &str, address: IpAddr, port: Port) -> Decision {
        if port.number == 0 {
            return decision(None, Reason::PortZero);
        }
        let (scope, address) = (self.scope(service), canonical(address));
        if let Some(refused) = scope.refused(address, port) {
            return refused;
        }
        let within = crate::registry::special(address).map(|special| &special.range);
        match scope.allow(|rules| rules.by_number(address, port, within)) {
            Some(rule) => decision(Some(rule), Reason::Number),
            None => decision(None, Reason::NoRule),
        }
    }

    fn resolved(&self, service: &str, name: &Name, address: IpAddr, port: Port) -> Decision {
        let by_name = self.by_name(service, name, port);
        if !by_name.allowed() {
            return by_name;
        }
        self.scope(service).refused(address, port).unwrap_or(by_name)
    }

    fn denied_name(&self, service: &str, name: &Name, port: Port) -> Option<Decision> {
        self.scope(service).denied_name(name, port)
    }

    fn lookup(&self, service: &str, name: &Name) -> Decision {
        let scope = self.scope(service);
        let first = |protocol, ports: Ports| ports.first().map(|number| Port { number, protocol });
        let open = Protocol::ALL.into_iter().find_map(|protocol| first(protocol, scope.open(name, protocol)));
        let listed =
            || Protocol::ALL.into_iter().find_map(|protocol| first(protocol, scope.listed(name, protocol)));
        let any = Port { number: u16::MAX, protocol: Protocol::Tcp };
        scope.by_name(name, open.or_else(listed).unwrap_or(any))
    }

    fn rule(&self, service: &str, rule: RuleRef) -> Option<String> {
        let lists = match rule.section {
            Section::Service => self.services.get(service)?,
            Section::Every => &self.every,
            Section::Operator => return None,
        };
        let list = match rule.list {
            List::Allow => &lists.allow,
            List::Deny => &lists.deny,
            List::Only | List::Host => return None,
        };
        list.get(rule.index).map(ToString::to_string)
    }
}

fn decision(rule: Option<RuleRef>, reason: Reason) -> Decision {
    Decision { origin: Origin::Manifest, rule, reason }
}
