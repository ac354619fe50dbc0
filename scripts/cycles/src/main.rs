//! Finds cycles between the files and directories of each crate, and dependencies between directories of `host-sleeve` that its
//! table does not allow.
//!
//! Invariant: everything found is printed and fails the check, except the cycles of other crates that are listed here
//! as known; those are printed too, and one that no longer exists must be removed from the list.
//!
//! What counts: a file uses another if it names an item that the other defines, by `use` or by a path through `crate`,
//! `super`, `self` or a child's name. A child that uses its parent's types and a parent that calls the child are a
//! cycle like any other. What does not count: `mod child;` alone; a re-export (`pub use`), which is followed to the
//! definition; method calls, which have no path; code under `#[cfg(test)]` and files named `tests`. A directory is the
//! first segment of a module's path and contains all modules below it.

mod graph;
mod layers;
mod program;
mod source;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use graph::{Graph, components, shortest_cycle};
use program::{Program, Use};

/// The crate whose directories have a table of allowed dependencies.
const TABLED: &str = "host-sleeve";

/// Crates with cycles that are older than this check: the crate, and its number of cyclic components of files and of
/// directories.
const KNOWN: &[(&str, usize, usize)] = &[
    ("init", 1, 1),
    ("supervisor", 2, 0),
    ("crates/manifest", 3, 0),
    ("crates/image", 6, 2),
    ("crates/relay", 1, 1),
    ("qemu-tests", 3, 1),
];

/// Everything found in one program.
#[derive(Debug, Default)]
struct Found {
    files: Vec<String>,
    folders: Vec<String>,
    violations: Vec<String>,
}

fn main() -> ExitCode {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut out = io::stdout().lock();
    let checked = members(&root).and_then(|members| check(&root, &members, KNOWN, &mut out));
    match checked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // If even that cannot be printed, the exit code reports it.
            drop(writeln!(out, "cycles: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The directories of the workspace's members.
fn members(root: &Path) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(root.join("Cargo.toml"))?;
    let list = text
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(list, _)| list);
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Checks every member; returns true if there are no new violations.
fn check(
    root: &Path,
    members: &[String],
    known: &[(&str, usize, usize)],
    out: &mut impl Write,
) -> io::Result<bool> {
    let mut sound = true;
    for member in members {
        let mut found = Found::default();
        for file in roots(&root.join(member))? {
            analyze(&Program::read(&file)?, member, root, &mut found);
        }
        let expected = known
            .iter()
            .find(|(name, ..)| name == member)
            .map_or((0, 0), |(_, files, folders)| (*files, *folders));
        let count = (found.files.len(), found.folders.len());
        let title = if count == expected { "known cycle" } else { "cycle" };
        for (kind, lines) in [("files", &found.files), ("directories", &found.folders)] {
            for line in lines {
                writeln!(out, "{member}: {title} between {kind}: {line}")?;
            }
        }
        for line in &found.violations {
            writeln!(out, "{member}: {line}")?;
        }
        if count != expected {
            let (files, folders) = expected;
            writeln!(
                out,
                "{member}: {} cycles between files and {} between directories, {files} and {folders} are known",
                count.0, count.1
            )?;
        }
        sound &= count == expected && found.violations.is_empty();
    }
    Ok(sound)
}

/// The root files of a member's programs and library.
fn roots(member: &Path) -> io::Result<Vec<PathBuf>> {
    let manifest = fs::read_to_string(member.join("Cargo.toml"))?;
    let named = manifest.lines().filter_map(|line| line.strip_prefix("path = \"src/")?.strip_suffix('"'));
    let usual = ["lib.rs", "main.rs"].into_iter();
    let all: BTreeSet<PathBuf> = usual.chain(named).map(|file| member.join("src").join(file)).collect();
    Ok(all.into_iter().filter(|file| file.is_file()).collect())
}

fn analyze(program: &Program, member: &str, root: &Path, found: &mut Found) {
    let uses = program.uses();
    let files: Graph<PathBuf> =
        edges(uses.iter().filter(|one| !one.reexport).map(|one| (one.from.clone(), one.to.clone())));
    let mut places: BTreeMap<(String, String), &Use> = BTreeMap::new();
    for one in &uses {
        let (from, to) = (program.folder(&one.from), program.folder(&one.to));
        if from != to {
            places.entry((from, to)).or_insert(one);
        }
    }
    let folders: Graph<String> = edges(places.keys().cloned());
    let show = |one: &Use| {
        let from = one.from.strip_prefix(root).unwrap_or(&one.from);
        format!("{}:{} names {}", from.display(), one.line, one.path)
    };
    for component in components(&files) {
        let cycle = shortest_cycle(&files, &component);
        let steps = cycle.windows(2).filter_map(|step| {
            let [from, to] = step else { return None };
            uses.iter().find(|one| one.from == *from && one.to == *to && !one.reexport).map(show)
        });
        found.files.push(format!("{} files; {}", component.len(), steps.collect::<Vec<_>>().join(", ")));
    }
    for component in components(&folders) {
        let cycle = shortest_cycle(&folders, &component);
        let steps = cycle.windows(2).filter_map(|step| {
            let [from, to] = step else { return None };
            places.get(&(from.clone(), to.clone())).map(|one| show(one))
        });
        let names = cycle.iter().map(|folder| if folder.is_empty() { "the root" } else { folder });
        let names = names.collect::<Vec<_>>().join(" → ");
        found.folders.push(format!("{names}; {}", steps.collect::<Vec<_>>().join(", ")));
    }
    if member == TABLED {
        let dependencies = places.iter().map(|((from, to), one)| (from.clone(), to.clone(), show(one)));
        found.violations.extend(layers::violations(
            layers::HOST_SLEEVE,
            program.folders().into_iter(),
            dependencies,
        ));
    }
}

fn edges<N: Ord + Clone>(pairs: impl Iterator<Item = (N, N)>) -> Graph<N> {
    let mut graph = Graph::new();
    for (from, to) in pairs {
        graph.entry(from).or_insert_with(BTreeSet::new).insert(to);
    }
    graph
}

#[cfg(test)]
mod tests;
