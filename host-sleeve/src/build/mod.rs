//! Building an enclave image: the glue between the container image, the manifest and the OS release.
//!
//! Invariant: nothing is decided here. The image crate reads and packs, the manifest crate checks; this module passes them the
//! locations and reports progress.

mod again;
mod order;
mod outputs;
mod reference;
mod sign;
mod stop;
mod unreadable;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use cloister_image::artifact::ToolRecord;
use cloister_image::build::{self, Application, BuildError, Input, Options, Pack, Responsible};
use cloister_image::digest::Digest;
use cloister_image::limits::Limits;
use cloister_image::oci::Architecture;
use cloister_manifest::Manifest;
use cloister_manifest::source;

use crate::backends::size;
use crate::error::{Error, ErrorContext, Result};
use crate::install;
use crate::output;
use crate::registry::{self, Access, Event};
use crate::values::{show_duration, show_size};

pub(crate) use order::{Order, Refusal};
use reference::Origin;
pub(crate) use stop::Stop;
use unreadable::unreadable;

/// Maximum length of a manifest in bytes: handwritten ones have several hundred lines.
const MAX_MANIFEST: u64 = 1024 * 1024;

/// Modification times later than this variable's value, in seconds since 1970, are set back to it
/// (reproducible-builds.org, `SOURCE_DATE_EPOCH`).
const EPOCH_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// The source of a manifest.
struct Source {
    name: String,
    bytes: Vec<u8>,
}

/// Builds an enclave image and returns the digest that identifies it.
pub(crate) fn build(order: &Order<'_>, stop: &Stop) -> Result<Digest, Refusal> {
    outputs::check(order)?;
    let signer = order.sign.map(|(key, certificate)| sign::signer(key, certificate)).transpose()?;
    let source = read_manifest(order.manifest)?;
    // Errors in the manifest itself are reported before a large image is read.
    let checked = source::parse(&source.name, &source.bytes)?;
    outputs::check_platforms(order, &checked.platforms())?;
    let architecture = architecture()?;
    let os = install::os(architecture.name())?;
    let record = order.from.map(again::read).transpose()?;
    let image = match (order.image, &record) {
        (Some(image), _) => image.to_owned(),
        (None, Some(record)) => again::image(record)?,
        (None, None) => {
            return Err(Error::operator("no image is given").hint("set --image to a container image").into());
        }
    };
    let clamp_mtime = record.as_ref().map_or_else(clamp_mtime, |record| Ok(record.clamp_mtime))?;
    output::note(&format!("reading {image}"));
    let application = open(&image, order.access, architecture, clamp_mtime, &order.limits, stop)?;
    let manifest = resolve(&source, &application)?;
    let _files = stop.with_files()?;
    output::note(&format!("packing {}", order.output.display()));
    let pack = Pack {
        manifest: &manifest,
        manifest_source: Some(Digest::of(&source.bytes)),
        os: &os,
        root: record.as_ref().map_or(order.root, |record| record.root),
        workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        tool: ToolRecord {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        signer: signer.as_ref(),
        output: order.output,
        stop: stop.flag(),
    };
    let built = build::pack(&application, &pack).map_err(attribute)?;
    if let Some(record) = &record {
        again::compare(record, &built, order.output)?;
    }
    let artifact = built.open().map_err(unreadable)?;
    for warning in size::check_build(artifact, order.eif.is_some())? {
        output::note(&warning);
    }
    outputs::publish(order, built, stop)
}

/// Checks a manifest, against an image if one is given. Returns its services in start order.
pub(crate) fn check(
    file: &Path,
    image: Option<&str>,
    limits: &Limits,
    access: &Access,
    stop: &Stop,
) -> Result<Vec<String>, Refusal> {
    let source = read_manifest(file)?;
    let Some(image) = image else {
        return Ok(source::parse(&source.name, &source.bytes)?.services().map(str::to_owned).collect());
    };
    let architecture = architecture()?;
    let application = open(image, access, architecture, clamp_mtime()?, limits, stop)?;
    let manifest = resolve(&source, &application)?;
    Ok(manifest.services.into_iter().map(|service| service.name).collect())
}

fn architecture() -> Result<Architecture> {
    Architecture::native().ok_or_else(|| {
        Error::host(format!("{} machines are not supported", std::env::consts::ARCH))
            .hint("x86_64 and aarch64 are supported")
    })
}

fn read_manifest(path: &Path) -> Result<Source> {
    let name = path.display().to_string();
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_MANIFEST + 1), &mut bytes)?;
        if bytes.len() > usize::try_from(MAX_MANIFEST).unwrap_or(usize::MAX) {
            return Err(std::io::Error::other(format!("it is longer than {MAX_MANIFEST} bytes")));
        }
        Ok(bytes)
    };
    let bytes = read(path).map_err(|error| {
        Error::operator(format!("the manifest {name} cannot be read"))
            .because(error)
            .hint("give the path of the manifest; a minimal manifest is `version: 1`")
    })?;
    Ok(Source { name, bytes })
}

