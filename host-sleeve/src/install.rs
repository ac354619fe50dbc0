//! Locations of the programs and files that host-sleeve needs.
//!
//! Invariant: files installed with this executable are found relative to it, so that the installation can be moved as a whole;
//! the system's programs are found in `PATH`.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorContext, Result};

/// The variable with the directory of the OS release.
const OS_VARIABLE: &str = "CLOISTER_OS";

/// The variable with the directory of the cache.
const CACHE_VARIABLE: &str = "CLOISTER_CACHE";

/// The program installed with this executable; default: the one in `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let own = in_prefix(&["libexec", "cloister", name]).filter(|path| path.is_file());
    own.or_else(|| in_path(name))
}

/// A program in `PATH`.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

/// The directory of the OS release for `arch`: `CLOISTER_OS`; default: the one installed with this executable.
pub(crate) fn os(arch: &str) -> Result<PathBuf> {
    if let Some(requested) = env::var_os(OS_VARIABLE).filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(requested));
    }
    let own = in_prefix(&["share", "cloister", "os", arch]).filter(|path| path.is_dir());
    own.ok_or_else(|| {
        Error::host(format!("the Cloister OS for {arch} is not installed"))
            .hint(format!("build it with ./scripts/build, or set {OS_VARIABLE} to its directory"))
    })
}

/// A directory in the cache, created if it is missing.
pub(crate) fn cache(part: &str) -> Result<PathBuf> {
    let requested = env::var_os(CACHE_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache/cloister"));
    let base = requested.or_else(home).ok_or_else(|| {
        Error::host("there is no directory for the cache").hint(format!("set HOME or {CACHE_VARIABLE}"))
    })?;
    let directory = base.join(part);
    std::fs::create_dir_all(&directory).context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

/// A path in the installation: `PREFIX/bin/host-sleeve` is this executable.
fn in_prefix(parts: &[&str]) -> Option<PathBuf> {
    let executable = env::current_exe().ok()?;
    let prefix = executable.parent()?.parent()?;
    Some(prefix.join(parts.iter().collect::<PathBuf>()))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_program_is_found_in_the_path() {
        assert!(in_path("sh").unwrap().is_absolute());
        assert_eq!(in_path("no-such-program-at-all"), None);
    }
}
