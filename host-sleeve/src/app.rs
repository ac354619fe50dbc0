//! An enclave image, as `run` and `inspect` need it.
//!
//! Its law: what is launched is what the image's digests say; a file that does not match is refused before it is used.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cloister_manifest::Manifest;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::{Doing, Error, Result};

/// An enclave image that was opened and checked.
#[derive(Debug)]
pub(crate) struct App {
    /// Where it lies, absolute.
    pub(crate) path: PathBuf,
    /// Its digest, `sha256:…`.
    pub(crate) digest: String,
    /// Its manifest.
    pub(crate) manifest: Manifest,
    /// The kernel.
    pub(crate) kernel: Blob,
    /// The ramdisks, in order.
    pub(crate) ramdisks: Vec<Blob>,
    /// The measured command line.
    pub(crate) cmdline: String,
}

/// One file of an image.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// `sha256:…`.
    pub(crate) digest: String,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Its size in bytes once the guest's kernel has unpacked it.
    pub(crate) unpacked: u64,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageManifest {
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

const MAX_DOCUMENT: u64 = 1024 * 1024;

impl App {
    /// Opens the image at `path` and checks its digests.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(|error| {
            Error::operator(format!("there is no enclave image at {}", path.display()))
                .because(error)
                .hint("`host-sleeve build` makes one")
        })?;
        let not_one = |error: io::Error| {
            Error::operator(format!("{} is not an enclave image", path.display()))
                .because(error)
                .hint("`host-sleeve build` makes one")
        };
        let index: Index = document(&path.join("index.json")).map_err(not_one)?;
        let top = index.manifests.first().ok_or_else(|| not_one(io::Error::other("its index is empty")))?;
        let manifest: ImageManifest = document(&blob_path(&path, &top.digest)?).map_err(not_one)?;
        let layer = |kind: &'static str| manifest.layers.iter().filter(move |layer| layer.media_type.contains(kind));
        let first = |kind: &'static str| {
            layer(kind).next().ok_or_else(|| not_one(io::Error::other(format!("it has no {kind}"))))
        };
        let ramdisks: Result<Vec<Blob>> = layer("ramdisk").map(|layer| blob(&path, layer)).collect();
        let text = |layer: &Descriptor| {
            let file = blob(&path, layer)?;
            read_bounded(&file.path).doing(|| format!("cannot read {}", file.path.display()))
        };
        let cmdline = String::from_utf8_lossy(&text(first("cmdline")?)?).trim().to_owned();
        let inner = Manifest::from_json(&text(first("manifest")?)?)
            .map_err(|error| Error::author("the image's manifest cannot be read").because(error))?;
        Ok(Self {
            digest: top.digest.clone(),
            kernel: blob(&path, first("kernel")?)?,
            ramdisks: ramdisks?,
            cmdline,
            manifest: inner,
            path,
        })
    }
}

fn blob_path(root: &Path, digest: &str) -> Result<PathBuf> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let hex = hex.ok_or_else(|| Error::author(format!("`{digest}` is not a digest")))?;
    Ok(root.join("blobs/sha256").join(hex))
}

fn blob(root: &Path, layer: &Descriptor) -> Result<Blob> {
    let path = blob_path(root, &layer.digest)?;
    let doing = || format!("cannot read {}", path.display());
    let mut hash = Sha256::new();
    let size = io::copy(&mut File::open(&path).doing(doing)?, &mut hash).doing(doing)?;
    let seen: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if layer.digest.strip_prefix("sha256:") != Some(&seen) || size != layer.size {
        return Err(Error::operator(format!("{} is not what the image says it is", path.display()))
            .hint("the image is damaged: build it again"));
    }
    let unpacked = layer.annotations.get("unpacked").and_then(|text| text.parse().ok()).unwrap_or(size);
    Ok(Blob { path, digest: layer.digest.clone(), size, unpacked })
}

fn document<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&read_bounded(path)?)?)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
    Ok(bytes)
}
