//! A release of the operating system: kernel, ramdisk 1, command line, and the record of them.
//!
//! Its law: what the record names is what lies beside it; a release that was changed after it was packed is not used.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::list::{self, Kind, Line, ListFault, MAX_LIST};
use super::{Written, compressed, seal};
use crate::cpio::{Header, WriteFault, Writer};
use crate::digest::{Digest, Hashed};
use crate::limits::MAX_DOCUMENT;
use crate::oci::Architecture;

/// The record's name in a release's directory.
const RECORD: &str = "os.json";
/// The kernel's.
const KERNEL: &str = "kernel";
/// Ramdisk 1's.
const RAMDISK: &str = "os.cpio.zst";
/// The longest command line in bytes: `COMMAND_LINE_SIZE` of x86 and arm64, with its final zero.
const MAX_COMMAND_LINE: usize = 2047;

/// What is packed.
#[derive(Clone, Debug)]
pub struct OsPack<'a> {
    /// The release's version.
    pub version: &'a str,
    /// The machine it is for.
    pub architecture: Architecture,
    /// The kernel's file.
    pub kernel: &'a Path,
    /// How the kernel was built, as its own record says; put into the release's record as it is.
    pub kernel_record: Option<serde_json::Value>,
    /// The list of ramdisk 1; files it names lie next to it.
    pub list: &'a Path,
    /// The programs the list names.
    pub programs: &'a BTreeMap<String, PathBuf>,
    /// The kernel's command line.
    pub command_line: &'a str,
}

/// The record of a release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OsRelease {
    /// The release's version.
    pub version: String,
    /// The machine it is for.
    pub arch: Architecture,
    /// The kernel.
    pub kernel: KernelRecord,
    /// Ramdisk 1.
    pub ramdisk: FileRecord,
    /// The kernel's command line.
    pub cmdline: String,
    /// What is in ramdisk 1, by path.
    pub programs: BTreeMap<String, FileRecord>,
}

/// A file in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// The kernel in a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelRecord {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// How it was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<serde_json::Value>,
}

