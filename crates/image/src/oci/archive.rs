//! Archives that `docker save`, `podman save`, `docker buildx` and `skopeo copy` write.
//!
//! Invariant: the archive is not unpacked: its members are read in place. `docker-archive:` uses `manifest.json`, as
//! every version of `docker load` does, even if the archive is also a layout (Docker 25 and newer); an archive that is
//! only a layout (`docker buildx build -o type=oci`) is read as one. `oci-archive:` uses the layout.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::layout::{self, INDEX, MARK, Role, Store, bounded};
use super::select::check_platform;
use super::{Architecture, Blob, Image, OciError, Select, model, names};
use crate::digest::Digest;
use crate::layers::{Layer, LayerError, unpack};
use crate::limits::{self, Limits};
use crate::tar::{self, Kind, TarError};
use crate::tree::{join, parent};

/// The list of images in an archive for `docker load`.
const SAVED: &str = "manifest.json";
/// The names of the formats on the command line.
const DOCKER: &str = "docker-archive";
const OCI: &str = "oci-archive";
/// Maximum number of members. A thousand layers in the oldest format have three each.
const MAX_MEMBERS: usize = 10_000;
/// Maximum number of links followed for one member: a layer shared by two images is a link in one of them.
const MAX_LINKS: usize = 8;

/// One image in `manifest.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A member of the archive.
#[derive(Debug)]
enum Member {
    File(Blob),
    Link(Vec<u8>),
}

/// Opens an archive for `docker load` and selects one image in it. A compressed archive is decompressed into an
/// anonymous file in `scratch`.
pub fn open(
    path: &Path,
    select: &Select,
    architecture: Architecture,
    scratch: &Path,
    limits: &Limits,
) -> Result<Image, OciError> {
    let members = Members::open(path, scratch, limits)?;
    match members.find(SAVED.as_bytes()) {
        Some(saved) => {
            let saved: Vec<Saved> = model::parse(&bounded(saved, path)?, SAVED)?;
            members.image(&choose(&saved, select)?, architecture, path)
        }
        None if members.find(MARK.as_bytes()).is_some() => members.layout(select, architecture, path),
        None => Err(missing(DOCKER, SAVED)),
    }
}

/// Opens an archive of an image layout and selects one image in it. A compressed archive is handled as in [`open`].
pub fn open_oci(
    path: &Path,
    select: &Select,
    architecture: Architecture,
    scratch: &Path,
    limits: &Limits,
) -> Result<Image, OciError> {
    Members::open(path, scratch, limits)?.layout(select, architecture, path)
}

fn missing(form: &'static str, name: &str) -> OciError {
    OciError::NotAnArchive { form, why: format!("it has no {name}") }
}

fn choose(saved: &[Saved], select: &Select) -> Result<Saved, OciError> {
    let tags = || saved.iter().flat_map(|image| image.repo_tags.iter().flatten().cloned()).collect();
    let fitting: Vec<&Saved> = match select {
        Select::Only => saved.iter().collect(),
        Select::Name(name) => names::best(saved, name, |image| image.repo_tags.iter().flatten()),
        Select::Digest(digest) => {
            saved.iter().filter(|image| config_digest(&image.config) == Some(*digest)).collect()
        }
    };
    match fitting.as_slice() {
        [image] => Ok((*image).clone()),
        [_, ..] => Err(OciError::Ambiguous(tags())),
        [] => {
            let wanted = match select {
                Select::Only => "any".to_owned(),
                Select::Name(name) => name.clone(),
                Select::Digest(digest) => digest.to_string(),
            };
            Err(OciError::Name { wanted, available: tags() })
        }
    }
}

/// The digest in a configuration's file name: `<hex>.json` or `blobs/sha256/<hex>`.
fn config_digest(name: &str) -> Option<Digest> {
    let base = name.rsplit('/').next()?;
    Digest::from_hex(base.strip_suffix(".json").unwrap_or(base)).ok()
}

struct Members(HashMap<Vec<u8>, Member>);

