//! The order in which services start.
//!
//! Its law: the order depends on names and dependencies alone, never on how the file is arranged, so that the same meaning is
//! measured as the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::document::Service;
use super::fault::{Fault, Faults, Kind, Span};
use super::hint;
use super::names::ServiceName;
use super::read::Spanned;

/// A service and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    /// Where the name stands; where there is none, the start of the file.
    pub(super) name_span: Span,
    pub(super) service: Service,
    /// Where everything about it stands.
    pub(super) span: Span,
    /// Whether something in it could not be read: what follows from its absence is not worth a fault.
    pub(super) damaged: bool,
}

impl Named {
    /// Everything it starts after, as it is written.
    fn dependencies(&self) -> impl Iterator<Item = &Spanned<ServiceName>> {
        let lists = [&self.service.after, &self.service.requires];
        lists.into_iter().flatten().flat_map(|list| list.value.iter())
    }
}

/// Checks every name in `after` and `requires`.
pub(super) fn check_names(services: &[Named], names: &BTreeSet<&str>, faults: &mut Faults) {
    for service in services {
        for list in [&service.service.after, &service.service.requires].into_iter().flatten() {
            super::check::no_repeats(&list.value, faults);
            for wanted in list.value.iter().filter(|wanted| !names.contains(wanted.0.as_str())) {
                faults.push(unknown_service(wanted, names));
            }
        }
    }
}

/// The fault of a name that no service has.
pub(super) fn unknown_service(name: &Spanned<ServiceName>, names: &BTreeSet<&str>) -> Fault {
    let hint = hint::did_you_mean(&name.0, names.iter().copied()).unwrap_or_else(|| {
        format!("the services are {}", names.iter().copied().collect::<Vec<_>>().join(", "))
    });
    Fault::new(Kind::UnknownName, name.span, format!("there is no service `{}`", name.0)).hint(hint)
}

/// Puts services after what they depend on, by name where that leaves a choice; services that wait for each other are faults.
pub(super) fn start_order(services: Vec<Named>, faults: &mut Faults) -> Vec<Named> {
    let mut waiting: BTreeMap<String, Named> =
        services.into_iter().map(|service| (service.name.clone(), service)).collect();
    report_cycles(&waiting, faults);
    let mut order: Vec<Named> = Vec::with_capacity(waiting.len());
    loop {
        let free = |named: &Named| named.dependencies().all(|other| !waiting.contains_key(&other.0));
        let Some(name) = waiting.values().find(|named| free(named)).map(|named| named.name.clone()) else {
            break;
        };
        order.extend(waiting.remove(&name));
    }
    order
}

/// One fault for each group of services that wait for each other.
fn report_cycles(services: &BTreeMap<String, Named>, faults: &mut Faults) {
    let mut done = BTreeSet::new();
    for name in services.keys() {
        let mut path = Vec::new();
        if let Some((cycle, at)) = find_cycle(services, name, &mut path, &mut done) {
            faults.push(cycle_fault(&cycle, at));
        }
    }
}

/// Walks depth first; the depth is the number of services at most. `done` holds what needs no second look.
fn find_cycle(
    services: &BTreeMap<String, Named>,
    name: &str,
    path: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<(Vec<String>, Span)> {
    let named = services.get(name)?;
    if done.contains(name) {
        return None;
    }
    path.push(name.to_owned());
    let mut found = None;
    for wanted in named.dependencies() {
        found = match path.iter().position(|passed| *passed == wanted.0) {
            Some(start) => path.get(start..).map(|cycle| (cycle.to_vec(), wanted.span)),
            None => find_cycle(services, &wanted.0, path, done),
        };
        if found.is_some() {
            break;
        }
    }
    path.pop();
    done.insert(name.to_owned());
    found
}

fn cycle_fault(cycle: &[String], at: Span) -> Fault {
    let [only] = cycle else {
        let path = cycle.iter().chain(cycle.first()).map(String::as_str).collect::<Vec<_>>().join(" → ");
        return Fault::new(Kind::Cycle, at, format!("services wait for each other: {path}"))
            .label("this closes the circle")
            .hint("remove one of these from `after` or `requires`");
    };
    Fault::new(Kind::Cycle, at, format!("service `{only}` waits for itself")).hint("remove it")
}
