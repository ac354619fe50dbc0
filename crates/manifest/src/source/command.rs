//! The command line and the environment of a service.
//!
//! Invariant: the program is an absolute path that exists and can start, so that nothing is looked up inside.

use std::collections::BTreeMap;

use super::accounts::Identity;
use super::check::Plan;
use super::defaults;
use super::document::Service;
use super::graph::Named;
use super::hint;
use super::names::Capability;
use super::problem::{Kind, Problem, Problems, Span};
use super::program::{self, Setting};
use super::read::Spanned;
use super::resolve::Scope;
use crate::model::File;

/// Refuses two services that run the image's own command: they would be the same program twice.
pub(super) fn check_repeats(plan: &Plan, problems: &mut Problems) {
    let mut same = plan.services.iter().filter(|named| {
        let service = &named.service;
        service.command.is_none() && service.args.is_none() && !named.damaged
    });
    let (Some(first), Some(second)) = (same.next(), same.next()) else { return };
    let (first, second) = if first.name_span < second.name_span { (first, second) } else { (second, first) };
    let what = format!("`{}` and `{}` would both run the image's own command", first.name, second.name);
    let problem = Problem::new(Kind::Conflict, second.name_span, what).related(first.name_span, "the first");
    problems.push(problem.hint("give one of them a `command`"));
}

impl Scope<'_> {
    /// The image's variables, then the manifest's, then the three that container engines set and programs rely on.
    pub(super) fn environment(
        &self,
        named: &Named,
        identity: Option<&Identity>,
        problems: &mut Problems,
    ) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for variable in &self.image.config.env {
            if variable.contains('\0') {
                let what = "a variable of the image contains a NUL byte, which cannot be passed to a program";
                problems.push(
                    Problem::new(Kind::Image, named.name_span, what).label(variable.replace('\0', "\\0")),
                );
                continue;
            }
            match variable.split_once('=') {
                // An empty name is ignored.
                Some(("", _)) => {}
                Some((name, value)) => drop(env.insert(name.to_owned(), value.to_owned())),
                // A name without a value unsets the variable (containerd, `replaceOrAppendEnvValues`).
                None => drop(env.remove(variable)),
            }
        }
        for (name, value) in named.service.env.iter().flat_map(|map| map.0.iter()) {
            env.extend(value.as_ref().map(|value| (name.0.clone(), value.0.clone())));
        }
        env.entry("PATH".to_owned()).or_insert_with(|| defaults::SEARCH_PATH.to_owned());
        env.entry("HOSTNAME".to_owned()).or_insert_with(|| self.host_name());
        env.entry("HOME".to_owned())
            .or_insert_with(|| identity.map_or("/", |identity| &identity.home).to_owned());
        env
    }

    /// The command line: `command` replaces the image's entrypoint, `args` its command.
    pub(super) fn argv(
        &self,
        named: &Named,
        identity: Option<&Identity>,
        place: Place<'_>,
        problems: &mut Problems,
    ) -> Vec<String> {
        let config = self.image.config;
        let texts =
            |list: &Vec<Spanned<super::units::Text>>| list.iter().map(|text| text.0.clone()).collect();
        let command = named.service.command.as_ref();
        let mut argv: Vec<String> =
            command.map_or_else(|| config.entrypoint.clone(), |list| texts(&list.value));
        match &named.service.args {
            Some(list) => argv.extend::<Vec<String>>(texts(&list.value)),
            None if command.is_none() => argv.extend(config.cmd.iter().cloned()),
            None => {}
        }
        if named.damaged || command.is_some_and(|list| list.value.is_empty()) {
            return argv;
        }
        let at =
            command.map_or(named.name_span, |list| list.value.first().map_or(list.span, |text| text.span));
        let Some(program) = argv.first_mut() else {
            let problem = Problem::new(
                Kind::Image,
                at,
                format!("service `{}` has no command, and neither has the image", named.name),
            );
            problems.push(problem.hint("write `command: [program, argument]`"));
            return argv;
        };
        let Some(identity) = identity else { return argv };
        let setting = Setting {
            identity,
            capabilities: capabilities(&named.service, identity),
            cwd: place.cwd,
            search_path: place.env.get("PATH").map_or("", String::as_str),
            files: place.files,
        };
        match program::locate(self.image, setting, program) {
            Ok(path) => *program = path,
            Err(refusal) => problems.push(
                Problem::new(Kind::Image, at, refusal.what)
                    .label(if command.is_none() { "the command comes from the image" } else { "" })
                    .maybe_hint(one_text(program).or(refusal.hint)),
            ),
        }
        argv
    }
}

/// The surroundings in which a service's program runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) cwd: &'a str,
    /// The files mounted over the image's.
    pub(super) files: &'a [File],
}

/// The maximum length of a program's argument or variable, with its NUL: 32 pages (`MAX_ARG_STRLEN`, `linux/binfmts.h`). The
/// total is limited to 2 MiB, a quarter of the stack (execve(2)), which a manifest of 512 KiB cannot reach.
const MAX_STRING: usize = 128 * 1024;

/// Reports each argument and variable that the kernel would not pass to a program.
pub(super) fn check_strings(
    named: &Named,
    env: &BTreeMap<String, String>,
    argv: &[String],
    problems: &mut Problems,
) {
    let mut refuse = |what: String, at: Span| {
        let problem = Problem::new(Kind::Limit, at, what).label(format!("the maximum is {}", MAX_STRING - 1));
        problems.push(problem.hint("pass it in `files` or `sealed`, or put it into the image"));
    };
    for (name, value) in env {
        let length = name.len().saturating_add(value.len()).saturating_add("=".len());
        if length >= MAX_STRING {
            let given = named.service.env.iter().flat_map(|map| map.0.iter());
            let at = given.into_iter().find(|(key, _)| key.value.0 == *name).map(|(key, _)| key.span);
            let whose = if at.is_some() { "" } else { "the image's " };
            refuse(
                format!("{whose}variable `{name}` is {length} bytes long, including its name"),
                at.unwrap_or(named.name_span),
            );
        }
    }
    for (number, argument) in argv.iter().enumerate().filter(|(_, argument)| argument.len() >= MAX_STRING) {
        refuse(format!("argument {number} is {} bytes long", argument.len()), named.name_span);
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        let what = "the image's command contains a NUL byte, which cannot be passed to a program";
        let problem = Problem::new(Kind::Image, named.name_span, what);
        problems.push(problem.hint("set `command` in the manifest"));
    }
}

/// The service's capabilities as the kernel's bit mask.
fn capabilities(service: &Service, identity: &Identity) -> u64 {
    let names = service.capabilities.as_ref().map(|list| list.names(identity.uid)).unwrap_or_default();
    names.iter().filter_map(|name| Capability::number(name)).fold(0, |mask, number| mask | 1 << number)
}

/// The hint for a command line that was written as one string.
fn one_text(program: &str) -> Option<String> {
    program.contains(char::is_whitespace).then(|| hint::as_list(program))
}