impl Members {
    fn open(path: &Path, scratch: &Path, limits: &Limits) -> Result<Self, OciError> {
        let host = |source| OciError::Host { path: path.to_owned(), source };
        let blob = Blob::whole(File::open(path).map_err(host)?).map_err(host)?;
        let blob = unpack(&blob, scratch, limits).map_err(OciError::Unpack)?;
        Self::read(&blob, path)
    }

    fn read(blob: &Blob, path: &Path) -> Result<Self, OciError> {
        let mut members = HashMap::new();
        let mut reader = tar::Reader::new(blob.reader());
        while let Some(entry) = reader.next_entry().map_err(|error| not_an_archive(error, path))? {
            limits::check("members", crate::wide(members.len() + 1), crate::wide(MAX_MEMBERS))
                .map_err(OciError::Limit)?;
            let name = plain(&entry.name);
            let member = match entry.kind {
                Kind::File if entry.sparse.is_none() => {
                    let part = blob.part(reader.position(), entry.size);
                    Member::File(part.ok_or_else(|| not_an_archive(TarError::Truncated, path))?)
                }
                Kind::HardLink => Member::Link(plain(&entry.link)),
                Kind::Symlink => Member::Link(plain(&join(parent(&name), &entry.link))),
                _ => continue,
            };
            members.insert(name, member);
        }
        Ok(Self(members))
    }

    /// The image of a layout in an archive.
    fn layout(&self, select: &Select, architecture: Architecture, path: &Path) -> Result<Image, OciError> {
        let document = |name: &str| {
            let blob = self.find(name.as_bytes()).ok_or_else(|| missing(OCI, name))?;
            bounded(blob, path)
        };
        layout::check_mark(&document(MARK)?)?;
        let index = layout::index(&document(INDEX)?)?;
        super::choose(self, &index, select, architecture)?.open(self)
    }

    fn image(&self, saved: &Saved, architecture: Architecture, path: &Path) -> Result<Image, OciError> {
        let bytes = bounded(self.named(&saved.config)?, path)?;
        let found = Digest::of(&bytes);
        if let Some(expected) = config_digest(&saved.config).filter(|expected| *expected != found) {
            return Err(OciError::Digest { expected, found });
        }
        let config = model::parse_config(&bytes)?;
        check_platform(&config, architecture)?;
        let (layers, diff_ids) = (saved.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(OciError::LayerCount { layers, diff_ids });
        }
        let pairs = saved.layers.iter().zip(&config.rootfs.diff_ids);
        let layer = |(name, diff_id): (&String, &Digest)| {
            Ok(Layer { blob: self.named(name)?.clone(), digest: None, diff_id: *diff_id })
        };
        let layers = pairs.map(layer).collect::<Result<_, OciError>>()?;
        Ok(Image { manifest: None, config_digest: found, config, layers })
    }

    fn named(&self, name: &str) -> Result<&Blob, OciError> {
        let missing = || {
            let why = format!("`{}` is missing", crate::shown(name.as_bytes()));
            OciError::NotAnArchive { form: DOCKER, why }
        };
        self.find(&plain(name.as_bytes())).ok_or_else(missing)
    }

    fn find(&self, name: &[u8]) -> Option<&Blob> {
        let mut name = name.to_vec();
        for _ in 0..=MAX_LINKS {
            match self.0.get(&name)? {
                Member::File(blob) => return Some(blob),
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

impl Store for Members {
    fn find(&self, digest: &Digest, _role: Role) -> Result<Option<Blob>, OciError> {
        Ok(self.find(format!("blobs/sha256/{}", digest.hex()).as_bytes()).cloned())
    }
}

/// A name with `.` and `..` resolved. It is only used for lookups, so any result is safe.
fn plain(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join(&b'/')
}

fn not_an_archive(error: TarError, path: &Path) -> OciError {
    match error {
        TarError::Read(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            OciError::Host { path: path.to_owned(), source }
        }
        error => OciError::Unpack(LayerError::Tar { offset: 0, error }),
    }
}
