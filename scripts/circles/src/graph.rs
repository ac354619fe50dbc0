//! Circles in a graph.
//!
//! Its law: two nodes from which one can get to the other and back are in one knot; a knot is shown by a shortest way around.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Who leads to whom.
pub(crate) type Graph<N> = BTreeMap<N, BTreeSet<N>>;

/// The knots, each as all of its nodes.
pub(crate) fn knots<N: Ord + Clone>(graph: &Graph<N>) -> Vec<BTreeSet<N>> {
    let mut found: Vec<BTreeSet<N>> = Vec::new();
    for node in graph.keys() {
        if found.iter().any(|knot| knot.contains(node)) {
            continue;
        }
        let ahead = reach(graph, node);
        let knot: BTreeSet<N> =
            ahead.into_iter().filter(|other| reach(graph, other).contains(node)).collect();
        if !knot.is_empty() {
            found.push(knot);
        }
    }
    found
}

/// A shortest way around inside a knot, which begins and ends with the same node.
pub(crate) fn way_around<N: Ord + Clone>(graph: &Graph<N>, knot: &BTreeSet<N>) -> Vec<N> {
    let ways = knot.iter().filter_map(|node| way(graph, node, node));
    ways.min_by_key(Vec::len).unwrap_or_default()
}

/// Every node that can be come to from `start` by a step or more.
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

fn way<N: Ord + Clone>(graph: &Graph<N>, from: &N, to: &N) -> Option<Vec<N>> {
    let mut before: BTreeMap<N, N> = BTreeMap::new();
    let mut waiting = VecDeque::from([from.clone()]);
    while let Some(node) = waiting.pop_front() {
        for next in graph.get(&node).into_iter().flatten() {
            if before.contains_key(next) {
                continue;
            }
            before.insert(next.clone(), node.clone());
            if next == to {
                let mut way = vec![to.clone()];
                let mut at = before.get(to)?.clone();
                while at != *from {
                    way.push(at.clone());
                    at = before.get(&at)?.clone();
                }
                way.push(from.clone());
                way.reverse();
                return Some(way);
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
    fn a_graph_without_a_way_back_has_no_knot() {
        assert!(knots(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    }

    #[test]
    fn a_knot_is_found_and_shown_by_its_shortest_way_around() {
        let graph = graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "b"), ("d", "a"), ("e", "e")]);
        let found = knots(&graph);
        assert_eq!(found, [BTreeSet::from(["a", "b", "c"]), BTreeSet::from(["e"])]);
        assert_eq!(way_around(&graph, &found[0]), ["b", "c", "b"]);
        assert_eq!(way_around(&graph, &found[1]), ["e", "e"]);
    }
}
