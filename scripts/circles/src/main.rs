//! Finds circles between the files and folders of each crate, and arrows of `host-sleeve` that its table does not have.
//!
//! Its law: what is found is shown, and ends the check badly, unless it is one of the knots of other crates that are known and
//! listed here; those are shown as well, and one that is gone must leave the list.
//!
//! What counts: a file uses another when it names something that the other defines, by `use` or by a path through `crate`,
//! `super`, `self` or a child's name. A child that uses its parent's types and a parent that calls the child are a circle like
//! any other. What does not count: `mod child;` alone; a name that is only passed on (`pub use`), which leads to where it is
//! defined; calls of methods, which no path names; code under `#[cfg(test)]` and files named `tests`. A folder is the first
//! segment of a module's path: what lies deeper belongs to it.

mod arrows;
mod graph;
mod program;
mod source;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use graph::{Graph, knots, way_around};
use program::{Program, Use};

/// The crate whose folders have a table of arrows.
const TABLED: &str = "host-sleeve";

/// Crates with knots that were there before this check: the crate, and how many knots of files and of folders it has.
const KNOWN: &[(&str, usize, usize)] = &[
    ("init", 1, 1),
    ("supervisor", 2, 0),
    ("crates/manifest", 3, 0),
    ("crates/image", 6, 2),
    ("crates/relay", 1, 1),
    ("qemu-tests", 3, 1),
];

/// What was found in one program.
#[derive(Debug, Default)]
struct Found {
    files: Vec<String>,
    folders: Vec<String>,
    arrows: Vec<String>,
}

fn main() -> ExitCode {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut out = io::stdout().lock();
    let checked = members(&root).and_then(|members| check(&root, &members, KNOWN, &mut out));
    match checked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Where even that cannot be printed, the exit code says it.
            drop(writeln!(out, "circles: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The folders of the workspace's members.
fn members(root: &Path) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(root.join("Cargo.toml"))?;
    let list = text
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(list, _)| list);
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Checks every member; true where all is in order.
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
            look(&Program::read(&file)?, member, root, &mut found);
        }
        let expected = known
            .iter()
            .find(|(name, ..)| name == member)
            .map_or((0, 0), |(_, files, folders)| (*files, *folders));
        let count = (found.files.len(), found.folders.len());
        let title = if count == expected { "known circle" } else { "circle" };
        for (kind, lines) in [("files", &found.files), ("folders", &found.folders)] {
            for line in lines {
                writeln!(out, "{member}: {title} between {kind}: {line}")?;
            }
        }
        for line in &found.arrows {
            writeln!(out, "{member}: {line}")?;
        }
        if count != expected {
            let (files, folders) = expected;
            writeln!(
                out,
                "{member}: {} circles between files and {} between folders, {files} and {folders} are known",
                count.0, count.1
            )?;
        }
        sound &= count == expected && found.arrows.is_empty();
    }
    Ok(sound)
}

/// The files in which the programs and the library of a member begin.
fn roots(member: &Path) -> io::Result<Vec<PathBuf>> {
    let manifest = fs::read_to_string(member.join("Cargo.toml"))?;
    let named = manifest.lines().filter_map(|line| line.strip_prefix("path = \"src/")?.strip_suffix('"'));
    let usual = ["lib.rs", "main.rs"].into_iter();
    let all: BTreeSet<PathBuf> = usual.chain(named).map(|file| member.join("src").join(file)).collect();
    Ok(all.into_iter().filter(|file| file.is_file()).collect())
}

fn look(program: &Program, member: &str, root: &Path, found: &mut Found) {
    let uses = program.uses();
    let files: Graph<PathBuf> =
        edges(uses.iter().filter(|one| !one.passes_on).map(|one| (one.from.clone(), one.to.clone())));
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
    for knot in knots(&files) {
        let way = way_around(&files, &knot);
        let steps = way.windows(2).filter_map(|step| {
            let [from, to] = step else { return None };
            uses.iter().find(|one| one.from == *from && one.to == *to && !one.passes_on).map(show)
        });
        found.files.push(format!("{} files; {}", knot.len(), steps.collect::<Vec<_>>().join(", ")));
    }
    for knot in knots(&folders) {
        let way = way_around(&folders, &knot);
        let steps = way.windows(2).filter_map(|step| {
            let [from, to] = step else { return None };
            places.get(&(from.clone(), to.clone())).map(|one| show(one))
        });
        let names = way.iter().map(|folder| if folder.is_empty() { "the root" } else { folder });
        let names = names.collect::<Vec<_>>().join(" → ");
        found.folders.push(format!("{names}; {}", steps.collect::<Vec<_>>().join(", ")));
    }
    if member == TABLED {
        let arrows = places.iter().map(|((from, to), one)| (from.clone(), to.clone(), show(one)));
        found.arrows.extend(arrows::faults(arrows::HOST_SLEEVE, program.folders().into_iter(), arrows));
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
