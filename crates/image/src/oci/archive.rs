//! Archives that `docker save`, `podman save` and `skopeo copy docker-archive:` write.
//!
//! Its law: the archive is not unpacked: its members are read where they lie. An archive that is also a layout (Docker 25
//! and newer) is read by its `manifest.json` all the same, which is what `docker load` of every version goes by.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::layout::bounded;
use super::select::check_platform;
use super::{Architecture, Blob, Image, OciFault, Select, model};
use crate::digest::Digest;
use crate::layers::{Layer, LayerFault, unpack};
use crate::limits::{self, Limits};
use crate::tar::{self, Kind, TarFault};
use crate::tree::{join, parent};

/// The most members. A thousand layers of the oldest form have three each.
const MAX_MEMBERS: usize = 10_000;
/// The most links followed for one member: layers that two images share are links to one.
const MAX_LINKS: usize = 8;

/// One image in `manifest.json`.
#[derive(Debug, Deserialize)]
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

/// Opens an archive and chooses one image in it. A compressed one is unpacked into a file without a name in `scratch`.
pub fn open(
    path: &Path,
    select: &Select,
    architecture: Architecture,
    scratch: &Path,
    limits: &Limits,
) -> Result<Image, OciFault> {
    let host = |source| OciFault::Host { path: path.to_owned(), source };
    let blob = Blob::whole(File::open(path).map_err(host)?).map_err(host)?;
    let blob = unpack(&blob, scratch, limits).map_err(OciFault::Unpack)?;
    let members = Members::read(&blob, path)?;
    let saved = choose(members.saved(path)?, select)?;
    members.image(&saved, architecture, path)
}

fn choose(saved: Vec<Saved>, select: &Select) -> Result<Saved, OciFault> {
    let names: Vec<String> =
        saved.iter().flat_map(|image| image.repo_tags.iter().flatten().cloned()).collect();
    let fits = |image: &Saved| match select {
        Select::Only => true,
        Select::Name(name) => image.repo_tags.iter().flatten().any(|tag| tag == name),
        Select::Digest(digest) => config_digest(&image.config) == Some(*digest),
    };
    let mut fitting: Vec<Saved> = saved.into_iter().filter(fits).collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(image), true) => Ok(image),
        (Some(_), false) => Err(OciFault::Ambiguous(names)),
        (None, _) => {
            let wanted = match select {
                Select::Only => "any".to_owned(),
                Select::Name(name) => name.clone(),
                Select::Digest(digest) => digest.to_string(),
            };
            Err(OciFault::Name { wanted, available: names })
        }
    }
}

/// The digest in a configuration's name: `<hex>.json` or `blobs/sha256/<hex>`.
fn config_digest(name: &str) -> Option<Digest> {
    let base = name.rsplit('/').next()?;
    Digest::from_hex(base.strip_suffix(".json").unwrap_or(base)).ok()
}

struct Members(HashMap<Vec<u8>, Member>);

impl Members {
    fn read(blob: &Blob, path: &Path) -> Result<Self, OciFault> {
        let mut members = HashMap::new();
        let mut reader = tar::Reader::new(blob.reader());
        while let Some(entry) = reader.next_entry().map_err(|fault| not_an_archive(fault, path))? {
            limits::check("members", crate::wide(members.len() + 1), crate::wide(MAX_MEMBERS))
                .map_err(OciFault::Limit)?;
            let name = plain(&entry.name);
            let member = match entry.kind {
                Kind::File if entry.sparse.is_none() => {
                    let part = blob.part(reader.position(), entry.size);
                    Member::File(part.ok_or_else(|| not_an_archive(TarFault::Truncated, path))?)
                }
                Kind::HardLink => Member::Link(plain(&entry.link)),
                Kind::Symlink => Member::Link(plain(&join(parent(&name), &entry.link))),
                _ => continue,
            };
            members.insert(name, member);
        }
        Ok(Self(members))
    }

    fn saved(&self, path: &Path) -> Result<Vec<Saved>, OciFault> {
        let missing = || OciFault::NotAnArchive("it has no manifest.json".to_owned());
        let blob = self.find(b"manifest.json").ok_or_else(missing)?;
        model::parse(&bounded(blob, path)?, "manifest.json")
    }

    fn image(&self, saved: &Saved, architecture: Architecture, path: &Path) -> Result<Image, OciFault> {
        let bytes = bounded(self.named(&saved.config)?, path)?;
        let found = Digest::of(&bytes);
        if let Some(expected) = config_digest(&saved.config).filter(|expected| *expected != found) {
            return Err(OciFault::Digest { expected, found });
        }
        let config = model::parse_config(&bytes)?;
        check_platform(&config, architecture)?;
        let (layers, diff_ids) = (saved.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(OciFault::LayerCount { layers, diff_ids });
        }
        let pairs = saved.layers.iter().zip(&config.rootfs.diff_ids);
        let layer = |(name, diff_id): (&String, &Digest)| {
            Ok(Layer { blob: self.named(name)?.clone(), digest: None, diff_id: *diff_id })
        };
        let layers = pairs.map(layer).collect::<Result<_, OciFault>>()?;
        Ok(Image { manifest: None, config_digest: found, config, layers })
    }

    fn named(&self, name: &str) -> Result<&Blob, OciFault> {
        let missing = || OciFault::NotAnArchive(format!("`{}` is missing", crate::shown(name.as_bytes())));
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

/// A name without `.`, with `..` taken as one level up. It is only ever looked up, so it may say anything.
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

fn not_an_archive(fault: TarFault, path: &Path) -> OciFault {
    match fault {
        TarFault::Read(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            OciFault::Host { path: path.to_owned(), source }
        }
        fault => OciFault::Unpack(LayerFault::Tar { offset: 0, fault }),
    }
}
