//! The order in which services start.
//!
//! Invariant: the order depends on names and dependencies only, never on the arrangement of the file, so that equivalent
//! manifests are measured as the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::document::Service;
use super::hint;
use super::names::ServiceName;
use super::problem::{Kind, Problem, Problems, Span};
use super::read::Spanned;

/// A service and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    /// The position of the name; the start of the file if there is none.
    pub(super) name_span: Span,
    pub(super) service: Service,
    /// The position of the whole service.
    pub(super) span: Span,
    /// Whether something in it could not be read: problems that follow from its absence are not reported.
    pub(super) damaged: bool,
}

impl Named {
    /// Everything it starts after, as written.
    fn dependencies(&self) -> impl Iterator<Item = &Spanned<ServiceName>> {
        let lists = [&self.service.after, &self.service.requires];
        lists.into_iter().flatten().flat_map(|list| list.value.iter())
    }
}

/// Checks every name in `after` and `requires`.
pub(super) fn check_names(services: &[Named], names: &BTreeSet<&str>, problems: &mut Problems) {
    for service in services {
        for list in [&service.service.after, &service.service.requires].into_iter().flatten() {
            super::check::no_repeats(&list.value, problems);
            for expected in list.value.iter().filter(|expected| !names.contains(expected.0.as_str())) {
                problems.push(unknown_service(expected, names));
            }
        }
    }
}

/// The problem of a name that no service has.
pub(super) fn unknown_service(name: &Spanned<ServiceName>, names: &BTreeSet<&str>) -> Problem {
    let hint = hint::did_you_mean(&name.0, names.iter().copied()).unwrap_or_else(|| {
        format!("the services are {}", names.iter().copied().collect::<Vec<_>>().join(", "))
    });
    Problem::new(Kind::UnknownName, name.span, format!("there is no service `{}`", name.0)).hint(hint)
}

/// Sorts services after their dependencies, by name where that leaves a choice; services that wait for each other are reported.
pub(super) fn start_order(services: Vec<Named>, problems: &mut Problems) -> Vec<Named> {
    let mut waiting: BTreeMap<String, Named> =
        services.into_iter().map(|service| (service.name.clone(), service)).collect();
    report_cycles(&waiting, problems);
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

/// Reports one problem for each group of services that wait for each other.
fn report_cycles(services: &BTreeMap<String, Named>, problems: &mut Problems) {
    let mut done = BTreeSet::new();
    for name in services.keys() {
        let mut path = Vec::new();
        if let Some((cycle, at)) = find_cycle(services, name, &mut path, &mut done) {
            problems.push(cycle_problem(&cycle, at));
        }
    }
}

/// Searches depth first; the depth is at most the number of services. `done` holds the services that were already searched.
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
    for expected in named.dependencies() {
        found = match path.iter().position(|passed| *passed == expected.0) {
            Some(start) => path.get(start..).map(|cycle| (cycle.to_vec(), expected.span)),
            None => find_cycle(services, &expected.0, path, done),
        };
        if found.is_some() {
            break;
        }
    }
    path.pop();
    done.insert(name.to_owned());
    found
}

fn cycle_problem(cycle: &[String], at: Span) -> Problem {
    let [only] = cycle else {
        let path = cycle.iter().chain(cycle.first()).map(String::as_str).collect::<Vec<_>>().join(" → ");
        return Problem::new(Kind::Cycle, at, format!("services wait for each other: {path}"))
            .label("this closes the cycle")
            .hint("remove one of these from `after` or `requires`");
    };
    Problem::new(Kind::Cycle, at, format!("service `{only}` waits for itself")).hint("remove it")
}
