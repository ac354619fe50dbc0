//! The configuration and the file tree of a container image, against which a manifest is resolved.
//!
//! Reading an image is left to other crates. This one looks up files through [`Rootfs`], and follows symbolic links itself,
//! inside the root, as the enclave's kernel will.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Deserializer};

/// The maximum number of symbolic links followed for one path, as in Linux (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Directories that are private to every service, regardless of the image's content there.
pub(super) const PRIVATE_DIRECTORIES: [&str; 5] = ["/dev", "/dev/shm", "/proc", "/sys", "/tmp"];

/// The private directory that hides a path of the image from its services, if one does.
pub(super) fn hidden_by(path: &str) -> Option<&'static str> {
    let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    PRIVATE_DIRECTORIES.into_iter().find(|folder| below(folder))
}

/// Whether init creates a working directory at this path when its service starts: one below a directory that starts empty.
pub(super) fn is_created_inside(path: &str) -> bool {
    ["/tmp/", "/dev/shm/"].iter().any(|folder| path.starts_with(folder))
        && !path.split('/').any(|part| part == "..")
}

/// The processor architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arch {
    /// x86-64.
    #[default]
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// The part of an OCI image's configuration that defines how to run it (image-spec, "config").
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// The start of every command line.
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// The command line, or the arguments of the entrypoint.
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Variables as `NAME=value`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`, or empty for root.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// The working directory, or empty for `/`.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// The signal that requests termination, or empty.
    #[serde(deserialize_with = "null_is_default")]
    pub stop_signal: String,
    /// Directories whose content is meant to change, by absolute path; the values are empty maps.
    #[serde(deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Ports as `80/tcp`, `53/udp` or `80`; the values are empty maps.
    #[serde(deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// The command that Docker runs to check a container. It is not part of the specification, so a value of another form
    /// is ignored.
    #[serde(deserialize_with = "invalid_is_default")]
    pub healthcheck: Healthcheck,
}

/// Docker's check of a container (`HEALTHCHECK`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `CMD` and a command line, `CMD-SHELL` and one string, `NONE`, or nothing.
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
}

/// Docker writes `null` for empty values.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    input: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// A value whose form is not specified: another form counts as empty.
fn invalid_is_default<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned + Default>(
    input: D,
) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(input)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// An image's file tree.
pub trait Rootfs {
    /// The entry at a path. The path has no leading slash (the root is empty) and no `.`, `..` or links before its last
    /// part; a link there is not followed.
    fn entry(&self, path: &str) -> Option<Entry>;

    /// The first bytes of the regular file at such a path, at most `limit`.
    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>>;

    /// The capabilities of the program at such a path, as they are stored (`security.capability`, capabilities(7)).
    fn capabilities(&self, path: &str) -> Option<Vec<u8>>;
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its type.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The type of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link and its target, unresolved.
    Link(String),
    /// Anything else.
    Other,
}

/// Everything about an image that a manifest is resolved against.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// How it is run.
    pub config: &'a ImageConfig,
    /// Its files.
    pub root: &'a dyn Rootfs,
    /// The architecture it is to run on.
    pub arch: Arch,
}

impl std::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("config", self.config).field("arch", &self.arch).finish_non_exhaustive()
    }
}

/// A file that was found, with its path without links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Without a leading slash.
    pub(super) path: String,
    pub(super) entry: Entry,
}

/// Why nothing was found at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// This absolute path does not exist.
    Absent(String),
    /// This absolute path is not a directory.
    NotADirectory(String),
    /// The symbolic links form a loop.
    Loop,
}

impl Missing {
    /// Why a path is missing, in prose.
    pub(super) fn why(&self, asked: &str) -> String {
        match self {
            Self::Absent(path) if path == asked => "the image has no such file".to_owned(),
            Self::Absent(path) => format!("in the image, `{path}` does not exist"),
            Self::NotADirectory(path) => format!("in the image, `{path}` is not a directory"),
            Self::Loop => "its symbolic links form a loop".to_owned(),
        }
    }
}

/// Finds an absolute path as the enclave's kernel will: links are followed, and none leads out of the root.
pub(super) fn find(root: &dyn Rootfs, path: &str) -> Result<Found, Missing> {
    let walked = walk(root, path)?;
    match (walked.entry, walked.absent) {
        (Some(entry), None) => Ok(Found { path: walked.path, entry }),
        (_, absent) => Err(Missing::Absent(absent.unwrap_or_else(|| "/".to_owned()))),
    }
}

/// A resolved path, which may exist in part only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WalkedPath {
    /// The path without links and without a leading slash.
    pub(super) path: String,
    /// The entry at this path.
    pub(super) entry: Option<Entry>,
    /// Every directory and link that was passed and the path itself, all without a leading slash.
    pub(super) steps: Vec<String>,
    /// The first of them that does not exist, as an absolute path.
    absent: Option<String>,
}

/// The maximum length of a path and of one part of it, in bytes (`PATH_MAX` less its NUL, `NAME_MAX`; linux/limits.h).
const MAX_PATH: usize = 4095;
const MAX_PART: usize = 255;

/// Resolves an absolute path as the enclave's kernel will, and continues past missing parts, since those can be created.
pub(super) fn walk(root: &dyn Rootfs, path: &str) -> Result<WalkedPath, Missing> {
    // The remaining parts, last first.
    let mut rest: Vec<String> = parts(path);
    let mut at: Vec<String> = Vec::new();
    let (mut steps, mut absent, mut links) = (Vec::new(), None, 0_usize);
    let mut entry = root.entry("");
    while let Some(part) = rest.pop() {
        if entry.as_ref().is_some_and(|entry| entry.kind != EntryKind::Directory) {
            return Err(Missing::NotADirectory(format!("/{}", at.join("/"))));
        }
        if part != ".." {
            at.push(part);
        } else if let Some(absent) = absent {
            return Err(Missing::Absent(absent));
        } else {
            at.pop();
        }
        let here = at.join("/");
        if here.len() > MAX_PATH || at.last().is_some_and(|part| part.len() > MAX_PART) {
            return Err(Missing::Absent(format!("/{}…", here.chars().take(MAX_PART).collect::<String>())));
        }
        entry = root.entry(&here);
        if entry.is_none() {
            absent.get_or_insert_with(|| format!("/{here}"));
        }
        if let Some(Entry { kind: EntryKind::Link(target), .. }) = &entry {
            links = links.saturating_add(1);
            if links > MAX_LINKS {
                return Err(Missing::Loop);
            }
            at.pop();
            if target.starts_with('/') {
                at.clear();
            }
            rest.extend(parts(target));
            entry = root.entry(&at.join("/"));
        }
        if !here.is_empty() {
            steps.push(here);
        }
    }
    Ok(WalkedPath { path: at.join("/"), entry, steps, absent })
}

/// A path's parts, last first.
fn parts(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").rev().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Files;
    use super::*;

    #[test]
    fn links_are_followed_inside_the_root() {
        let files = Files::default()
            .file("/usr/bin/python3.11", 0o755, "")
            .link("/usr/bin/python3", "python3.11")
            .link("/bin", "usr/bin")
            .link("/up", "../../usr")
            .link("/abs", "/usr/./bin/python3")
            .link("/a", "b")
            .link("/b", "/a")
            .link("/dangling", "/nowhere/at/all");
        let path = |asked: &str| find(&files, asked).map(|found| found.path);
        assert_eq!(path("/bin/python3").as_deref(), Ok("usr/bin/python3.11"));
        assert_eq!(path("/up/bin/python3").as_deref(), Ok("usr/bin/python3.11"));
        assert_eq!(path("/abs").as_deref(), Ok("usr/bin/python3.11"));
        assert_eq!(path("/").as_deref(), Ok(""));
        assert_eq!(path("/a"), Err(Missing::Loop));
        assert_eq!(path("/dangling"), Err(Missing::Absent("/nowhere".into())));
        assert_eq!(path("/abs/x"), Err(Missing::NotADirectory("/usr/bin/python3.11".into())));
    }

    #[test]
    fn a_walk_continues_past_missing_directories() {
        let files = Files::default()
            .link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
            .link("/var/run", "/run")
            .file("/etc/passwd", 0o644, "")
            .link("/astray", "nowhere/../etc")
            .directory("/run");
        let walked = walk(&files, "/etc/resolv.conf").unwrap();
        assert_eq!((walked.path.as_str(), walked.entry), ("run/systemd/resolve/stub-resolv.conf", None));
        let steps = [
            "etc",
            "etc/resolv.conf",
            "run",
            "run/systemd",
            "run/systemd/resolve",
            "run/systemd/resolve/stub-resolv.conf",
        ];
        assert_eq!(walked.steps, steps);
        assert_eq!(walk(&files, "/var/run/app/x").map(|walked| walked.path).as_deref(), Ok("run/app/x"));
        assert_eq!(walk(&files, "/etc/passwd/x"), Err(Missing::NotADirectory("/etc/passwd".into())));
        assert_eq!(walk(&files, "/astray"), Err(Missing::Absent("/nowhere".into())));
    }

    #[test]
    fn a_path_over_linux_limits_is_reported_as_absent() {
        let files = Files::default();
        for path in ["/a".repeat(100_000), format!("/{}", "n".repeat(256))] {
            assert!(
                matches!(walk(&files, &path), Err(Missing::Absent(at)) if at.len() < 300),
                "{} bytes",
                path.len()
            );
        }
        assert_eq!(walk(&files, &format!("/{}", "n".repeat(255))).map(|walked| walked.steps.len()), Ok(1));
    }

    #[test]
    fn image_configurations_of_docker_and_buildah_are_accepted() {
        let text = r#"{"Cmd":["nginx"],"Entrypoint":null,"Env":["A=b"],"ExposedPorts":{"80/tcp":{}},"Labels":{"x":"y"}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!((config.cmd, config.entrypoint), (vec!["nginx".to_owned()], vec![]));
        assert!(config.exposed_ports.contains_key("80/tcp"));
    }
}
