//! Cycles in a directed graph.
//!
//! Invariant: two nodes that can reach each other are in the same strongly connected component; a component is shown by
//! one of its shortest cycles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The successors of each node.
pub(crate) type Graph<N> = BTreeMap<N, BTreeSet<N>>;

/// The strongly connected components that contain a cycle, each as the set of its nodes.
pub(crate) fn components<N: Ord + Clone>(graph: &Graph<N>) -> Vec<BTreeSet<N>> {
    let mut found: Vec<BTreeSet<N>> = Vec::new();
    for node in graph.keys() {
        if found.iter().any(|component| component.contains(node)) {
            continue;
        }
        let ahead = reach(graph, node);
        let component: BTreeSet<N> =
            ahead.into_iter().filter(|other| reach(graph, other).contains(node)).collect();
        if !component.is_empty() {
            found.push(component);
        }
    }
    found
}

/// A shortest cycle in a component, which starts and ends with the same node.
pub(crate) fn shortest_cycle<N: Ord + Clone>(graph: &Graph<N>, component: &BTreeSet<N>) -> Vec<N> {
    let cycles = component.iter().filter_map(|node| path(graph, node, node));
    cycles.min_by_key(Vec::len).unwrap_or_default()
}

/// Every node reachable from `start` by at least one edge.
fn reach<N: Ord + Clone>(graph: &Graph<N>, start: &N) -> BTreeSet<N> {
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![start.clone()]);
    while let Some(node) = waiting.pop() {
        for next in graph.get(&node).into_iter().flatten() {
            if seen.insert(next.clone()) {
                waiting.push(next.clone());
            }
        }
    }
    seen
}

/// A shortest path with at least one edge.
fn path<N: Ord + Clone>(graph: &Graph<N>, from: &N, to: &N) -> Option<Vec<N>> {
    let mut before: BTreeMap<N, N> = BTreeMap::new();
    let mut waiting = VecDeque::from([from.clone()]);
    while let Some(node) = waiting.pop_front() {
        for next in graph.get(&node).into_iter().flatten() {
            if before.contains_key(next) {
                continue;
            }
            before.insert(next.clone(), node.clone());
            if next == to {
                let mut path = vec![to.clone()];
                let mut at = before.get(to)?.clone();
                while at != *from {
                    path.push(at.clone());
                    at = before.get(&at)?.clone();
                }
                path.push(from.clone());
                path.reverse();
                return Some(path);
            }
            waiting.push_back(next.clone());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&'static str, &'static str)]) -> Graph<&'static str> {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry(*from).or_insert_with(BTreeSet::new).insert(*to);
        }
        graph
    }

    #[test]
    fn an_acyclic_graph_has_no_cyclic_component() {
        assert!(components(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    }

    #[test]
    fn a_component_is_found_and_shown_by_its_shortest_cycle() {
        let graph = graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "b"), ("d", "a"), ("e", "e")]);
        let found = components(&graph);
        assert_eq!(found, [BTreeSet::from(["a", "b", "c"]), BTreeSet::from(["e"])]);
        assert_eq!(shortest_cycle(&graph, &found[0]), ["b", "c", "b"]);
        assert_eq!(shortest_cycle(&graph, &found[1]), ["e", "e"]);
    }
}
