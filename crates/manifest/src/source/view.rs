//! What a service's view contains beyond the image: files of the manifest, files that container engines add, and mount points.
//!
//! Invariant: every mount point is resolved against the image, to a path without links, and every name on the path to it is
//! pinned in every service's view. A file that cannot be mounted, or cannot be protected from another service, is a problem
//! here and never a failed start.

use std::collections::{BTreeMap, BTreeSet};

use super::defaults;
use super::document::FileEntry;
use super::graph::Named;
use super::image::{EntryKind, Image, PRIVATE_DIRECTORIES, Rootfs, WalkedPath, hidden_by, walk};
use super::names::Path;
use super::problem::{Kind, Problem, Problems, Span};
use super::read::Spanned;
use super::resolve::Scope;
use crate::model;

/// The directories of [`PRIVATE_DIRECTORIES`] that are mounted over a directory of the image.
const COVERED: [&str; 4] = ["/dev", "/proc", "/sys", "/tmp"];

/// Private directories in which no file can be created.
const KERNEL_DIRECTORIES: [&str; 2] = ["/proc", "/sys"];

/// System calls with which a service that has `sys_admin` can remove a mount.
const UNMOUNTING: [&str; 3] = ["mount", "move_mount", "umount2"];

/// The permission bits of an addition, as container engines set them.
const ADDITION_MODE: u32 = 0o644;

/// Paths that something is mounted on, or that a service may write while the rest is read-only, with all names on the paths to them.
#[derive(Debug, Default)]
pub(super) struct Pins {
    paths: BTreeSet<String>,
    /// The files among them, with their positions in the manifest.
    files: BTreeMap<String, Span>,
}

impl Pins {
    pub(super) fn add(&mut self, walked: &WalkedPath) {
        self.paths.extend(walked.steps.iter().map(|step| format!("/{step}")));
    }

    fn add_file(&mut self, walked: &WalkedPath, at: Span) -> String {
        let end = format!("/{}", walked.path);
        self.add(walked);
        self.files.insert(end.clone(), at);
        end
    }
}

impl Scope<'_> {
    /// A service's files, each with the path at which it is mounted.
    pub(super) fn files(&self, named: &Named, pins: &mut Pins, problems: &mut Problems) -> Vec<model::File> {
        let mut files: Vec<model::File> = Vec::new();
        for (path, entry) in named.service.files.iter().flat_map(|map| map.0.iter()) {
            let Some(end) = self.place(named, path, pins, problems) else { continue };
            if files.iter().any(|file| file.path == end) {
                let what = format!("`{}` resolves to `{end}`, where another file is mounted", path.0);
                problems.push(Problem::new(Kind::Conflict, path.span, what).hint("remove one of them"));
            }
            let (content, mode) = match entry.as_ref().map(|entry| &entry.value) {
                Some(FileEntry::Content(text)) => (Some(text), None),
                Some(FileEntry::Rule(rule)) => (rule.content.as_deref(), rule.mode.as_deref()),
                None => (None, None),
            };
            let content = content.map_or_else(String::new, |text| text.0.clone());
            let mode = mode.map_or(defaults::FILE_MODE, |mode| mode.0);
            files.push(model::File { path: end, content, mode });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }

    /// The path at which a file of the manifest is mounted.
    fn place(
        &self,
        named: &Named,
        path: &Spanned<Path>,
        pins: &mut Pins,
        problems: &mut Problems,
    ) -> Option<String> {
        let mut refuse = |what: &str, label: String, hint: &str| {
            let problem = Problem::new(Kind::Image, path.span, format!("`{}` {what}", path.0));
            problems.push(problem.label(label).hint(hint));
            None
        };
        let walked = match walk(self.image.root, &path.0) {
            Ok(walked) => walked,
            Err(missing) => {
                return refuse("cannot be mounted", missing.why(&path.0), "choose another path");
            }
        };
        let end = format!("/{}", walked.path);
        let is_folder = walked.entry.as_ref().is_some_and(|entry| entry.kind == EntryKind::Directory);
        if is_folder || PRIVATE_DIRECTORIES.contains(&end.as_str()) {
            return refuse("is a directory in the image", String::new(), "name a file in it");
        }
        if let Some(folder) = hidden_by(&end) {
            if KERNEL_DIRECTORIES.contains(&folder) {
                let why = format!("every service has its own `{folder}`, which the kernel fills");
                return refuse("cannot be mounted", why, "choose another path");
            }
            return Some(end);
        }
        if let Some(other) = self.unmounter(named) {
            let why = format!("`{other}` has `sys_admin` and a system call that can unmount");
            let hint = format!("remove {} from its `allow_syscalls`", UNMOUNTING.join(", "));
            return refuse("cannot be protected from another service", why, &hint);
        }
        Some(pins.add_file(&walked, path.span))
    }

    /// Another service that could remove a pin and then the pinned path.
    fn unmounter(&self, named: &Named) -> Option<&str> {
        let able = |other: &&Named| {
            // Docker's set does not include `sys_admin`, so the user does not matter here.
            let capabilities = other.service.capabilities.iter().flat_map(|list| list.names(0));
            let calls = other.service.allow_syscalls.iter().flat_map(|list| list.value.iter());
            other.name != named.name
                && capabilities.into_iter().any(|capability| capability == "sys_admin")
                && calls.into_iter().any(|call| UNMOUNTING.contains(&call.0.as_str()))
        };
        self.services().find(able).map(|other| other.name.as_str())
    }
}

