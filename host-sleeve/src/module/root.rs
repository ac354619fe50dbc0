//! The development root: a key and its certificate below the state directory, made at their first use.
//!
//! Invariant: both exist or neither does: they are written into a directory of their own that is then renamed into place, and the
//! first of several sleeves wins. A key that others could have read or replaced is refused, never repaired.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cloister_image::digest::Digest;
use p384::ecdsa::SigningKey;
use p384::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};

use super::certificate::Issued;
use super::key::new_key;
use crate::error::{Error, ErrorContext, Result};
use crate::state::dir::open_file;

/// The directory below the state directory. It is not a valid name of an enclave, whose directories are next to it.
const DIRECTORY: &str = ".virtual";

/// The beginning of the directory's name until it is complete.
const NEW: &str = ".virtual-new-";

/// The private key: PKCS#8 in PEM, which other programs read.
const KEY: &str = "root.key";

/// The certificate in DER, which verifiers are given.
const CERTIFICATE: &str = "root.der";

/// Maximum size of both files: each has some hundred bytes.
const FILE_LIMIT: u64 = 16 * 1024;

/// The permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

/// The root of all enclaves of one user.
#[derive(Debug)]
pub(crate) struct DevelopmentRoot {
    directory: PathBuf,
    /// The key. Its `Debug` output does not contain it.
    pub(super) key: SigningKey,
    /// The certificate.
    pub(super) certificate: Issued,
}

impl DevelopmentRoot {
    /// The root below this state directory, which is created if there is none.
    pub(crate) fn open(state: &Path) -> Result<Self> {
        let directory = state.join(DIRECTORY);
        match fs::symlink_metadata(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(state, &directory).context(|| format!("cannot create {}", directory.display()))?;
            }
            _ => {}
        }
        Self::read(directory, now().as_secs())
    }

    /// The path of the certificate.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(CERTIFICATE)
    }

    /// The certificate in DER.
    pub(crate) fn der(&self) -> &[u8] {
        &self.certificate.der
    }

    /// The digest of the certificate, by which verifiers recognize it.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.certificate.der)
    }

    fn read(directory: PathBuf, now: u64) -> Result<Self> {
        let again = format!(
            "remove {}: the next use creates another root, which verifiers must then be given",
            directory.display()
        );
        let damaged =
            |file: &str| Error::host(format!("{} is damaged", directory.join(file).display())).hint(&again);
        check_directory(&directory)?;
        let pem = read_private(&directory.join(KEY), &again)?;
        let key = str::from_utf8(&pem).ok().and_then(|pem| SigningKey::from_pkcs8_pem(pem).ok());
        let key = key.ok_or_else(|| damaged(KEY))?;
        let der = open(&directory.join(CERTIFICATE), &again)?;
        let der =
            contents(der).context(|| format!("cannot read {}", directory.join(CERTIFICATE).display()))?;
        let (certificate, public) = Issued::read(der).map_err(|error| damaged(CERTIFICATE).because(error))?;
        if public != *key.verifying_key() {
            let files = format!("{KEY} and {CERTIFICATE} in {}", directory.display());
            return Err(Error::host(format!("{files} do not belong together")).hint(again));
        }
        if !certificate.is_valid(now, 0) {
            let path = directory.join(CERTIFICATE);
            return Err(Error::host(format!("{} is not valid now", path.display()))
                .hint(format!("check this host's clock; if the certificate has expired, {again}")));
        }
        Ok(Self { directory, key, certificate })
    }
}

