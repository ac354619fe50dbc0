//! The files of one program or library, and the dependencies between them.
//!
//! Invariant: using a name is a dependency on the file that defines it. A re-export (`pub use`) is followed to the
//! definition, so that a façade that re-exports items of its children does not form a cycle with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::source::{Import, Mention, Source, read};

/// Maximum number of re-exports of a name; more means that a name re-exports itself.
const MAX_REEXPORTS: usize = 16;

/// A module's path from the root of its crate.
type Module = Vec<String>;

/// One use of a file by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Use {
    /// The file that contains the use.
    pub(crate) from: PathBuf,
    /// The file that is used.
    pub(crate) to: PathBuf,
    /// The line of the use.
    pub(crate) line: usize,
    /// The path as written.
    pub(crate) path: String,
    /// Whether this is a re-export.
    pub(crate) reexport: bool,
}

/// The files of one program or library.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// Every module, and its file.
    files: BTreeMap<Module, PathBuf>,
    sources: BTreeMap<PathBuf, (Module, Source)>,
}

impl Program {
    /// Reads the program with the root file `root`.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut program = Self::default();
        let mut waiting = vec![(Module::new(), root.to_owned())];
        while let Some((module, file)) = waiting.pop() {
            let is_test = module.last().is_some_and(|name| name == "tests");
            if is_test || program.sources.contains_key(&file) {
                continue;
            }
            let text = fs::read_to_string(&file)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
            let source = read(&text);
            let owns_folder = module.is_empty() || file.ends_with("mod.rs");
            let folder = if owns_folder { file.with_file_name("") } else { file.with_extension("") };
            for name in &source.modules {
                let beside = folder.join(format!("{name}.rs"));
                let within = folder.join(name).join("mod.rs");
                let inner = [module.clone(), vec![name.clone()]].concat();
                waiting.push((inner, if beside.is_file() { beside } else { within }));
            }
            for inline in &source.inline {
                program.files.insert([module.clone(), inline.clone()].concat(), file.clone());
            }
            program.files.insert(module.clone(), file.clone());
            program.sources.insert(file, (module, source));
        }
        Ok(program)
    }

    /// The directory of a file: the first segment of its module's path, or an empty string for the root.
    pub(crate) fn folder(&self, file: &Path) -> String {
        let module = self.sources.get(file).map(|(module, _)| module);
        module.and_then(|module| module.first().cloned()).unwrap_or_default()
    }

    /// All directories.
    pub(crate) fn folders(&self) -> BTreeSet<String> {
        self.files.keys().filter_map(|module| module.first().cloned()).collect()
    }

    /// Every use of one file by another, one for each pair and kind.
    pub(crate) fn uses(&self) -> Vec<Use> {
        let mut found = BTreeMap::new();
        for (file, (module, source)) in &self.sources {
            let imported = source.imports.iter().map(|import| (&import.of, import.public));
            let mentioned = source.mentions.iter().map(|mention| (mention, false));
            for (mention, reexport) in imported.chain(mentioned) {
                let scope = [module.clone(), mention.inside.clone()].concat();
                let Some(Target::Name(to)) = self.resolve(&scope, &mention.path, 0) else {
                    continue;
                };
                if to != *file {
                    let (line, path) = (mention.line, mention.path.join("::"));
                    let one = Use { from: file.clone(), to: to.clone(), line, path, reexport };
                    found.entry((file.clone(), to, reexport)).or_insert(one);
                }
            }
        }
        found.into_values().collect()
    }

    /// Resolves a path written in the module `scope`; `None` outside of this crate.
    fn resolve(&self, scope: &[String], path: &[String], reexports: usize) -> Option<Target> {
        let (first, mut rest) = path.split_first()?;
        let mut module = scope.to_vec();
        match first.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => {
                module.pop()?;
                while rest.first().is_some_and(|next| next == "super") {
                    module.pop()?;
                    rest = rest.get(1..)?;
                }
            }
            name => {
                module.push(name.to_owned());
                if !self.files.contains_key(&module) {
                    return self.through_import(scope, name, rest, reexports);
                }
            }
        }
        while let Some((next, after)) = rest.split_first() {
            module.push(next.clone());
            if !self.files.contains_key(&module) {
                module.pop();
                return self.find(&module, next, after, reexports);
            }
            rest = after;
        }
        Some(Target::Module)
    }

    /// Resolves `name` in `module`, followed by `rest`.
    fn find(&self, module: &[String], name: &str, rest: &[String], reexports: usize) -> Option<Target> {
        let file = self.files.get(module)?;
        let imported = self.through_import(module, name, rest, reexports);
        Some(imported.unwrap_or_else(|| Target::Name(file.clone())))
    }

    /// As [`Self::find`], for a name that the module imports.
    fn through_import(
        &self,
        module: &[String],
        name: &str,
        rest: &[String],
        reexports: usize,
    ) -> Option<Target> {
        if reexports > MAX_REEXPORTS {
            return None;
        }
        let (_, source) = self.sources.get(self.files.get(module)?)?;
        let import = source.imports.iter().find(|import| import.name == name && import.name != "*");
        let import = import.or_else(|| {
            let all = source.imports.iter().filter(|import| import.name == "*");
            let mut all = all.filter(|_| !source.defines.iter().any(|own| own == name));
            all.find(|import| self.has(module, import, name))
        })?;
        let mut path = import.of.path.clone();
        if import.name == "*" {
            path.pop();
            path.push(name.to_owned());
        }
        path.extend_from_slice(rest);
        let scope = [module, &import.of.inside].concat();
        // A name that resolves to itself belongs to another crate.
        if path.first().is_some_and(|first| first == name) && path.len() == 1 + rest.len() {
            return None;
        }
        self.resolve(&scope, &path, reexports + 1)
    }

    /// Whether a glob import contains `name`.
    fn has(&self, module: &[String], import: &Import, name: &str) -> bool {
        let Mention { path, .. } = &import.of;
        let stem = path.get(..path.len().saturating_sub(1)).unwrap_or_default();
        let Some(target) = self.module_of(module, stem) else {
            return false;
        };
        let source = self.files.get(&target).and_then(|file| self.sources.get(file));
        source.is_some_and(|(_, source)| source.defines.iter().any(|own| own == name))
    }

    /// The module that a path names.
    fn module_of(&self, scope: &[String], path: &[String]) -> Option<Module> {
        let mut module = scope.to_vec();
        for segment in path {
            match segment.as_str() {
                "crate" => module.clear(),
                "self" => {}
                "super" => drop(module.pop()?),
                name => module.push(name.to_owned()),
            }
        }
        self.files.contains_key(&module).then_some(module)
    }
}

/// The result of resolving a path.
enum Target {
    /// A module; using it is not a dependency, but naming an item in it is.
    Module,
    /// An item, defined in this file.
    Name(PathBuf),
}