/// The parts that all views share: the additions and the pinned paths.
pub(super) fn root(
    image: &Image<'_>,
    name: &str,
    writable_bytes: u64,
    mut pins: Pins,
    problems: &mut Problems,
) -> model::Root {
    for folder in COVERED {
        match walk(image.root, folder) {
            Ok(walked) if walked.entry.as_ref().is_none_or(|entry| entry.kind == EntryKind::Directory) => {
                pins.add(&walked);
            }
            _ => problems.push(not_a(folder, "directory")),
        }
    }
    match walk(image.root, model::INITCTL) {
        Ok(walked) if walked.entry.as_ref().is_none_or(|entry| entry.kind != EntryKind::Directory) => {
            pins.add_file(&walked, Span::default());
        }
        _ => problems.push(not_a(model::INITCTL, "file")),
    }
    let mut additions = Vec::new();
    for (path, content) in engine_files(name) {
        if let Some(walked) = lacks(image.root, path) {
            let path = pins.add_file(&walked, Span::default());
            additions.push(model::File { path, content, mode: ADDITION_MODE });
        }
    }
    additions.sort_by(|a, b| a.path.cmp(&b.path));
    check(&pins, problems);
    model::Root { writable_bytes, additions, pinned: pins.paths.into_iter().collect() }
}

/// The files that container engines mount into every container. All services share the loopback interface and one host name.
/// Resolvers need a name server: if none is listed, musl queries 127.0.0.1 and waits for 5 s, and some programs refuse to
/// start. Nothing listens there, so the lookup of a name that is in no file fails after a second.
fn engine_files(name: &str) -> [(&'static str, String); 3] {
    let hosts =
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t{name}\n");
    let resolver = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".to_owned();
    [("/etc/hosts", hosts), ("/etc/hostname", format!("{name}\n")), ("/etc/resolv.conf", resolver)]
}

/// The resolved path of a file that the image lacks: it does not exist, is a dangling link, or is the empty file that engines
/// leave in an image where they mounted theirs.
fn lacks(root: &dyn Rootfs, path: &str) -> Option<WalkedPath> {
    let walked = walk(root, path).ok()?;
    let lacking = match &walked.entry {
        None => true,
        Some(entry) if entry.kind == EntryKind::File => {
            root.read(&walked.path, 1).is_ok_and(|bytes| bytes.is_empty())
        }
        Some(_) => false,
    };
    (lacking && hidden_by(&format!("/{}", walked.path)).is_none()).then_some(walked)
}

fn not_a(path: &str, kind: &str) -> Problem {
    let what = format!("the image's `{path}` is neither a {kind} nor a link to one");
    let why = format!("every service gets its own `{path}`: remove it from the image");
    Problem::new(Kind::Image, Span::default(), what).hint(why)
}

/// Checks that no file is where another needs a directory, and that there are not too many.
fn check(pins: &Pins, problems: &mut Problems) {
    for (path, at) in &pins.files {
        let above = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
        for (file, other) in above.filter_map(|above| pins.files.get_key_value(above)) {
            let what = format!("`{path}` needs a directory at `{file}`, which is a file");
            let problem = Problem::new(Kind::Conflict, *at, what).related(*other, "the file");
            problems.push(problem.hint("choose another path for one of them"));
        }
    }
    if pins.paths.len() > model::MAX_PINNED {
        let what = format!(
            "the services' files and writable paths need {} names, directories included; the maximum is {}",
            pins.paths.len(),
            model::MAX_PINNED
        );
        problems.push(
            Problem::new(Kind::Limit, Span::default(), what)
                .hint("put files into the image, or list one common directory as writable"),
        );
    }
}
