//! The last step: finds the program and executes it, or reports what is missing.
//!
//! Invariant: `ENOENT` is never reported without its cause. The kernel returns it for a missing program, a missing interpreter
//! and a missing loader alike; here they are distinguished.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cloister_sys::process::Child;
use rustix::io::Errno;

use super::At;
use crate::hold::Failure;

/// Where programs are searched if the environment has no `PATH`: what Docker sets for an image without one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest `#!` line that the kernel reads (`BINPRM_BUF_SIZE`, `linux/binfmts.h`).
const HEAD: usize = 256;

/// A program ready to be executed.
pub(super) struct Program {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Converts the strings for the kernel, and lists the paths where the program may be.
    pub(super) fn prepare(argv: &[String], env: &[String]) -> Result<Self, Failure> {
        let missing = || Failure::new("exec", "argv", &io::Error::other("no program to run"));
        let name = argv.first().filter(|name| !name.is_empty()).ok_or_else(missing)?;
        let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        Ok(Self { candidates: strings(&candidates(name, path))?, argv: strings(argv)?, env: strings(env)? })
    }

    /// Executes the first candidate that exists. As in execvp(3), one that is not allowed to be executed is skipped, but
    /// reported if there is no other.
    pub(super) fn exec(&self, child: &Child) -> Result<Infallible, Failure> {
        let mut refused = None;
        for candidate in &self.candidates {
            let Err(error) = child.exec(candidate, &self.argv, &self.env);
            let path = candidate.to_string_lossy();
            match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR) if !Path::new(&*path).exists() => {}
                Some(Errno::ACCESS) if self.candidates.len() > 1 => {
                    refused = Some((path.into_owned(), error));
                }
                _ => return Err(explain(&path, &error)),
            }
        }
        match refused {
            Some((path, error)) => Err(explain(&path, &error)),
            None => Err(self.not_found()),
        }
    }

    fn not_found(&self) -> Failure {
        let name = self.argv.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let error = io::Error::from(Errno::NOENT);
        if name.contains('/') {
            return Failure::new("exec", name, &error);
        }
        Failure::new("exec", format_args!("{name} is not in PATH"), &error)
    }
}

/// The paths where a program of this name may be.
fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| format!("{directory}/{name}"))
        .collect()
}

pub(super) fn strings(texts: &[String]) -> Result<Vec<CString>, Failure> {
    texts.iter().map(|text| CString::new(text.as_str()).at("exec", format_args!("{text:?}"))).collect()
}

/// Explains the kernel's error for a file that exists.
fn explain(path: &str, error: &io::Error) -> Failure {
    match Errno::from_io_error(error) {
        // The kernel has read this file, so it is not a pipe, which would block on open.
        Some(Errno::NOENT) => match interpreter(&head(path).unwrap_or_default()) {
            Some(missing) => Failure::new("exec", format_args!("{path}: interpreter {missing}"), error),
            None => Failure::new("exec", format_args!("{path}: dynamic loader or a library"), error),
        },
        Some(Errno::NOEXEC) => {
            Failure::new("exec", format_args!("{path}: no program for this CPU, and no #! line"), error)
        }
        Some(Errno::ACCESS) => Failure::new("exec", format_args!("{path}{}", obstacle(path)), error),
        _ => Failure::new("exec", path, error),
    }
}

/// Why a file cannot be executed, if its metadata shows it.
fn obstacle(path: &str) -> &'static str {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => " is a directory",
        Ok(found) if !found.is_file() => " is a pipe, a socket or a device",
        Ok(found) if found.mode() & 0o111 == 0 => " has no execute permission in its mode",
        _ => "",
    }
}

fn head(path: &str) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(u64::try_from(HEAD).unwrap_or(0)).read_to_end(&mut head)?;
    Ok(head)
}

/// The interpreter of a script, from its first bytes.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    text.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_slash_is_searched_in_path() {
        assert_eq!(candidates("nginx", "/usr/sbin:/bin"), ["/usr/sbin/nginx", "/bin/nginx"]);
        assert_eq!(candidates("./run", "/bin"), ["./run"]);
    }

    #[test]
    fn empty_and_relative_directories_of_path_are_ignored() {
        assert_eq!(candidates("sh", ":bin:/bin"), ["/bin/sh"]);
    }

    #[test]
    fn the_missing_interpreter_of_a_script_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("run");
        std::fs::write(&script, "#! /usr/bin/no-such-python -u\n").unwrap();
        let failure = explain(script.to_str().unwrap(), &Errno::NOENT.into());
        assert!(
            failure.error.contains("run: interpreter /usr/bin/no-such-python: No such file"),
            "{failure:?}"
        );
        assert_eq!(failure.errno, 2);
    }

    #[test]
    fn the_reason_why_a_file_cannot_be_executed_is_reported() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let failure = explain(file.path().to_str().unwrap(), &Errno::ACCESS.into());
        assert!(
            failure.error.contains("has no execute permission in its mode: Permission denied"),
            "{failure:?}"
        );
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o777.into(), 0).unwrap();
        let failure = explain(pipe.to_str().unwrap(), &Errno::ACCESS.into());
        assert!(
            failure.error.contains("pipe is a pipe, a socket or a device: Permission denied"),
            "{failure:?}"
        );
        let failure = explain("/", &Errno::ACCESS.into());
        assert!(failure.error.starts_with("exec: / is a directory"), "{failure:?}");
    }

    #[test]
    fn an_empty_command_is_reported() {
        let failure = Program::prepare(&[], &[]).err().unwrap();
        assert!(failure.error.contains("no program to run"));
    }
}
