//! The last step: find the program and become it, or say what is missing.
//!
//! Its law: "No such file" is never the whole story. The kernel says it of a missing program, a missing interpreter and a
//! missing loader alike; here they are told apart.

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

/// Where programs are looked for when the environment has no `PATH`: what Docker gives an image without one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest `#!` line the kernel reads (`BINPRM_BUF_SIZE`, `linux/binfmts.h`).
const HEAD: usize = 256;

/// A program ready to be executed.
pub(super) struct Program {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// The strings as the kernel wants them, and the places where the program can be.
    pub(super) fn prepare(argv: &[String], env: &[String]) -> Result<Self, Failure> {
        let missing = || Failure::new("exec", "argv", &io::Error::other("there is no program to run"));
        let name = argv.first().filter(|name| !name.is_empty()).ok_or_else(missing)?;
        let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        Ok(Self { candidates: strings(&candidates(name, path))?, argv: strings(argv)?, env: strings(env)? })
    }

    /// Becomes the first candidate that is there. As execvp(3): one that may not be run is passed over, and remembered.
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
        Failure::new("exec", format_args!("{name} is in no folder of PATH"), &error)
    }
}

/// Where a program of this name can be.
fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    path.split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| format!("{folder}/{name}"))
        .collect()
}

pub(super) fn strings(words: &[String]) -> Result<Vec<CString>, Failure> {
    words.iter().map(|word| CString::new(word.as_str()).at("exec", format_args!("{word:?}"))).collect()
}

/// What the kernel's error means for a file that is there.
fn explain(path: &str, error: &io::Error) -> Failure {
    match Errno::from_io_error(error) {
        // The kernel has read this file: it is no pipe, whose opening would wait.
        Some(Errno::NOENT) => match interpreter(&head(path).unwrap_or_default()) {
            Some(missing) => Failure::new("exec", format_args!("{path}: its interpreter {missing}"), error),
            None => Failure::new("exec", format_args!("{path}: its loader or a library of it"), error),
        },
        Some(Errno::NOEXEC) => {
            Failure::new("exec", format_args!("{path}: no program for this processor, and no #! line"), error)
        }
        Some(Errno::ACCESS) => Failure::new("exec", format_args!("{path}{}", obstacle(path)), error),
        _ => Failure::new("exec", path, error),
    }
}

/// What keeps a file from being executed, where it is plain to see.
fn obstacle(path: &str) -> &'static str {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => " is a folder",
        Ok(found) if !found.is_file() => " is a pipe, a socket or a device",
        Ok(found) if found.mode() & 0o111 == 0 => " may be executed by nobody, by its mode",
        _ => "",
    }
}

fn head(path: &str) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(u64::try_from(HEAD).unwrap_or(0)).read_to_end(&mut head)?;
    Ok(head)
}

/// The interpreter of a script, or the loader of a program, as its first bytes name it.
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
    fn a_name_without_a_slash_is_looked_for_in_path() {
        assert_eq!(candidates("nginx", "/usr/sbin:/bin"), ["/usr/sbin/nginx", "/bin/nginx"]);
        assert_eq!(candidates("./run", "/bin"), ["./run"]);
    }

    #[test]
    fn an_empty_or_relative_folder_of_path_is_not_the_working_directory() {
        assert_eq!(candidates("sh", ":bin:/bin"), ["/bin/sh"]);
    }

    #[test]
    fn a_script_whose_interpreter_is_missing_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("run");
        std::fs::write(&script, "#! /usr/bin/no-such-python -u\n").unwrap();
        let failure = explain(script.to_str().unwrap(), &Errno::NOENT.into());
        assert!(
            failure.error.contains("its interpreter /usr/bin/no-such-python: No such file"),
            "{failure:?}"
        );
        assert_eq!(failure.errno, 2);
    }

    #[test]
    fn a_file_that_nobody_may_execute_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let failure = explain(file.path().to_str().unwrap(), &Errno::ACCESS.into());
        assert!(
            failure.error.contains("may be executed by nobody, by its mode: Permission denied"),
            "{failure:?}"
        );
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o777.into(), 0).unwrap();
        let failure = explain(pipe.to_str().unwrap(), &Errno::ACCESS.into());
        assert!(
            failure.error.contains("pipe is a pipe, a socket or a device: Permission denied"),
            "{failure:?}"
        );
        let failure = explain("/", &Errno::ACCESS.into());
        assert!(failure.error.starts_with("exec: / is a folder"), "{failure:?}");
    }

    #[test]
    fn nothing_to_run_is_an_error_of_its_own() {
        let failure = Program::prepare(&[], &[]).err().unwrap();
        assert!(failure.error.contains("no program to run"));
    }
}
