//! The outputs of a build: the enclave image, its measurements next to it, and the file that AWS Nitro boots.
//!
//! Invariant: all of them are complete before any of them is renamed into place, and if one cannot be renamed, the others are
//! renamed back. So an enclave image, its measurements and its file always belong together.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cloister_image::artifact::{Artifact, ArtifactError, Finished, NitroError, Part};
use cloister_image::digest::Digest;
use cloister_image::swap::{self, Before};
use cloister_manifest::Platform;
use tempfile::NamedTempFile;

use crate::error::{Error, ErrorContext, Result};
use crate::output;

use super::order::{Order, Refusal};
use super::stop::Stop;
use super::unreadable::unreadable;

/// The usual extension of an enclave image.
const EXTENSION: &str = "cloister";

/// Refuses invalid output paths before anything is built.
pub(super) fn check(order: &Order<'_>) -> Result<()> {
    let measurements = measurements_path(order.output);
    let hint = "choose another path with -o or --eif";
    for path in [Some(measurements.as_path()), order.eif].into_iter().flatten() {
        if path.is_dir() {
            return Err(
                Error::operator(format!("cannot write {}: it is a directory", path.display())).hint(hint)
            );
        }
    }
    match order.eif {
        Some(eif) if eif == measurements || eif == order.output => {
            Err(Error::operator(format!("{} is the path of two outputs", eif.display())).hint(hint))
        }
        _ => Ok(()),
    }
}

/// Refuses outputs for AWS Nitro if the manifest does not allow it: the file boots nowhere else, and only Nitro measures a signature.
pub(super) fn check_platforms(order: &Order<'_>, allowed: &[Platform]) -> Result<()> {
    if allowed.contains(&Platform::Nitro) {
        return Ok(());
    }
    let (what, option) = match (order.eif, order.sign) {
        (Some(_), _) => ("a file for AWS Nitro would not run", "--eif"),
        (None, Some(_)) => ("a signature has a meaning on AWS Nitro only", "--sign-key"),
        (None, None) => return Ok(()),
    };
    let allowed = Platform::list(allowed);
    Err(Error::author(format!("{what}: the manifest allows only {allowed}"))
        .hint(format!("add nitro to `platforms` in the manifest, or omit {option}")))
}

/// Creates the files next to the enclave image, and renames all outputs into place.
pub(super) fn publish(order: &Order<'_>, built: Finished, stop: &Stop) -> Result<Digest, Refusal> {
    let (digest, mut files) = (built.digest(), make(order, &built)?);
    stop.check()?;
    let mut image = Image(built);
    let mut all: Vec<&mut dyn Output> = vec![&mut image];
    all.extend(files.iter_mut().map(|file| -> &mut dyn Output { file }));
    publish_all(&mut all)?;
    Ok(digest)
}

/// An output that is complete but not yet at its path.
trait Output {
    /// Renames it into place.
    fn publish(&mut self) -> Result<()>;
    /// Restores the file that was at its path before.
    fn take_back(&mut self) -> Result<()>;
}

/// Renames all outputs into place, or none.
fn publish_all(outputs: &mut [&mut dyn Output]) -> Result<()> {
    for at in 0..outputs.len() {
        let Some(Err(error)) = outputs.get_mut(at).map(|output| output.publish()) else { continue };
        for earlier in outputs.iter_mut().take(at).rev() {
            if let Err(error) = earlier.take_back() {
                output::error(&error);
            }
        }
        return Err(error);
    }
    Ok(())
}

/// The enclave image.
struct Image(Finished);

impl Output for Image {
    fn publish(&mut self) -> Result<()> {
        self.0.publish().map_err(unwritable)
    }

    fn take_back(&mut self) -> Result<()> {
        self.0.take_back().map_err(unwritable)
    }
}

fn unwritable(error: ArtifactError) -> Error {
    Error::host(error.to_string())
        .because(error)
        .hint("choose another path with -o, or free disk space there")
}

/// A complete and durable file that is not yet at its path.
#[derive(Debug)]
struct OutputFile {
    file: NamedTempFile,
    path: PathBuf,
    placed: Option<Before>,
}

impl Output for OutputFile {
    fn publish(&mut self) -> Result<()> {
        let placed = swap::place(self.file.path(), &self.path);
        self.placed = Some(placed.context(|| format!("cannot write {}", self.path.display()))?);
        Ok(())
    }

    fn take_back(&mut self) -> Result<()> {
        let Some(before) = self.placed.take() else { return Ok(()) };
        let taken = swap::take_back(self.file.path(), &self.path, before);
        taken.context(|| format!("cannot restore {}", self.path.display()))
    }
}

/// Creates the measurements, and the file for AWS Nitro if it is requested.
fn make(order: &Order<'_>, built: &Finished) -> Result<Vec<OutputFile>> {
    let artifact = built.open().map_err(unreadable)?;
    let measurements = artifact.document(Part::Measurements).map_err(unreadable)?;
    let mut made = vec![file(&measurements_path(order.output), |out| {
        out.write_all(&measurements)
            .map_err(|source| Error::host("the measurements cannot be written").because(source))
    })?];
    if let Some(path) = order.eif {
        output::note(&format!("writing {}", path.display()));
        made.push(file(path, |out| write_eif(&artifact, out))?);
    }
    Ok(made)
}

