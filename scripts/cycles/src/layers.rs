//! The allowed dependencies between the directories of `host-sleeve`.
//!
//! Invariant: the table is sorted by layer: no directory uses one above it.

/// Each directory, and the directories that it may use. The crate's root, with an empty name, only selects a command.
pub(crate) const HOST_SLEEVE: &[(&str, &[&str])] = &[
    ("", &["cli", "error", "output", "verbs"]),
    (
        "verbs",
        &[
            "app", "backends", "build", "cli", "client", "doctor", "error", "install", "logbook", "metrics",
            "module", "output", "registry", "signals", "sleeve", "state", "values", "verify",
        ],
    ),
    ("verify", &["cli", "error"]),
    ("cli", &["backends", "registry", "values"]),
    ("doctor", &["backends", "error", "install", "state"]),
    (
        "sleeve",
        &[
            "app",
            "backends",
            "client",
            "error",
            "ingress",
            "logbook",
            "metrics",
            "module",
            "output",
            "signals",
            "state",
            "transport",
            "values",
        ],
    ),
    ("metrics", &["client", "error", "state", "values"]),
    ("client", &["error", "state"]),
    ("build", &["app", "backends", "error", "install", "output", "registry", "values"]),
    ("backends", &["app", "error", "install", "state", "transport", "values"]),
    ("ingress", &["output", "transport"]),
    ("module", &["error", "output", "state"]),
    ("logbook", &["output", "state"]),
    ("registry", &["error"]),
    ("state", &["error", "output", "values"]),
    ("transport", &[]),
    ("app", &["error"]),
    ("signals", &["error"]),
    ("install", &["error"]),
    ("output", &["error"]),
    ("error", &[]),
    ("values", &[]),
];

/// Violations of the table by these directories and dependencies (from, to, source location), and errors in the table
/// itself.
pub(crate) fn violations(
    table: &[(&str, &[&str])],
    folders: impl Iterator<Item = String>,
    dependencies: impl Iterator<Item = (String, String, String)>,
) -> Vec<String> {
    let allowed = |folder: &str| table.iter().find(|(name, _)| *name == folder).map(|(_, below)| *below);
    let unknown = folders.filter(|folder| allowed(folder).is_none());
    let mut violations: Vec<String> =
        unknown.map(|folder| format!("{folder}/ is not in the table of allowed dependencies")).collect();
    for (from, to, place) in dependencies {
        if !allowed(&from).unwrap_or_default().contains(&to.as_str()) {
            let from = if from.is_empty() { "the crate's root" } else { &from };
            violations.push(format!("{from} must not use {to}: {place}"));
        }
    }
    for (at, (folder, below)) in table.iter().enumerate() {
        let above = table.get(..=at).unwrap_or_default();
        for upward in below.iter().filter(|to| above.iter().any(|(name, _)| name == *to)) {
            violations.push(format!("the table allows {folder} to use {upward}, which is above it"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_upward_dependency() {
        assert!(violations(HOST_SLEEVE, std::iter::empty(), std::iter::empty()).is_empty());
        let upward: &[(&str, &[&str])] = &[("a", &["b"]), ("b", &["a"])];
        assert_eq!(violations(upward, std::iter::empty(), std::iter::empty()).len(), 1);
    }

    #[test]
    fn a_dependency_that_is_not_in_the_table_is_reported_with_its_location() {
        let table: &[(&str, &[&str])] = &[("a", &["b"]), ("b", &[])];
        let dependency = |from: &str, to: &str| (from.to_owned(), to.to_owned(), "x.rs:1".to_owned());
        let found = violations(
            table,
            ["c".to_owned()].into_iter(),
            [dependency("a", "b"), dependency("b", "c")].into_iter(),
        );
        assert_eq!(found, ["c/ is not in the table of allowed dependencies", "b must not use c: x.rs:1"]);
    }
}
