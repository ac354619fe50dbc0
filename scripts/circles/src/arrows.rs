//! The dependencies that are allowed between the directories of `host-sleeve`.
//!
//! Invariant: a directory uses only those listed below it in the table.

/// The arrows: a directory, and everything it may use. The crate's root, which has no name, only selects a command.
pub(crate) const HOST_SLEEVE: &[(&str, &[&str])] = &[
    ("", &["cli", "error", "output", "verbs"]),
    (
        "verbs",
        &[
            "app", "backends", "build", "cli", "client", "doctor", "error", "install", "logbook", "metrics",
            "output", "registry", "signals", "sleeve", "state", "values",
        ],
    ),
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

/// The directories and arrows that the table does not contain, and the table's own upward arrows.
pub(crate) fn problems(
    table: &[(&str, &[&str])],
    folders: impl Iterator<Item = String>,
    arrows: impl Iterator<Item = (String, String, String)>,
) -> Vec<String> {
    let allowed = |folder: &str| table.iter().find(|(name, _)| *name == folder).map(|(_, below)| *below);
    let unknown = folders.filter(|folder| allowed(folder).is_none());
    let mut problems: Vec<String> =
        unknown.map(|folder| format!("{folder}/ is not in the table of arrows")).collect();
    for (from, to, place) in arrows {
        if !allowed(&from).unwrap_or_default().contains(&to.as_str()) {
            let from = if from.is_empty() { "the crate's root" } else { &from };
            problems.push(format!("{from} may not use {to}: {place}"));
        }
    }
    for (at, (folder, below)) in table.iter().enumerate() {
        let above = table.get(..=at).unwrap_or_default();
        for upward in below.iter().filter(|to| above.iter().any(|(name, _)| name == *to)) {
            problems.push(format!("the table lets {folder} use {upward}, which is above it"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_upward_arrow() {
        assert!(problems(HOST_SLEEVE, std::iter::empty(), std::iter::empty()).is_empty());
        let upward: &[(&str, &[&str])] = &[("a", &["b"]), ("b", &["a"])];
        assert_eq!(problems(upward, std::iter::empty(), std::iter::empty()).len(), 1);
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_reported_with_its_place() {
        let table: &[(&str, &[&str])] = &[("a", &["b"]), ("b", &[])];
        let arrow = |from: &str, to: &str| (from.to_owned(), to.to_owned(), "x.rs:1".to_owned());
        let found =
            problems(table, ["c".to_owned()].into_iter(), [arrow("a", "b"), arrow("b", "c")].into_iter());
        assert_eq!(found, ["c/ is not in the table of arrows", "b may not use c: x.rs:1"]);
    }
}
