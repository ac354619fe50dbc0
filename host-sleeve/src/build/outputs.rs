//! What a build leaves: the enclave image, its measurements beside it, and the file that AWS Nitro boots.
//!
//! Its law: all of it is made before any of it gets its name, and if one cannot have its name, the others give theirs back:
//! whoever finds an enclave image finds the measurements and the file that belong to it.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cloister_image::artifact::{Artifact, ArtifactFault, Finished, NitroFault, Part};
use cloister_image::digest::Digest;
use cloister_image::swap::{self, Before};
use tempfile::NamedTempFile;

use crate::error::{Doing, Error, Result};
use crate::output;

use super::order::{Order, Refusal};
use super::stop::Stop;
use super::unreadable::unread;

/// What an enclave image's name usually ends with.
const EXTENSION: &str = "cloister";

/// Refuses names that cannot be given, before anything is built.
pub(super) fn check(order: &Order<'_>) -> Result<()> {
    let beside = measurements_path(order.output);
    let hint = "choose another path with -o or --eif";
    for path in [Some(beside.as_path()), order.eif].into_iter().flatten() {
        if path.is_dir() {
            return Err(Error::operator(format!(
                "{} is a folder: no file can be written there",
                path.display()
            ))
            .hint(hint));
        }
    }
    match order.eif {
        Some(eif) if eif == beside || eif == order.output => {
            Err(Error::operator(format!("{} is to be two things at once", eif.display())).hint(hint))
        }
        _ => Ok(()),
    }
}

/// Makes what lies beside the enclave image, and gives everything its name.
pub(super) fn publish(order: &Order<'_>, built: Finished, stop: &Stop) -> Result<Digest, Refusal> {
    let (digest, mut beside) = (built.digest(), make(order, &built)?);
    stop.check()?;
    let mut image = Image(built);
    let mut all: Vec<&mut dyn Output> = vec![&mut image];
    all.extend(beside.iter_mut().map(|file| -> &mut dyn Output { file }));
    publish_all(&mut all)?;
    Ok(digest)
}

/// Something that gets its name.
trait Output {
    fn publish(&mut self) -> Result<()>;
    /// Gives the name back to what had it before.
    fn take_back(&mut self) -> Result<()>;
}

/// Gives all their names, or none.
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
        self.0.publish().map_err(unwritten)
    }

    fn take_back(&mut self) -> Result<()> {
        self.0.take_back().map_err(unwritten)
    }
}

fn unwritten(fault: ArtifactFault) -> Error {
    Error::host(fault.to_string()).because(fault).hint("choose another place with -o, or make room there")
}

/// A file that is whole and durable, and has not its name yet.
#[derive(Debug)]
struct Beside {
    file: NamedTempFile,
    path: PathBuf,
    placed: Option<Before>,
}

impl Output for Beside {
    fn publish(&mut self) -> Result<()> {
        let placed = swap::place(self.file.path(), &self.path);
        self.placed = Some(placed.doing(|| format!("cannot write {}", self.path.display()))?);
        Ok(())
    }

    fn take_back(&mut self) -> Result<()> {
        let Some(before) = self.placed.take() else { return Ok(()) };
        let taken = swap::take_back(self.file.path(), &self.path, before);
        taken.doing(|| format!("cannot restore {}", self.path.display()))
    }
}

/// Makes the measurements, and the file for AWS Nitro if it is wanted.
fn make(order: &Order<'_>, built: &Finished) -> Result<Vec<Beside>> {
    let artifact = built.open().map_err(unread)?;
    let measurements = artifact.document(Part::Measurements).map_err(unread)?;
    let mut made = vec![file(&measurements_path(order.output), |out| {
        out.write_all(&measurements).map_err(|source| Error::host("it cannot be written").because(source))
    })?];
    if let Some(path) = order.eif {
        output::note(&format!("writing {}", path.display()));
        made.push(file(path, |out| write_eif(&artifact, out))?);
    }
    Ok(made)
}

fn write_eif(artifact: &Artifact, out: &mut fs::File) -> Result<()> {
    artifact.write_eif(out).map(drop).map_err(|fault| match fault {
        NitroFault::NoNitro => Error::host("there is no file for AWS Nitro")
            .because(fault)
            .hint("./scripts/build makes a Cloister OS for AWS Nitro; CLOISTER_OS names its folder"),
        fault => Error::host("the file for AWS Nitro cannot be written").because(fault),
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

/// Writes a file under another name beside `path`, and makes it durable.
fn file(path: &Path, write: impl FnOnce(&mut fs::File) -> Result<()>) -> Result<Beside> {
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
    Ok(Beside { file, path: path.to_owned(), placed: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_image::artifact::Writer;

    #[test]
    fn measurements_lie_beside_the_image_under_its_name() {
        let path = |output: &str| measurements_path(Path::new(output));
        assert_eq!(path("out/app.cloister"), Path::new("out/app.measurements.json"));
        assert_eq!(path("app-1.2"), Path::new("app-1.2.measurements.json"));
    }

    #[test]
    fn a_file_that_cannot_be_made_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.eif");
        fs::write(&path, "old").unwrap();
        let broken = file(&path, |_| Err(Error::host("no")));
        assert_eq!(
            broken.unwrap_err().told().hint.as_deref(),
            Some("choose another place, or make room there")
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// An image, sealed and without its name.
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
    fn all_outputs_get_their_names_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let (app, eif) = (dir.path().join("app.cloister"), dir.path().join("app.eif"));
        let write = |text: &'static str| {
            file(&eif, move |out| out.write_all(text.as_bytes()).doing(String::new)).unwrap()
        };
        for old in [false, true] {
            let before = old.then(|| Artifact::open(&app).unwrap().digest());
            let mut image = Image(sealed(&app, b"new"));
            let mut beside = write("new");
            // Its working file is gone: the name cannot be given.
            fs::remove_file(beside.file.path()).unwrap();
            let error = publish_all(&mut [&mut image, &mut beside]).unwrap_err();
            assert!(error.to_string().contains("app.eif"), "{error}");
            drop((image, beside));
            assert_eq!(before, old.then(|| Artifact::open(&app).unwrap().digest()));
            assert_eq!((app.exists(), eif.exists()), (old, old));
            publish_all(&mut [&mut Image(sealed(&app, b"old")), &mut write("old")]).unwrap();
            assert_eq!(fs::read(&eif).unwrap(), b"old");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something was left behind");
        }
    }
}