fn open(
    reference: &str,
    access: &Access,
    architecture: Architecture,
    clamp_mtime: Option<i64>,
    limits: &Limits,
    stop: &Stop,
) -> Result<Application> {
    // Pulled blobs are not pruned while they are read.
    let mut lock = None;
    let input = match reference::parse(reference)? {
        Origin::Here(input) => input,
        Origin::Registry(name) => {
            let _files = stop.with_files()?;
            let cache = install::cache("registry")?;
            let pulled = registry::pull(&name, architecture, cache, access, &report, stop.flag())?;
            lock = pulled.lock;
            Input::Fetched { blobs: pulled.blobs, digest: pulled.digest, repository: pulled.repository }
        }
    };
    let scratch = install::cache("tmp")?;
    let options = Options { architecture, scratch: &scratch, limits: limits.clone(), clamp_mtime };
    let application = build::open(&input, &options).map_err(attribute)?;
    drop(lock);
    for line in application.notes.lines() {
        output::note(&format!("note: {line}"));
    }
    Ok(application)
}

/// Prints the progress of a pull.
fn report(event: Event) {
    match event {
        Event::Pinned(digest) => output::note(&format!("found {digest}")),
        Event::Fetching(digest, size) => output::note(&format!("fetching {digest}, {}", show_size(size))),
        Event::Fetched(digest) => output::note(&format!("fetched {digest}")),
        Event::Waiting(pause, why) => {
            output::note(&format!("{why}; retrying in {}", show_duration(pause)));
        }
        Event::Skipped(mirror, why) => output::note(&format!("mirror {mirror} skipped: {why}")),
    }
}

fn clamp_mtime() -> Result<Option<i64>> {
    let Some(text) = std::env::var_os(EPOCH_VARIABLE) else {
        return Ok(None);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    seconds.map(Some).ok_or_else(|| {
        Error::operator(format!("{EPOCH_VARIABLE} is not a number"))
            .hint("set it to seconds since 1970, such as 1700000000")
    })
}

fn resolve(source: &Source, application: &Application) -> Result<Manifest, Refusal> {
    let resolved = source::build(&source.name, &source.bytes, &application.image())?;
    for line in &resolved.notes {
        output::note(&format!("note: {line}"));
    }
    Ok(resolved.manifest)
}

/// Determines who must act on a failed build, and adds the hint.
fn attribute(cause: BuildError) -> Error {
    let (responsible, hint) = cause.responsibility();
    let what = cause.to_string();
    let error = match responsible {
        Responsible::Operator => Error::operator(what),
        Responsible::Author => Error::author(what),
        Responsible::Host => Error::host(what),
        Responsible::Cloister => Error::internal(what),
    };
    // An internal error has a hint of its own.
    let error = if responsible == Responsible::Cloister { error } else { error.hint(hint) };
    if std::error::Error::source(&cause).is_some() { error.because(Below(cause)) } else { error }
}

/// The causes below an error whose own text is already used as the message.
#[derive(Debug)]
struct Below(BuildError);

impl std::fmt::Display for Below {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::error::Error::source(&self.0).map_or(Ok(()), |cause| write!(f, "{cause}"))
    }
}

impl std::error::Error for Below {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0)?.source()
    }
}

/// The absolute path of an output.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).context(|| format!("cannot resolve {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_manifest_is_named_with_a_minimal_one_as_a_hint() {
        let Err(Refusal::Other(error)) =
            check(Path::new("/no/such.yaml"), None, &Limits::default(), &Access::default(), &Stop::default())
        else {
            panic!("no error");
        };
        assert!(error.to_string().contains("/no/such.yaml"));
        assert!(error.details().hint.as_deref().unwrap().contains("version: 1"));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = open(
            "dir:/no/such/root",
            &Access::default(),
            Architecture::X86_64,
            None,
            &Limits::default(),
            &Stop::default(),
        )
        .unwrap_err();
        assert!(error.to_string().contains("/no/such/root"), "{error}");
    }
}
