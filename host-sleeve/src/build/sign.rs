//! What a build leaves beside the enclave image: its measurements, and the file that AWS Nitro boots.
//!
//! Its law: both appear whole or not at all, and both follow from the enclave image alone.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cloister_image::artifact::{Artifact, ArtifactFault, NitroFault, Part};
use cloister_image::eif::{SignError, Signer};
use tempfile::NamedTempFile;

use crate::error::{Doing, Error, Result};
use crate::output;

use super::Order;

/// The longest key or certificate that is read, in bytes: a chain of some certificates has ten thousand.
const MAX_PEM: u64 = 1024 * 1024;

/// What an enclave image's name usually ends with.
const EXTENSION: &str = "cloister";

/// How to make a key and a certificate of one's own.
const OPENSSL: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout key.pem -out \
                       certificate.pem -subj /CN=me -days 365";

/// Reads what signs.
pub(super) fn signer(key: &Path, certificate: &Path) -> Result<Signer> {
    Signer::from_pem(&read(key)?, &read(certificate)?).map_err(|error| {
        let hint = match error {
            SignError::Key => "an encrypted key is decrypted with `openssl pkcs8`; a new pair is made with: ",
            SignError::Certificate(_) | SignError::Mismatch => {
                "name the certificate that was issued for the key; a new pair is made with: "
            }
        };
        Error::operator("the enclave image cannot be signed").because(error).hint(format!("{hint}{OPENSSL}"))
    })
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_PEM).read_to_string(&mut text));
    read.map_err(|error| {
        Error::operator(format!("{} cannot be read", path.display()))
            .because(error)
            .hint("--sign-key and --sign-certificate take files in PEM form")
    })?;
    Ok(text)
}

/// Writes the measurements, and the file if it is wanted.
pub(super) fn write_beside(order: &Order<'_>) -> Result<()> {
    let built = |fault: ArtifactFault| Error::host("what was built cannot be read").because(fault);
    let artifact = Artifact::open(order.output).map_err(built)?;
    let measurements = artifact.document(Part::Measurements).map_err(built)?;
    replace(&measurements_path(order.output), |out| {
        out.write_all(&measurements).map_err(|source| Error::host("it cannot be written").because(source))
    })?;
    let Some(path) = order.eif else { return Ok(()) };
    output::note(&format!("writing {}", path.display()));
    replace(path, |out| {
        artifact.write_eif(out).map(drop).map_err(|fault| match fault {
            NitroFault::NoNitro => Error::host("there is no file for AWS Nitro")
                .because(fault)
                .hint("./scripts/build makes a Cloister OS for AWS Nitro; CLOISTER_OS names its folder"),
            fault => Error::host("the file for AWS Nitro cannot be written").because(fault),
        })
    })
}

/// `app.cloister` has its measurements in `app.measurements.json`.
fn measurements_path(output: &Path) -> PathBuf {
    let stem = match output.extension() {
        Some(extension) if extension == EXTENSION => output.with_extension(""),
        _ => output.to_owned(),
    };
    let mut name = stem.into_os_string();
    name.push(".measurements.json");
    PathBuf::from(name)
}

/// Writes a file under another name, makes it durable and renames it.
fn replace(path: &Path, write: impl FnOnce(&mut fs::File) -> Result<()>) -> Result<()> {
    let doing = || format!("cannot write {}", path.display());
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(parent).doing(doing)?;
    write(file.as_file_mut()).map_err(|error| {
        let hint =
            error.told().hint.clone().unwrap_or_else(|| "choose another place, or make room there".into());
        Error::host(doing()).because(error).hint(hint)
    })?;
    file.as_file().set_permissions(Permissions::from_mode(0o644)).doing(doing)?;
    file.as_file().sync_all().doing(doing)?;
    file.persist(path).map_err(|error| error.error).doing(doing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_lie_beside_the_image_under_its_name() {
        let path = |output: &str| measurements_path(Path::new(output));
        assert_eq!(path("out/app.cloister"), Path::new("out/app.measurements.json"));
        assert_eq!(path("app-1.2"), Path::new("app-1.2.measurements.json"));
    }

    #[test]
    fn a_key_that_is_none_is_refused_with_the_command_that_makes_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let error = signer(&path, &path).unwrap_err();
        assert!(error.to_string().contains("key.pem"));
        fs::write(&path, "no key").unwrap();
        let error = signer(&path, &path).unwrap_err();
        assert!(error.reasons().concat().contains("P-384"));
        assert!(error.told().hint.as_deref().unwrap().contains("openssl req"));
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.eif");
        fs::write(&path, "old").unwrap();
        let broken = replace(&path, |_| Err(Error::host("no")));
        assert_eq!(
            broken.unwrap_err().told().hint.as_deref(),
            Some("choose another place, or make room there")
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
