//! Checks that a service's program can start.
//!
//! Invariant: a program that `execve(2)` would refuse inside is refused here with an explanation: a missing program or
//! interpreter, a missing permission, a binary for another architecture. The check is made with the rights of the service's
//! user; even root has only its permission bits and capabilities.

use super::accounts::Identity;
use super::image::{Arch, Entry, EntryKind, Found, Image, find, hidden_by};
use super::names::Capability;
use crate::model::File;

/// Bytes read of a program: its ELF header and program headers, or its first line. The kernel itself reads 256.
const HEAD: usize = 4096;

/// The maximum length of an interpreter's path: the kernel reads 256 bytes of a script (`BINPRM_BUF_SIZE`), including `#!` and
/// one byte after the path.
const SCRIPT_LINE: usize = 253;

/// The maximum depth of interpreters of interpreters, as in Linux (`exec_binprm` in `fs/exec.c`).
const MAX_DEPTH: usize = 5;

/// Who runs it, where, and with which variables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'a> {
    pub(super) identity: &'a Identity,
    /// Its capabilities as the kernel's bit mask.
    pub(super) capabilities: u64,
    pub(super) cwd: &'a str,
    pub(super) search_path: &'a str,
    /// The files mounted over the image's.
    pub(super) files: &'a [File],
}

/// Why a program cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

fn refuse<T>(what: String, hint: Option<&str>) -> Result<T, Refusal> {
    Err(Refusal { what, hint: hint.map(str::to_owned) })
}

/// The absolute path of a program, found as a shell would find it, and checked to start.
pub(super) fn locate(image: &Image<'_>, setting: Setting<'_>, program: &str) -> Result<String, Refusal> {
    let path = if program.starts_with('/') {
        program.to_owned()
    } else if program.contains('/') {
        absolute(setting.cwd, program)
    } else {
        search(image, setting, program)?
    };
    check(image, setting, &path, 0)?;
    Ok(path)
}

/// A path relative to a directory, as an absolute path.
fn absolute(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The program in the first directory of the search path that contains it; executable ones take precedence.
fn search(image: &Image<'_>, setting: Setting<'_>, program: &str) -> Result<String, Refusal> {
    if program.is_empty() {
        return refuse("the program's name is empty".to_owned(), None);
    }
    let mut fallback = None;
    for directory in setting.search_path.split(':').filter(|directory| directory.starts_with('/')) {
        let path = absolute(directory, program);
        match find(image.root, &path) {
            Ok(found) if found.entry.kind == EntryKind::File => {
                if may(&found.entry, setting, EXECUTE) {
                    return Ok(path);
                }
                fallback = fallback.or(Some(path));
            }
            _ => {}
        }
    }
    let hint = format!("the search path is {}", setting.search_path);
    fallback.map_or_else(|| refuse(format!("the image has no program `{program}`"), Some(&hint)), Ok)
}

impl Setting<'_> {
    /// Whether a file of the manifest is mounted here.
    fn covers(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path)
    }
}

fn covered(path: &str) -> Result<(), Refusal> {
    let what = format!("`{path}` is in `files`, which cannot be executed");
    refuse(what, Some("run a script through its interpreter: `command: [/bin/sh, /the/script]`"))
}

/// Checks that the kernel would start the program at a path.
fn check(image: &Image<'_>, setting: Setting<'_>, path: &str, depth: usize) -> Result<(), Refusal> {
    let found = match find(image.root, path) {
        _ if setting.covers(path) => return covered(path),
        Ok(found) if setting.covers(&format!("/{}", found.path)) => return covered(path),
        Ok(found) => found,
        Err(missing) => return refuse(format!("`{path}` cannot be run: {}", missing.why(path)), None),
    };
    if let Some(folder) = hidden_by(&format!("/{}", found.path)) {
        let what = format!("`{path}` is hidden in the enclave: every service has its own `{folder}`");
        return refuse(what, Some("put it elsewhere in the image"));
    }
    match found.entry.kind {
        EntryKind::File => {}
        EntryKind::Directory => return refuse(format!("`{path}` is a directory"), None),
        _ => return refuse(format!("`{path}` is not a file"), None),
    }
    check_permission(image, setting, path, &found)?;
    let head = match image.root.read(&found.path, HEAD) {
        Ok(head) => head,
        Err(error) => return refuse(format!("`{path}` cannot be read: {error}"), None),
    };
    if depth > MAX_DEPTH {
        return refuse(format!("`{path}` is reached through more than {MAX_DEPTH} interpreters"), None);
    }
    if let Some(line) = head.strip_prefix(b"#!") {
        return check_script(image, setting, path, line, depth);
    }
    check_elf(image, setting, path, &head, depth)
}

