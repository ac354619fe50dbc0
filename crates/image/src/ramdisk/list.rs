//! The list of the contents of ramdisk 1: `rootfs/ramdisk1.list`.
//!
//! Invariant: each line describes one entry completely; the owner is always root and the time zero.
//!
//! ```text
//! dir  0755 /proc
//! file 0555 /init cloister-init     a program of the workspace, by its name
//! ```

use std::collections::HashSet;

/// Maximum size of a list in bytes: the real one has some twenty lines.
pub(super) const MAX_LIST: u64 = 1 << 20;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its path, without a leading slash.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its type.
    pub kind: Kind,
}

/// The type of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A program, by its name.
    Program(String),
}

/// An error in a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ListError {
    /// The line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// Parses a list. Empty lines and comments after a `#` are ignored.
pub fn parse(text: &str) -> Result<Vec<Line>, ListError> {
    let mut lines = Vec::new();
    let mut directories = HashSet::from([String::new()]);
    let mut paths = HashSet::new();
    for (number, text) in text.lines().enumerate() {
        let fields: Vec<&str> = text.split('#').next().unwrap_or_default().split_whitespace().collect();
        if fields.is_empty() {
            continue;
        }
        let error = |why| ListError { line: number + 1, why };
        let line = line(&fields).map_err(error)?;
        let parent = line.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if !directories.contains(parent) {
            return Err(error("its parent is not a directory listed before it"));
        }
        if !paths.insert(line.path.clone()) {
            return Err(error("the path is listed twice"));
        }
        if line.kind == Kind::Directory {
            directories.insert(line.path.clone());
        }
        lines.push(line);
    }
    Ok(lines)
}

fn line(fields: &[&str]) -> Result<Line, &'static str> {
    let (mode, path, kind) = match *fields {
        ["dir", mode, path] => (mode, path, Kind::Directory),
        ["file", mode, path, program] => (mode, path, Kind::Program(plain_name(program)?.to_owned())),
        _ => return Err("it is neither `dir MODE PATH` nor `file MODE PATH PROGRAM`"),
    };
    Ok(Line { path: inside(path)?.to_owned(), mode: octal(mode)?, kind })
}

fn octal(text: &str) -> Result<u32, &'static str> {
    let wrong = "the mode is not four octal digits";
    if text.len() != 4 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong);
    }
    u32::from_str_radix(text, 8).map_err(|_| wrong)
}

fn inside(path: &str) -> Result<&str, &'static str> {
    let path = path.strip_prefix('/').ok_or("the path does not begin with a slash")?;
    let valid = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if valid { Ok(path) } else { Err("the path has an empty component, `.` or `..`") }
}

fn plain_name(name: &str) -> Result<&str, &'static str> {
    if name.contains('/') || name == "." || name == ".." {
        Err("the program is not a plain file name")
    } else {
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_line_by_line() {
        let list =
            parse("# the system\n\ndir 0755 /sbin\nfile 0555 /sbin/init cloister-init # PID 1\n").unwrap();
        let expected = [
            Line { path: "sbin".to_owned(), mode: 0o755, kind: Kind::Directory },
            Line {
                path: "sbin/init".to_owned(),
                mode: 0o555,
                kind: Kind::Program("cloister-init".to_owned()),
            },
        ];
        assert_eq!(list, expected);
    }

    #[test]
    fn the_list_of_this_project_is_valid() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../rootfs/ramdisk1.list");
        let list = parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(list.iter().any(|line| line.path == "init"));
    }

    #[test]
    fn an_invalid_line_is_reported_with_its_number() {
        let cases = [
            "dir 0755 proc",
            "dir 0755 /a/b",
            "dir 755 /a",
            "dir 0788 /a",
            "dir 0755 /a\ndir 0755 /a",
            "file 0644 /a ../b",
            "file 0644 /a",
            "node /a",
            "dir 0755 /a/../b",
        ];
        for text in cases {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("\n\nnode /a").unwrap_err().line, 3);
    }
}
