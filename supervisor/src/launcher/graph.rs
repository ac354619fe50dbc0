//! The dependency graph: the manifest's `after` and `requires`, by position instead of by name.
//!
//! Invariant: a service comes after everything it depends on. The manifest guarantees that, and it is checked: a manifest
//! that violates it is refused before anything starts.

use cloister_manifest::model::Service;

use super::event::Id;

/// The edges of the process graph.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    after: Vec<Id>,
    requires: Vec<Id>,
    dependents: Vec<Id>,
}

/// A manifest whose services cannot be ordered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A service depends on one that does not come before it.
    #[error("service {service:?} depends on {on:?}, which is not defined before it")]
    Order {
        /// The service.
        service: String,
        /// The dependency.
        on: String,
    },
    /// There are more services than [`Id`] can number.
    #[error("the manifest has {0} services, more than can be numbered")]
    TooMany(usize),
}

impl Graph {
    /// The graph of `services`.
    pub(super) fn new(services: &[Service]) -> Result<Self, GraphError> {
        let mut nodes: Vec<Node> = Vec::with_capacity(services.len());
        for (place, service) in services.iter().enumerate() {
            let before = services.get(..place).unwrap_or_default();
            let id = id_of(place, services.len())?;
            let requires = resolve(service, &service.requires, before)?;
            let mut after = resolve(service, &service.after, before)?;
            after.extend(requires.iter().copied());
            after.sort_unstable();
            after.dedup();
            for on in &after {
                if let Some(node) = nodes.get_mut(on.index()) {
                    node.dependents.push(id);
                }
            }
            nodes.push(Node { after, requires, dependents: Vec::new() });
        }
        Ok(Self { nodes })
    }

    /// Every service, in the manifest's order.
    pub(super) fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        (0..u16::try_from(self.nodes.len()).unwrap_or(u16::MAX)).map(Id)
    }

    /// The services that `id` starts after, including those it requires.
    pub(super) fn after(&self, id: Id) -> &[Id] {
        self.nodes.get(id.index()).map_or(&[], |n| &n.after)
    }

    /// The services that `id` requires.
    pub(super) fn requires(&self, id: Id) -> &[Id] {
        self.nodes.get(id.index()).map_or(&[], |n| &n.requires)
    }

    /// The services that start after `id`, and so stop before it.
    pub(super) fn dependents(&self, id: Id) -> &[Id] {
        self.nodes.get(id.index()).map_or(&[], |n| &n.dependents)
    }

    /// `id` and everything that requires it, directly or not.
    pub(super) fn requirers(&self, id: Id) -> Vec<Id> {
        let mut all = vec![id];
        for later in self.ids().filter(|later| *later > id) {
            if self.requires(later).iter().any(|on| all.contains(on)) {
                all.push(later);
            }
        }
        all
    }

    /// `id` and everything it requires, directly or not.
    pub(super) fn requirements(&self, id: Id) -> Vec<Id> {
        let mut all = vec![id];
        let mut next = 0;
        while let Some(current) = all.get(next).copied() {
            for on in self.requires(current) {
                if !all.contains(on) {
                    all.push(*on);
                }
            }
            next = next.saturating_add(1);
        }
        all
    }
}

fn id_of(place: usize, count: usize) -> Result<Id, GraphError> {
    u16::try_from(place).map(Id).map_err(|_| GraphError::TooMany(count))
}

fn resolve(service: &Service, names: &[String], before: &[Service]) -> Result<Vec<Id>, GraphError> {
    let find = |name: &String| {
        let place = before.iter().position(|s| s.name == *name);
        place
            .and_then(|p| u16::try_from(p).ok())
            .map(Id)
            .ok_or_else(|| GraphError::Order { service: service.name.clone(), on: name.clone() })
    };
    names.iter().map(find).collect()
}