/// `CAP_DAC_OVERRIDE` (`linux/capability.h`): bypasses permission bits.
const DAC_OVERRIDE: u32 = 1;

/// The execute permission bit.
const EXECUTE: u32 = 0o1;

/// Every directory on the path must be searchable by the user, and the file executable.
fn check_permission(
    image: &Image<'_>,
    setting: Setting<'_>,
    path: &str,
    found: &Found,
) -> Result<(), Refusal> {
    let who = format!("user {}, group {}", setting.identity.uid, setting.identity.gid);
    for (end, _) in found.path.match_indices('/') {
        let above = found.path.get(..end).unwrap_or("");
        let open = image.root.entry(above).is_none_or(|entry| may(&entry, setting, EXECUTE));
        if !open {
            let what = format!("`{path}` cannot be reached: {who} cannot enter `/{above}`");
            return refuse(what, Some("change its mode in the image, or the service's `user`"));
        }
    }
    if may(&found.entry, setting, EXECUTE) {
        return Ok(());
    }
    let mode = found.entry.mode & 0o7777;
    let hint =
        if mode & 0o111 == 0 { "run `chmod +x` on it in the image" } else { "change the service's `user`" };
    refuse(format!("`{path}` is not executable by {who} (its mode is {mode:04o})"), Some(hint))
}

/// The kernel's rule for permission bits: the first of owner, group and others that applies decides.
fn may(entry: &Entry, setting: Setting<'_>, bit: u32) -> bool {
    let user = setting.identity;
    let shift = if entry.uid == user.uid {
        6
    } else if entry.gid == user.gid || user.groups.contains(&entry.gid) {
        3
    } else {
        0
    };
    let overridden = setting.capabilities >> DAC_OVERRIDE & 1 == 1
        && (entry.kind == EntryKind::Directory || entry.mode & 0o111 != 0);
    overridden || entry.mode >> shift & bit != 0
}

/// Checks a script's interpreter, and for `env` the program that it is to find.
fn check_script(
    image: &Image<'_>,
    setting: Setting<'_>,
    path: &str,
    line: &[u8],
    depth: usize,
) -> Result<(), Refusal> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or(b"");
    let name = line.split(|byte| b" \t".contains(byte)).find(|word| !word.is_empty());
    if line.len() > SCRIPT_LINE && name.is_some_and(|name| name.len() > SCRIPT_LINE) {
        let what = format!("`{path}` is a script whose interpreter path is longer than {SCRIPT_LINE} bytes");
        return refuse(what, Some("give the interpreter a shorter path in the image"));
    }
    let line = String::from_utf8_lossy(line);
    if line.ends_with('\r') {
        let what = format!("`{path}` is a script with Windows line endings, so its interpreter is not found");
        return refuse(what, Some("save it with Unix line endings"));
    }
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let interpreter = words.next().unwrap_or("");
    if !interpreter.starts_with('/') {
        return refuse(format!("`{path}` is a script without an absolute interpreter path"), None);
    }
    let within = |refusal: Refusal| Refusal {
        what: format!("`{path}` is a script for `{interpreter}`: {}", refusal.what),
        hint: refusal.hint,
    };
    check(image, setting, interpreter, depth.saturating_add(1)).map_err(within)?;
    match words.next() {
        Some(program)
            if interpreter.ends_with("/env") && !program.starts_with('-') && !program.contains('=') =>
        {
            locate_below(image, setting, program, depth).map_err(within)
        }
        _ => Ok(()),
    }
}

fn locate_below(image: &Image<'_>, setting: Setting<'_>, program: &str, depth: usize) -> Result<(), Refusal> {
    let path =
        if program.contains('/') { absolute(setting.cwd, program) } else { search(image, setting, program)? };
    check(image, setting, &path, depth.saturating_add(1))
}

