//! A release of the operating system: kernel, ramdisk 1, command line, and the record that describes them.
//!
//! Invariant: the files of a release match its record; a release that was changed after it was packed is refused.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::list::{self, Kind, Line, ListError, MAX_LIST};
use super::{OS_LEVEL, Written, compressed, seal};
use crate::cpio::{Header, WriteError, Writer};
use crate::digest::{Digest, Hashed};
use crate::limits::MAX_DOCUMENT;
use crate::oci::Architecture;

/// The file name of the record in a release's directory.
const RECORD: &str = "os.json";
/// The file name of the kernel.
const KERNEL: &str = "kernel";
/// The file name of ramdisk 1.
const RAMDISK: &str = "os.cpio.zst";
/// Maximum length of a command line in bytes: `COMMAND_LINE_SIZE` of x86 and arm64, without its final zero.
const MAX_COMMAND_LINE: usize = 2047;

/// The fields of a release's record that an artifact needs. The record also describes compilers and sources; it is
/// stored unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsRelease {
    /// The release's version.
    pub version: String,
    /// The architecture it is for.
    pub arch: Architecture,
    /// The kernel.
    pub kernel: FileRecord,
    /// Ramdisk 1.
    pub ramdisk: FileRecord,
    /// The kernel's command line.
    pub cmdline: String,
    /// The kernel's command line on AWS Nitro; absent in releases that do not support it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline_nitro: Option<String>,
}

/// A file in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its digest, formatted as the 64 digits alone.
    #[serde(with = "hex")]
    pub sha256: Digest,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Why a release cannot be packed or used.
#[derive(Debug, thiserror::Error)]
pub enum OsError {
    /// The list is invalid: its maintainer must act.
    #[error("the list {} is invalid", .path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: ListError,
    },
    /// A command line that the kernel would truncate or change: the release must be built again.
    #[error(
        "the command line is empty, longer than {MAX_COMMAND_LINE} bytes, or contains a newline or zero byte"
    )]
    CommandLine,
    /// The record cannot be parsed: the release must be built again.
    #[error("the record {} cannot be parsed", .path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A file does not match the record, or is damaged: the release must be built again.
    #[error("{} does not match the release's record", .0.display())]
    Changed(PathBuf),
    /// A release for another architecture: the operator must act.
    #[error("the release in {} is for {}, not for {}", .path.display(), .found.name(), .wanted.name())]
    Architecture {
        /// The directory of the release.
        path: PathBuf,
        /// Its architecture.
        found: Architecture,
        /// The wanted architecture.
        wanted: Architecture,
    },
    /// The ramdisk cannot be written.
    #[error("ramdisk 1 cannot be written")]
    Ramdisk(#[source] WriteError),
    /// An operation failed on this host.
    #[error("{} cannot be {verb}", .path.display())]
    Host {
        /// The operation, as a past participle.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Packs ramdisk 1 into the file `out`: the entries in `list`, with the programs from the directory `programs`.
pub fn pack_os(list: &Path, programs: &Path, out: &Path) -> Result<Written, OsError> {
    let text = read_bounded(list, MAX_LIST)?;
    let lines = list::parse(&String::from_utf8_lossy(&text))
        .map_err(|error| OsError::List { path: list.to_owned(), error })?;
    let file = File::create(out).map_err(host("written", out))?;
    let encoder =
        compressed(Hashed::new(io::BufWriter::new(file)), OS_LEVEL).map_err(host("written", out))?;
    let mut writer = Writer::new(encoder);
    for line in &lines {
        write_line(line, programs, &mut writer)?;
    }
    let unpacked = writer.position();
    let encoder = writer.finish().map_err(OsError::Ramdisk)?;
    let packed = encoder.finish().map_err(host("written", out))?;
    let (file, written) = seal(packed, unpacked).map_err(OsError::Ramdisk)?;
    file.into_inner().map_err(|error| host("written", out)(error.into_error()))?;
    Ok(written)
}

/// Reads the record of the release in `directory`, and checks that it is for `architecture` and can be booted. Kernel
/// and ramdisk are compared with their digests when they are read. Also returns the record's bytes.
pub fn read_os(directory: &Path, architecture: Architecture) -> Result<(OsRelease, Vec<u8>), OsError> {
    let path = directory.join(RECORD);
    let bytes = read_bounded(&path, MAX_DOCUMENT)?;
    let release: OsRelease =
        serde_json::from_slice(&bytes).map_err(|source| OsError::Record { path, source })?;
    check_command_line(&release.cmdline)?;
    release.cmdline_nitro.as_deref().map_or(Ok(()), check_command_line)?;
    if release.arch != architecture {
        let path = directory.to_owned();
        return Err(OsError::Architecture { path, found: release.arch, wanted: architecture });
    }
    Ok((release, bytes))
}

/// The path of the kernel in a release's directory.
#[must_use]
pub fn kernel_path(directory: &Path) -> PathBuf {
    directory.join(KERNEL)
}

/// The path of ramdisk 1 in a release's directory.
#[must_use]
pub fn ramdisk_path(directory: &Path) -> PathBuf {
    directory.join(RAMDISK)
}

/// The unpacked size of ramdisk 1 in bytes.
pub fn unpacked_size(ramdisk: &Path) -> Result<u64, OsError> {
    let file = File::open(ramdisk).map_err(host("read", ramdisk))?;
    let damaged = |_| OsError::Changed(ramdisk.to_owned());
    // The single frame is followed by padding.
    let mut decoder = zstd::Decoder::new(file).map_err(damaged)?.single_frame();
    io::copy(&mut decoder, &mut io::sink()).map_err(damaged)
}

fn check_command_line(text: &str) -> Result<(), OsError> {
    let valid = !text.is_empty() && text.len() <= MAX_COMMAND_LINE && !text.contains(['\n', '\0']);
    if valid { Ok(()) } else { Err(OsError::CommandLine) }
}

fn write_line<W: Write>(line: &Line, programs: &Path, writer: &mut Writer<W>) -> Result<(), OsError> {
    let name = line.path.as_bytes();
    let header = Header { mode: line.mode, ..Header::default() };
    let Kind::Program(program) = &line.kind else {
        return writer.directory(name, header).map_err(OsError::Ramdisk);
    };
    let path = programs.join(program);
    let mut file = File::open(&path).map_err(host("read", &path))?;
    let size = file.metadata().map_err(host("read", &path))?.len();
    writer.file(name, header, size, &mut file).map_err(OsError::Ramdisk)
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, OsError> {
    let file = File::open(path).map_err(host("read", path))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(host("read", path))?;
    if crate::wide(bytes.len()) > limit { Err(OsError::Changed(path.to_owned())) } else { Ok(bytes) }
}

fn host(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OsError + use<> {
    let path = path.to_owned();
    move |source| OsError::Host { verb, path, source }
}

/// Digests in the format of `sha256sum`, which shell scripts read and write.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::digest::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&digest.hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        Digest::from_hex(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}