/// The current time since 1970.
pub(super) fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Creates the directory with both files. If another process was faster, its directory remains.
fn create(state: &Path, directory: &Path) -> io::Result<()> {
    let key = new_key()?;
    let certificate = Issued::root(&key, now().as_secs()).map_err(io::Error::other)?;
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
    let new =
        tempfile::Builder::new().prefix(NEW).permissions(Permissions::from_mode(0o700)).tempdir_in(state)?;
    write(&new.path().join(KEY), pem.as_bytes(), 0o600)?;
    write(&new.path().join(CERTIFICATE), &certificate.der, 0o644)?;
    File::open(new.path())?.sync_all()?;
    match fs::rename(new.path(), directory) {
        // Nothing is left that could be removed under the temporary name.
        Ok(()) => drop(new.keep()),
        Err(error) if exists(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    File::open(state)?.sync_all()
}

/// Whether a directory could not be renamed because another one, which is not empty, has the name (rename(2)).
fn exists(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn check_directory(path: &Path) -> Result<()> {
    let facts =
        fs::symlink_metadata(path).context(|| format!("cannot read the metadata of {}", path.display()))?;
    if facts.is_dir() && is_private(&facts) {
        return Ok(());
    }
    Err(Error::host(format!("{} is not a directory that only this user can access", path.display())).hint(
        format!(
            "check who could have read the key in it; then run `chmod 700 {}`, or remove it for another root",
            path.display()
        ),
    ))
}

/// The contents of a file that only this user can read.
fn read_private(path: &Path, again: &str) -> Result<Vec<u8>> {
    let file = open(path, again)?;
    let what = || format!("cannot read {}", path.display());
    let facts = file.metadata().context(what)?;
    if !is_private(&facts) {
        let what = format!("{} is not a file that only this user can access", path.display());
        let hint =
            format!("if no other user has read it, run `chmod 600 {}`; otherwise {again}", path.display());
        return Err(Error::host(what).hint(hint));
    }
    contents(file).context(what)
}

/// Opens a file of the directory.
fn open(path: &Path, again: &str) -> Result<File> {
    open_file(path)
        .map_err(|error| Error::host(format!("cannot open {}", path.display())).because(error).hint(again))
}

fn contents(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_private(facts: &fs::Metadata) -> bool {
    facts.uid() == rustix::process::geteuid().as_raw() && facts.mode() & OTHERS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done to the directory, and what the error then contains.
    type Damage = (&'static str, fn(&Path));

    fn refused(state: &Path) -> (String, String) {
        let error = DevelopmentRoot::open(state).unwrap_err();
        (error.to_string(), error.details().hint.clone().unwrap_or_default())
    }

    /// Replaces a file by a pipe that nothing is written to.
    fn pipe(path: &Path) {
        fs::remove_file(path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap();
    }

    #[test]
    fn a_root_is_created_once_and_is_private() {
        let state = tempfile::tempdir().unwrap();
        let first = DevelopmentRoot::open(state.path()).unwrap();
        let second = DevelopmentRoot::open(state.path()).unwrap();
        assert_eq!(first.digest(), second.digest());
        assert_eq!(fs::read(first.path()).unwrap(), first.der());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let directory = state.path().join(DIRECTORY);
        assert_eq!((mode(&directory), mode(&directory.join(KEY))), (0o700, 0o600));
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "a temporary directory is left");
        assert!(crate::values::name(DIRECTORY).is_err(), "an enclave could have this name");
    }

    #[test]
    fn sleeves_that_start_at_once_have_the_same_root() {
        for _ in 0..10 {
            let state = tempfile::tempdir().unwrap();
            let barrier = std::sync::Barrier::new(4);
            let digests: Vec<Digest> = std::thread::scope(|scope| {
                let open = || {
                    barrier.wait();
                    DevelopmentRoot::open(state.path()).unwrap().digest()
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(digests.iter().all(|digest| digest == &digests[0]), "{digests:?}");
            assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "a temporary directory is left");
        }
    }

    #[test]
    fn a_root_that_others_could_access_is_refused_with_the_remedy() {
        let state = tempfile::tempdir().unwrap();
        let directory = state.path().join(DIRECTORY);
        DevelopmentRoot::open(state.path()).unwrap();
        let chmod = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        for (path, open, private) in [(directory.clone(), 0o750, 0o700), (directory.join(KEY), 0o640, 0o600)]
        {
            chmod(&path, open);
            let (what, hint) = refused(state.path());
            assert!(what.contains(path.to_str().unwrap()) && what.contains("only this user"), "{what}");
            assert!(hint.contains(&format!("chmod {private:o}")), "{hint}");
            chmod(&path, private);
            DevelopmentRoot::open(state.path()).unwrap();
        }
    }

    #[test]
    fn a_damaged_or_incomplete_root_is_refused_and_left_as_it_is() {
        let damage: [Damage; 7] = [
            ("root.key is damaged", |directory| fs::write(directory.join(KEY), "not a key").unwrap()),
            ("root.der is damaged", |directory| fs::write(directory.join(CERTIFICATE), "no").unwrap()),
            ("root.key", |directory| fs::remove_file(directory.join(KEY)).unwrap()),
            ("root.der", |directory| {
                fs::rename(directory.join(CERTIFICATE), directory.join("other")).unwrap();
                std::os::unix::fs::symlink("other", directory.join(CERTIFICATE)).unwrap();
            }),
            ("root.key", |directory| pipe(&directory.join(KEY))),
            ("root.der", |directory| pipe(&directory.join(CERTIFICATE))),
            ("do not belong together", |directory| {
                let other = Issued::root(&new_key().unwrap(), now().as_secs()).unwrap();
                fs::write(directory.join(CERTIFICATE), other.der).unwrap();
            }),
        ];
        for (expected, damage) in damage {
            let state = tempfile::tempdir().unwrap();
            DevelopmentRoot::open(state.path()).unwrap();
            damage(&state.path().join(DIRECTORY));
            for _ in 0..2 {
                let (what, hint) = refused(state.path());
                assert!(what.contains(expected), "{expected}: {what}");
                assert!(hint.contains("remove ") && hint.contains("another root"), "{hint}");
            }
        }
    }

    #[test]
    fn an_expired_root_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let root = DevelopmentRoot::open(state.path()).unwrap();
        let after = root.certificate.not_after + 1;
        assert!(DevelopmentRoot::read(root.directory.clone(), after - 1).is_ok());
        let error = DevelopmentRoot::read(root.directory, after).unwrap_err();
        assert!(error.to_string().ends_with("root.der is not valid now"), "{error}");
    }
}
