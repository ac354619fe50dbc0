//! The list of what is in ramdisk 1, as `rootfs/list` has it.
//!
//! Its law: a line says everything about an entry; owner is root and time is zero, so that nobody has to.
//!
//! ```text
//! dir   /proc  0555
//! file  /init  0755  @init       a program, given by name when the list is packed
//! file  /etc/x 0644  etc/x       a file next to the list
//! link  /bin/x ../sbin/x
//! ```

use std::collections::HashSet;

/// The longest list in bytes: a list of some ten lines that has grown to a megabyte is no list.
pub(super) const MAX_LIST: usize = 1 << 20;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its path, without a leading slash.
    pub path: String,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory with these permission bits.
    Directory(u32),
    /// A program, by its name.
    Program(u32, String),
    /// A file, by its path from the list.
    File(u32, String),
    /// A symbolic link and its target.
    Link(String),
}

/// A list that cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ListFault {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// Reads a list. Empty lines and what follows a `#` are passed over.
pub fn parse(text: &str) -> Result<Vec<Line>, ListFault> {
    let mut lines = Vec::new();
    let mut directories = HashSet::from([String::new()]);
    let mut paths = HashSet::new();
    for (number, text) in text.lines().enumerate() {
        let words: Vec<&str> = text.split('#').next().unwrap_or_default().split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        let fault = |why| ListFault { line: number + 1, why };
        let line = line(&words).map_err(fault)?;
        let parent = line.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if !directories.contains(parent) {
            return Err(fault("its parent is not a directory listed before it"));
        }
        if !paths.insert(line.path.clone()) {
            return Err(fault("the path is listed twice"));
        }
        if matches!(line.kind, Kind::Directory(_)) {
            directories.insert(line.path.clone());
        }
        lines.push(line);
    }
    Ok(lines)
}

fn line(words: &[&str]) -> Result<Line, &'static str> {
    let (path, kind) = match *words {
        ["dir", path, mode] => (path, Kind::Directory(octal(mode)?)),
        ["file", path, mode, source] => match source.strip_prefix('@') {
            Some(program) => (path, Kind::Program(octal(mode)?, program.to_owned())),
            None => (path, Kind::File(octal(mode)?, inside(source)?.to_owned())),
        },
        ["link", path, target] => (path, Kind::Link(target.to_owned())),
        _ => return Err("it is none of: dir PATH MODE; file PATH MODE SOURCE; link PATH TARGET"),
    };
    let path = path.strip_prefix('/').ok_or("the path does not begin with a slash")?;
    Ok(Line { path: inside(path)?.to_owned(), kind })
}

fn octal(text: &str) -> Result<u32, &'static str> {
    let wrong = "the mode is four octal digits";
    if text.len() != 4 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong);
    }
    u32::from_str_radix(text, 8).map_err(|_| wrong)
}

fn inside(path: &str) -> Result<&str, &'static str> {
    let sound = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if sound { Ok(path) } else { Err("the path has an empty part, `.` or `..` in it") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_line_by_line() {
        let list =
            parse("# the system\ndir /sbin 0755\nfile /init 0755 @init # PID 1\nlink /sbin/x ../init\n")
                .unwrap();
        let kinds: Vec<_> = list.into_iter().map(|line| (line.path, line.kind)).collect();
        let expected = [
            ("sbin".to_owned(), Kind::Directory(0o755)),
            ("init".to_owned(), Kind::Program(0o755, "init".to_owned())),
            ("sbin/x".to_owned(), Kind::Link("../init".to_owned())),
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let cases = [
            "dir proc 0755",
            "dir /a/b 0755",
            "dir /a 755",
            "dir /a 0788",
            "dir /a 0755\ndir /a 0755",
            "file /a 0644 ../b",
            "node /a",
            "dir /a/../b 0755",
        ];
        for text in cases {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("\n\nnode /a").unwrap_err().line, 3);
    }
}
