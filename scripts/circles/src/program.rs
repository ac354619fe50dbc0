//! The files of one program or library, and which of them uses which.
//!
//! Its law: a name is used where it is defined. One that a module only passes on (`pub use`) leads to the module that has it, so
//! that a façade which names its children is no circle with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::source::{Import, Mention, Source, read};

/// How many times a name may be passed on; more is a name that passes itself on.
const MAX_PASSES: usize = 16;

/// A module's path from the root of its crate.
type Module = Vec<String>;

/// One use of a file by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Use {
    /// The file that uses.
    pub(crate) from: PathBuf,
    /// The file that is used.
    pub(crate) to: PathBuf,
    /// Where.
    pub(crate) line: usize,
    /// How it is written there.
    pub(crate) path: String,
    /// Whether the name is only passed on.
    pub(crate) passes_on: bool,
}

/// The files that belong together.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// Every module that there is, and its file.
    files: BTreeMap<Module, PathBuf>,
    sources: BTreeMap<PathBuf, (Module, Source)>,
}

impl Program {
    /// Reads the program that begins in the file `root`.
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

    /// The part of the crate that a file belongs to: the first segment of its module's path, or nothing for the root.
    pub(crate) fn folder(&self, file: &Path) -> String {
        let module = self.sources.get(file).map(|(module, _)| module);
        module.and_then(|module| module.first().cloned()).unwrap_or_default()
    }

    /// The folders there are.
    pub(crate) fn folders(&self) -> BTreeSet<String> {
        self.files.keys().filter_map(|module| module.first().cloned()).collect()
    }

    /// Every use of one file by another, once for each pair and kind.
    pub(crate) fn uses(&self) -> Vec<Use> {
        let mut found = BTreeMap::new();
        for (file, (module, source)) in &self.sources {
            let imported = source.imports.iter().map(|import| (&import.of, import.public));
            let mentioned = source.mentions.iter().map(|mention| (mention, false));
            for (mention, passes_on) in imported.chain(mentioned) {
                let scope = [module.clone(), mention.inside.clone()].concat();
                let Some(Target::Name(to)) = self.resolve(&scope, &mention.path, 0) else {
                    continue;
                };
                if to != *file {
                    let (line, path) = (mention.line, mention.path.join("::"));
                    let one = Use { from: file.clone(), to: to.clone(), line, path, passes_on };
                    found.entry((file.clone(), to, passes_on)).or_insert(one);
                }
            }
        }
        found.into_values().collect()
    }

    /// What a path that is written in the module `scope` leads to; nothing outside of this crate.
    fn resolve(&self, scope: &[String], path: &[String], passes: usize) -> Option<Target> {
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
                    return self.through_import(scope, name, rest, passes);
                }
            }
        }
        while let Some((next, after)) = rest.split_first() {
            module.push(next.clone());
            if !self.files.contains_key(&module) {
                module.pop();
                return self.find(&module, next, after, passes);
            }
            rest = after;
        }
        Some(Target::Module)
    }

    /// The name `name` in `module`, and what follows it there.
    fn find(&self, module: &[String], name: &str, rest: &[String], passes: usize) -> Option<Target> {
        let file = self.files.get(module)?;
        let imported = self.through_import(module, name, rest, passes);
        Some(imported.unwrap_or_else(|| Target::Name(file.clone())))
    }

    /// The same where the module has it from another.
    fn through_import(
        &self,
        module: &[String],
        name: &str,
        rest: &[String],
        passes: usize,
    ) -> Option<Target> {
        if passes > MAX_PASSES {
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
        // A name that stands for itself is one of another crate.
        if path.first().is_some_and(|first| first == name) && path.len() == 1 + rest.len() {
            return None;
        }
        self.resolve(&scope, &path, passes + 1)
    }

    /// Whether an import of everything has `name` in it.
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

/// What a path leads to.
enum Target {
    /// A module: whoever names something in it uses that.
    Module,
    /// A name, in this file.
    Name(PathBuf),
}