/// An ELF file must be for this architecture, and its dynamic loader must exist.
fn check_elf(
    image: &Image<'_>,
    setting: Setting<'_>,
    path: &str,
    head: &[u8],
    depth: usize,
) -> Result<(), Refusal> {
    let Some(elf) = Elf::read(head) else {
        return refuse(
            format!("`{path}` is neither a program nor a script"),
            Some("a script starts with a line such as `#!/bin/sh`"),
        );
    };
    let (machine, name) = match image.arch {
        Arch::X86_64 => (EM_X86_64, "x86-64"),
        Arch::Aarch64 => (EM_AARCH64, "arm64"),
    };
    if elf.machine != machine {
        return refuse(
            format!("`{path}` is not a program for {name}"),
            Some("build the image for this architecture"),
        );
    }
    check_capabilities(image, setting, path)?;
    let Some(loader) = elf.loader else { return Ok(()) };
    check(image, setting, &loader, depth.saturating_add(1)).map_err(|refusal| Refusal {
        what: format!("`{path}` cannot start without its dynamic loader: {}", refusal.what),
        hint: Some("link it statically, or use an image with its C library".to_owned()),
    })
}

/// A program may require capabilities: if its user can never have one of them, the kernel refuses to start it, even for root
/// (`get_file_caps` in `security/commoncap.c`).
fn check_capabilities(image: &Image<'_>, setting: Setting<'_>, path: &str) -> Result<(), Refusal> {
    let stored = find(image.root, path).ok().and_then(|found| image.root.capabilities(&found.path));
    let lacking = stored.map_or(0, |stored| demanded(&stored, setting.capabilities));
    if lacking == 0 {
        return Ok(());
    }
    let names: Vec<_> = Capability::names(lacking).collect();
    let names = names.join(", ");
    let what = format!("`{path}` requires capabilities that the service does not have: {names}");
    refuse(
        what,
        Some(&format!("add them to its `capabilities`: [{names}], or run `setcap -r {path}` in the image")),
    )
}

/// The capabilities that a file requires and `kept` lacks. A file requires its permitted ones, if it makes them effective
/// (`linux/capability.h`, `struct vfs_ns_cap_data`); its inheritable ones only count if they are kept as well.
fn demanded(stored: &[u8], kept: u64) -> u64 {
    const EFFECTIVE: u32 = 1;
    const REVISION: u32 = 0xFF00_0000;
    let word = |number: usize| u32_at(stored, number.saturating_mul(4)).map_or(0, u64::from);
    let magic = u32_at(stored, 0).unwrap_or(0);
    let permitted = match magic & REVISION {
        0x0100_0000 => word(1),
        0x0200_0000 => word(1) | word(3) << 32,
        // If the last word is not 0, they are for the root of another user namespace.
        0x0300_0000 if word(5) == 0 => word(1) | word(3) << 32,
        _ => 0,
    };
    if magic & EFFECTIVE == 0 { 0 } else { permitted & !kept }
}

/// Machine numbers (`linux/elf-em.h`).
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

/// The fields of an ELF file that the kernel checks.
struct Elf {
    machine: u16,
    /// `PT_INTERP`, if it is within the bytes that were read.
    loader: Option<String>,
}

impl Elf {
    /// 64-bit little-endian only (`elf(5)`): the two architectures of an enclave.
    fn read(head: &[u8]) -> Option<Self> {
        if !head.starts_with(b"\x7fELF") {
            return None;
        }
        let machine = u16_at(head, 18)?;
        let wide = head.get(4..6) == Some(&[2, 1]);
        let loader = if wide { loader(head) } else { None };
        Some(Self { machine: if wide { machine } else { 0 }, loader })
    }
}

/// The path in the segment of type `PT_INTERP`.
fn loader(head: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    let table = usize::try_from(u64_at(head, 32)?).ok()?;
    let size = usize::from(u16_at(head, 54)?);
    let count = usize::from(u16_at(head, 56)?);
    // Program headers follow the ELF header in every linker's output; one beyond the bytes that were read is ignored.
    let segment = (0..count)
        .map_while(|index| head.get(table.checked_add(index.checked_mul(size)?)?..))
        .find(|segment| u32_at(segment, 0) == Some(PT_INTERP))?;
    let offset = usize::try_from(u64_at(segment, 8)?).ok()?;
    let length = usize::try_from(u64_at(segment, 32)?).ok()?;
    let path = head.get(offset..offset.checked_add(length)?)?;
    let path = std::str::from_utf8(path).ok()?.trim_end_matches('\0');
    path.starts_with('/').then(|| path.to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}