/// Why a release is not packed or not used.
#[derive(Debug, thiserror::Error)]
pub enum OsFault {
    /// The list is wrong: who keeps it must act.
    #[error("the list {} is wrong", .path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        #[source]
        fault: ListFault,
    },
    /// The list names a program that was not given: who calls must act.
    #[error("the list names the program `{0}`, which was not given")]
    Program(String),
    /// A command line the kernel would cut off or read differently: who calls must act.
    #[error("the command line is empty, longer than {MAX_COMMAND_LINE} bytes, or has a line break in it")]
    CommandLine,
    /// The record cannot be understood: the release must be built again.
    #[error("the record {} cannot be understood", .path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A file is not the one that the record names: the release must be built again.
    #[error("{} is not the file that the release's record names", .0.display())]
    Changed(PathBuf),
    /// A release for another machine: the operator must act.
    #[error("the release in {} is for {}, not for {}", .path.display(), .found.name(), .wanted.name())]
    Architecture {
        /// Where it is.
        path: PathBuf,
        /// What it is for.
        found: Architecture,
        /// What was asked for.
        wanted: Architecture,
    },
    /// The ramdisk cannot be written.
    #[error("ramdisk 1 cannot be written")]
    Ramdisk(#[source] WriteFault),
    /// This host must be looked at.
    #[error("{} cannot be {verb}", .path.display())]
    Host {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Packs a release into the directory `out`, which is there already: kernel, ramdisk 1 and record.
pub fn pack_os(pack: &OsPack<'_>, out: &Path) -> Result<OsRelease, OsFault> {
    check_command_line(pack.command_line)?;
    let text = read_bounded(pack.list, crate::wide(MAX_LIST))?;
    let lines = list::parse(&String::from_utf8_lossy(&text))
        .map_err(|fault| OsFault::List { path: pack.list.to_owned(), fault })?;
    let (ramdisk, programs) = write_ramdisk(pack, &lines, &out.join(RAMDISK))?;
    let kernel = copy(pack.kernel, &out.join(KERNEL))?;
    let release = OsRelease {
        version: pack.version.to_owned(),
        arch: pack.architecture,
        kernel: KernelRecord { digest: kernel.digest, size: kernel.size, built: pack.kernel_record.clone() },
        ramdisk,
        cmdline: pack.command_line.to_owned(),
        programs,
    };
    let path = out.join(RECORD);
    let fault = |source| OsFault::Record { path: path.clone(), source };
    let mut record = serde_json::to_vec_pretty(&release).map_err(fault)?;
    record.push(b'\n');
    std::fs::write(&path, record).map_err(host("written", &path))?;
    Ok(release)
}

/// Reads the record of the release in `directory`, and sees that it is for `architecture` and can be booted. Kernel and
/// ramdisk are compared with their digests where they are read.
pub fn read_os(directory: &Path, architecture: Architecture) -> Result<OsRelease, OsFault> {
    let path = directory.join(RECORD);
    let bytes = read_bounded(&path, MAX_DOCUMENT)?;
    let release: OsRelease =
        serde_json::from_slice(&bytes).map_err(|source| OsFault::Record { path: path.clone(), source })?;
    check_command_line(&release.cmdline)?;
    if release.arch != architecture {
        let path = directory.to_owned();
        return Err(OsFault::Architecture { path, found: release.arch, wanted: architecture });
    }
    Ok(release)
}

impl OsRelease {
    /// Where the kernel lies in a release's directory.
    #[must_use]
    pub fn kernel_path(directory: &Path) -> PathBuf {
        directory.join(KERNEL)
    }

    /// Where ramdisk 1 lies in a release's directory.
    #[must_use]
    pub fn ramdisk_path(directory: &Path) -> PathBuf {
        directory.join(RAMDISK)
    }
}

fn check_command_line(text: &str) -> Result<(), OsFault> {
    let sound = !text.is_empty() && text.len() <= MAX_COMMAND_LINE && !text.contains(['\n', '\0']);
    if sound { Ok(()) } else { Err(OsFault::CommandLine) }
}

fn write_ramdisk(
    pack: &OsPack<'_>,
    lines: &[Line],
    path: &Path,
) -> Result<(FileRecord, BTreeMap<String, FileRecord>), OsFault> {
    let file = File::create(path).map_err(host("written", path))?;
    let encoder = compressed(Hashed::new(io::BufWriter::new(file))).map_err(host("written", path))?;
    let mut writer = Writer::new(encoder);
    let mut programs = BTreeMap::new();
    for line in lines {
        if let Some(record) = write_line(pack, line, &mut writer)? {
            programs.insert(format!("/{}", line.path), record);
        }
    }
    let encoder = writer.finish().map_err(OsFault::Ramdisk)?;
    let (file, Written { digest, size }) =
        seal(encoder.finish().map_err(host("written", path))?).map_err(OsFault::Ramdisk)?;
    file.into_inner().map_err(|error| host("written", path)(error.into_error()))?;
    Ok((FileRecord { digest, size }, programs))
}

/// Writes one entry; for a file, what it was.
fn write_line<W: Write>(
    pack: &OsPack<'_>,
    line: &Line,
    writer: &mut Writer<W>,
) -> Result<Option<FileRecord>, OsFault> {
    let name = line.path.as_bytes();
    let header = |mode| Header { mode, ..Header::default() };
    let (mode, path) = match &line.kind {
        Kind::Directory(mode) => {
            writer.directory(name, header(*mode)).map_err(OsFault::Ramdisk)?;
            return Ok(None);
        }
        Kind::Link(target) => {
            writer.symlink(name, header(0o777), target.as_bytes()).map_err(OsFault::Ramdisk)?;
            return Ok(None);
        }
        Kind::File(mode, path) => (mode, pack.list.parent().unwrap_or(Path::new("")).join(path)),
        Kind::Program(mode, name) => {
            let path = pack.programs.get(name).ok_or_else(|| OsFault::Program(name.clone()))?;
            (mode, path.clone())
        }
    };
    let (file, size) = open(&path)?;
    let mut content = Hashed::new(file);
    writer.file(name, header(*mode), size, &mut content).map_err(OsFault::Ramdisk)?;
    Ok(Some(FileRecord { digest: content.digest(), size }))
}

fn copy(from: &Path, to: &Path) -> Result<FileRecord, OsFault> {
    let (file, _) = open(from)?;
    let mut source = Hashed::new(file);
    let mut target = File::create(to).map_err(host("written", to))?;
    io::copy(&mut source, &mut target).map_err(host("copied", from))?;
    Ok(FileRecord { digest: source.digest(), size: source.count() })
}

fn open(path: &Path) -> Result<(File, u64), OsFault> {
    let file = File::open(path).map_err(host("read", path))?;
    let size = file.metadata().map_err(host("read", path))?.len();
    Ok((file, size))
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, OsFault> {
    let (file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(host("read", path))?;
    if crate::wide(bytes.len()) > limit { Err(OsFault::Changed(path.to_owned())) } else { Ok(bytes) }
}

fn host(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OsFault {
    let path = path.to_owned();
    move |source| OsFault::Host { verb, path, source }
}