fn write_eif(artifact: &Artifact, out: &mut fs::File) -> Result<()> {
    artifact.write_eif(out).map(drop).map_err(|error| match error {
        NitroError::NoNitro => Error::host("the file for AWS Nitro cannot be built").because(error).hint(
            "build a Cloister OS for AWS Nitro with ./scripts/build, or set CLOISTER_OS to its directory",
        ),
        error => Error::host("the file for AWS Nitro cannot be written").because(error),
    })
}

/// The path of the measurements: `app.measurements.json` for `app.cloister`.
fn measurements_path(output: &Path) -> PathBuf {
    let stem = match output.extension() {
        Some(extension) if extension == EXTENSION => output.with_extension(""),
        _ => output.to_owned(),
    };
    let mut name = stem.into_os_string();
    name.push(".measurements.json");
    PathBuf::from(name)
}

/// Writes a temporary file next to `path`, and makes it durable.
fn file(path: &Path, write: impl FnOnce(&mut fs::File) -> Result<()>) -> Result<OutputFile> {
    let context = || format!("cannot write {}", path.display());
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(parent).context(context)?;
    write(file.as_file_mut()).map_err(|error| {
        let hint = error.details().hint.clone();
        let hint = hint.unwrap_or_else(|| "choose another path, or free disk space there".into());
        Error::host(context()).because(error).hint(hint)
    })?;
    file.as_file().set_permissions(Permissions::from_mode(0o644)).context(context)?;
    file.as_file().sync_all().context(context)?;
    Ok(OutputFile { file, path: path.to_owned(), placed: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Access;
    use clap::CommandFactory as _;
    use cloister_image::artifact::{RootForm, Writer};
    use cloister_image::limits::Limits;

    #[test]
    fn measurements_are_next_to_the_image_under_its_name() {
        let path = |output: &str| measurements_path(Path::new(output));
        assert_eq!(path("out/app.cloister"), Path::new("out/app.measurements.json"));
        assert_eq!(path("app-1.2"), Path::new("app-1.2.measurements.json"));
    }

    #[test]
    fn the_example_of_verify_names_the_measurements_that_a_build_writes() {
        let cli = crate::cli::Cli::command();
        let help = cli.find_subcommand("verify").unwrap().get_after_help().unwrap().to_string();
        let written = measurements_path(Path::new("app.cloister"));
        assert!(help.contains(&format!(" --measurements {} ", written.display())), "{help}");
    }

    #[test]
    fn outputs_for_aws_nitro_are_refused_if_the_manifest_does_not_allow_it() {
        let (path, access) = (Path::new("app"), Access::default());
        let check = |eif, sign, allowed: &[Platform]| {
            let order = Order {
                image: None,
                from: None,
                manifest: path,
                root: RootForm::Erofs,
                output: path,
                eif,
                limits: Limits::default(),
                sign,
                access: &access,
            };
            check_platforms(&order, allowed)
                .map_or_else(|error| error.details().hint.clone().unwrap(), |()| String::new())
        };
        let both = [Platform::Tdx, Platform::Virtual];
        assert!(check(Some(path), None, &both).ends_with("or omit --eif"));
        assert!(check(None, Some((path, path)), &both).ends_with("or omit --sign-key"));
        assert_eq!(check(None, None, &both), "");
        assert_eq!(check(Some(path), Some((path, path)), &Platform::ALL), "");
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.eif");
        fs::write(&path, "old").unwrap();
        let broken = file(&path, |_| Err(Error::host("no")));
        assert_eq!(
            broken.unwrap_err().details().hint.as_deref(),
            Some("choose another path, or free disk space there")
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// A sealed image that is not yet at its path.
    fn sealed(path: &Path, kernel: &[u8]) -> Finished {
        let mut writer = Writer::new(path).unwrap();
        writer.bytes(Part::Kernel, kernel).unwrap();
        let others = [Part::OsRamdisk, Part::AppRamdisk, Part::CommandLine, Part::Manifest, Part::OsRelease];
        for part in others.into_iter().chain([Part::BuildRecord]) {
            writer.bytes(part, b"{}").unwrap();
        }
        writer.seal().unwrap()
    }

    #[test]
    fn all_outputs_are_renamed_into_place_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let (app, eif) = (dir.path().join("app.cloister"), dir.path().join("app.eif"));
        let write = |text: &'static str| {
            file(&eif, move |out| out.write_all(text.as_bytes()).context(String::new)).unwrap()
        };
        for old in [false, true] {
            let before = old.then(|| Artifact::open(&app).unwrap().digest());
            let mut image = Image(sealed(&app, b"new"));
            let mut other = write("new");
            // Without the temporary file, it cannot be renamed.
            fs::remove_file(other.file.path()).unwrap();
            let error = publish_all(&mut [&mut image, &mut other]).unwrap_err();
            assert!(error.to_string().contains("app.eif"), "{error}");
            drop((image, other));
            assert_eq!(before, old.then(|| Artifact::open(&app).unwrap().digest()));
            assert_eq!((app.exists(), eif.exists()), (old, old));
            publish_all(&mut [&mut Image(sealed(&app, b"old")), &mut write("old")]).unwrap();
            assert_eq!(fs::read(&eif).unwrap(), b"old");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something was left behind");
        }
    }
}
