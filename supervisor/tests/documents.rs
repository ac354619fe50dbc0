//! The documents and the manifest match the code.

use cloister_manifest::model::REFUSED_SYSCALLS;

/// The page that lists the refused system calls.
const SUPERVISION: &str = include_str!("../../docs/supervision.md");

/// The page about Cloister's servants.
const SERVANTS: &str = include_str!("../../docs/servants.md");

#[test]
fn every_system_call_of_a_servant_is_in_the_documents_with_its_reason() {
    for (name, reason) in cloister_supervisor::confine::servants_calls() {
        assert!(SERVANTS.contains(&format!("| `{name}` | {reason} |")), "{name}: {reason}");
    }
}

#[test]
fn every_refused_system_call_is_in_the_documents_with_its_reason() {
    for (name, reason) in cloister_supervisor::confine::refused_calls() {
        let row =
            SUPERVISION.lines().find(|line| line.contains(&format!("`{name}`")) && line.starts_with('|'));
        assert!(row.is_some_and(|row| row.contains(reason)), "{name}: {reason}");
    }
}

#[test]
fn the_filter_refuses_exactly_what_a_manifest_can_allow() {
    let mut refused: Vec<&str> =
        cloister_supervisor::confine::refused_calls().map(|(name, _)| name).collect();
    refused.sort_unstable();
    assert_eq!(refused, REFUSED_SYSCALLS);
}
