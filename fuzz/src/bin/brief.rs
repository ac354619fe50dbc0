//! Runs every target for a bounded time, with any compiler: the seeds first, then inputs derived from them.
//!
//! ```text
//! brief ROOT SECONDS [TARGET…]     each target for that long; findings are written to ROOT/fuzz/artifacts
//! brief ROOT --seeds TARGET        the directories of a target's seeds, one per line
//! brief ROOT --list                the targets' names
//! brief ROOT --input TARGET FILE   runs a single input
//! ```
//!
//! Invariant: it never takes longer than its time plus one input, and its last line counts passed and failed targets.

use std::env;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cloister_fuzz::mutate::{self, Chance};
use cloister_fuzz::{TARGETS, Target};

/// An input that takes longer is a finding: inputs are a few kilobytes.
const SLOW: Duration = Duration::from_secs(5);

/// Every run generates the same inputs; a finding is identified by its input, not by its number.
const SEED: u64 = 0x0c10_1572;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [_, "--list"] => {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            ExitCode::SUCCESS
        }
        [root, "--seeds", name] => with(name, |target| {
            folders(Path::new(root), target).iter().for_each(|folder| println!("{}", folder.display()));
            true
        }),
        [_, "--input", name, file] => {
            with(name, |target| fs::read(file).map(|bytes| (target.run)(&bytes)).is_ok())
        }
        [root, seconds, names @ ..] => match seconds.parse() {
            Ok(seconds) => run_all(Path::new(root), Duration::from_secs(seconds), names),
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: brief ROOT SECONDS [TARGET...] | ROOT --list | ROOT --seeds TARGET | ROOT --input TARGET FILE"
    );
    ExitCode::from(2)
}

fn with(name: &str, what: impl FnOnce(&Target) -> bool) -> ExitCode {
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) if what(target) => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
        None => {
            eprintln!("unknown target: {name}; brief ROOT --list lists them");
            ExitCode::from(2)
        }
    }
}

fn run_all(root: &Path, time: Duration, names: &[&str]) -> ExitCode {
    if let Some(unknown) = names.iter().find(|name| TARGETS.iter().all(|target| target.name != **name)) {
        return with(unknown, |_| false);
    }
    let wanted = TARGETS.iter().filter(|target| names.is_empty() || names.contains(&target.name));
    let (mut passed, mut failed) = (0, 0);
    for target in wanted {
        if run(root, target, time) { passed += 1 } else { failed += 1 }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one target on its seeds, then on derived inputs until its time is over.
fn run(root: &Path, target: &Target, time: Duration) -> bool {
    let corpus = corpus(root, target);
    if corpus.is_empty() {
        println!("{}: no seeds in {}", target.name, root.join("fuzz/corpus").join(target.name).display());
        return false;
    }
    let start = Instant::now();
    let mut chance = Chance::new(SEED);
    let mut count = 0_usize;
    while count < corpus.len() || start.elapsed() < time {
        let input = corpus.get(count).cloned().unwrap_or_else(|| mutate::input(&corpus, &mut chance));
        if let Err(what) = try_one(target, &input) {
            report(root, target, &input, &what);
            return false;
        }
        count += 1;
    }
    println!("{}: {count} inputs, {} of them seeds", target.name, corpus.len());
    true
}

fn try_one(target: &Target, input: &[u8]) -> Result<(), String> {
    let start = Instant::now();
    panic::catch_unwind(|| (target.run)(input)).map_err(|_| "the target panicked, see above".to_owned())?;
    let took = start.elapsed();
    if took > SLOW { Err(format!("the input took {} s", took.as_secs())) } else { Ok(()) }
}

/// Stores a finding, and prints how to reproduce it.
fn report(root: &Path, target: &Target, input: &[u8], what: &str) {
    let folder = root.join("fuzz/artifacts").join(target.name);
    let name = format!("brief-{:016x}", input.iter().fold(0xcbf2_9ce4_8422_2325_u64, fnv));
    let file = folder.join(name);
    let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input));
    println!("{}: {what}", target.name);
    match kept {
        Ok(()) => println!("  to reproduce: scripts/fuzz --input {} {}", target.name, file.display()),
        Err(error) => println!("  the input could not be stored in {}: {error}", file.display()),
    }
}

/// FNV-1a: a name for an input.
fn fnv(hash: u64, byte: &u8) -> u64 {
    (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
}

/// Directories of seeds: the target's corpus, then other test data of the project.
fn folders(root: &Path, target: &Target) -> Vec<PathBuf> {
    let own = root.join("fuzz/corpus").join(target.name);
    std::iter::once(own).chain(target.seeds.iter().map(|folder| root.join(folder))).collect()
}

/// The files of those directories, sorted by path.
fn corpus(root: &Path, target: &Target) -> Vec<Vec<u8>> {
    let entries = folders(root, target).into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files.iter().filter_map(|file| fs::read(file).ok()).collect()
}
