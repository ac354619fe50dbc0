//! One list of rules, compiled: which of them matches a name or an address.
//!
//! Invariant: the index changes nothing about the meaning: the answer is the first rule of the list that matches, as if each had been
//! compared in turn. Names are found by a tree of labels; ranges by one search per prefix length that the list has, of at most 33 and
//! 129. Then the ports of the rules found are compared.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::cidr::Cidr;
use crate::host::Name;
use crate::pattern::{Names, Pattern};
use crate::ports::{Port, Ports, Protocol, Protocols};

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Name(Pattern),
    Number(Cidr),
}

/// A checked rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) to: To,
    pub(crate) ports: Ports,
    pub(crate) protocols: Protocols,
}

/// A list of rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleSet {
    rules: Vec<Checked>,
    names: Names,
    ranges: Ranges,
}

/// Ranges by length, then by network; both families, whose networks differ.
#[derive(Clone, Debug, Default)]
struct Ranges(BTreeMap<u8, BTreeMap<IpAddr, Vec<u32>>>);

impl Checked {
    fn covers(&self, port: Port) -> bool {
        self.protocols.contains(port.protocol) && self.ports.contains(port.number)
    }
}

impl RuleSet {
    pub(crate) fn new(rules: Vec<Checked>) -> Self {
        let mut set = Self::default();
        for (index, rule) in (0_u32..).zip(&rules) {
            match &rule.to {
                To::Name(pattern) => set.names.insert(pattern, index),
                To::Number(range) => set.ranges.insert(*range, index),
            }
        }
        set.rules = rules;
        set
    }

    /// The first rule for this name and port.
    pub(crate) fn by_name(&self, name: &Name, port: Port) -> Option<u32> {
        let mut first = None;
        self.names.find(name, &mut |index| {
            if self.get(index).is_some_and(|rule| rule.covers(port)) {
                first = Some(first.map_or(index, |first: u32| first.min(index)));
            }
        });
        first
    }

    /// The first rule for this address and port; with `within`, of those whose range lies within that range.
    pub(crate) fn by_number(&self, address: IpAddr, port: Port, within: Option<&Cidr>) -> Option<u32> {
        let mut first = None;
        self.ranges.find(address, |range, index| {
            let inside = within.is_none_or(|within| range.is_within(within));
            if inside && self.get(index).is_some_and(|rule| rule.covers(port)) {
                first = Some(first.map_or(index, |first: u32| first.min(index)));
            }
        });
        first
    }

    /// The ranges of ports of this protocol in all rules for this name.
    pub(crate) fn ports(&self, name: &Name, protocol: Protocol) -> Vec<(u16, u16)> {
        let mut found = Vec::new();
        self.names.find(name, &mut |index| {
            let rule = self.get(index).filter(|rule| rule.protocols.contains(protocol));
            found.extend(rule.into_iter().flat_map(|rule| rule.ports.ranges()));
        });
        found
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Checked> {
        self.rules.get(usize::try_from(index).ok()?)
    }
}

impl Ranges {
    fn insert(&mut self, range: Cidr, rule: u32) {
        self.0.entry(range.length()).or_default().entry(range.network()).or_default().push(rule);
    }

    fn find(&self, address: IpAddr, mut found: impl FnMut(Cidr, u32)) {
        let width = if address.is_ipv4() { 32 } else { 128 };
        for (length, networks) in self.0.range(..=width) {
            let range = Cidr::around(address, *length);
            for rule in networks.get(&range.network()).into_iter().flatten() {
                found(range, *rule);
            }
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            To::Name(pattern) => pattern.fmt(f)?,
            To::Number(range) => range.fmt(f)?,
        }
        write!(f, ", ports {}, protocol {}", self.ports, self.protocols)
    }
}
