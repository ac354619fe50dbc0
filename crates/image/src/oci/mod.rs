//! OCI images: indexes, manifests and configurations, and the blobs of the layers.
//!
//! Invariant: a document is used only if its bytes have the digest that refers to it, and a name selects exactly one
//! image or none. Nothing here uses the network: images from registries have been fetched before.
//!
//! Sources: the OCI image specification 1.1, and Docker's "Image Manifest V2, Schema 2" for archives and older
//! registries.

mod archive;
mod blob;
mod layout;
mod model;
mod names;
mod reference;
mod select;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::layers::{Layer, LayerError};
use crate::limits::LimitError;

pub use archive::{open as open_docker_archive, open_oci as open_oci_archive};
pub use blob::{Blob, BlobReader};
pub(crate) use layout::document as read_document;
pub use layout::{Layout, Role, Store};
pub use model::{Descriptor, Document, ImageConfig, ImageManifest, Index, Platform, RootFs, media};
pub use reference::{Reference, ReferenceError};
pub use select::{Select, choose};

/// The processor architecture of an enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    Aarch64,
}

/// An image: its configuration, and its layers from the lowest up.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's digest. `None` for an archive in Docker's older format, which has none.
    pub manifest: Option<Digest>,
    /// The configuration's digest: the image ID.
    pub config_digest: Digest,
    /// The configuration.
    pub config: ImageConfig,
    /// The layers.
    pub layers: Vec<Layer>,
}

/// An image that has been selected; its layers have not been located yet.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfig,
}

/// Why an image cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The directory is not an image layout.
    #[error("it is not an OCI image layout: {0} is missing or invalid")]
    NotALayout(&'static str),
    /// The file is not an archive of the stated form.
    #[error("it is not a valid {form}: {why}")]
    NotAnArchive {
        /// `docker-archive` or `oci-archive`.
        form: &'static str,
        /// What is missing.
        why: String,
    },
    /// A document that cannot be parsed.
    #[error("its {what} cannot be parsed")]
    Document {
        /// The document.
        what: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A document that two readers could interpret as two different images.
    #[error("its document {0} is both an index and a manifest, or does not match its media type")]
    AmbiguousDocument(Digest),
    /// A document or a list that is too long.
    #[error("it is too large")]
    Limit(#[source] LimitError),
    /// A blob that is referred to and does not exist.
    #[error("the blob {digest} ({what}) is missing")]
    Missing {
        /// Its digest.
        digest: Digest,
        /// Its purpose.
        what: &'static str,
    },
    /// A blob with the wrong digest.
    #[error("the blob {expected} has the digest {found}")]
    Digest {
        /// The digest that refers to it.
        expected: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// A blob with the wrong size.
    #[error("the blob {digest} has {found} bytes, but its descriptor states {expected}")]
    Size {
        /// Its digest.
        digest: Digest,
        /// The size in the descriptor.
        expected: u64,
        /// The size of the blob.
        found: u64,
    },
    /// No image for this platform.
    #[error("it has no image for {wanted}; available: {}", list(.available))]
    Platform {
        /// The wanted platform.
        wanted: String,
        /// The platforms of the images in it.
        available: Vec<String>,
    },
    /// It contains something else than an image, such as a signature or an SBOM.
    #[error("it has no container image, only artifacts: {}", list(.0))]
    Artifact(Vec<String>),
    /// No image with this name.
    #[error("it has no image `{wanted}`; available: {}", list(.available))]
    Name {
        /// The wanted name.
        wanted: String,
        /// The names of the images in it.
        available: Vec<String>,
    },
    /// More than one image matches.
    #[error("it has more than one matching image: {}", list(.0))]
    Ambiguous(Vec<String>),
    /// Something that is not a container image.
    #[error("`{0}` is not a supported media type of an image or layer")]
    MediaType(String),
    /// A configuration that does not match the manifest.
    #[error("it has {layers} layers, but {diff_ids} diff IDs")]
    LayerCount {
        /// The number of layers in the manifest.
        layers: usize,
        /// The number of diff IDs in the configuration.
        diff_ids: usize,
    },
    /// An archive whose compressed data is damaged.
    #[error("it cannot be unpacked")]
    Unpack(#[source] LayerError),
    /// A file cannot be read: a problem of this host.
    #[error("{} cannot be read", .path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Architecture {
    /// The architecture that this program was compiled for, if enclaves support it.
    #[must_use]
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The name that the kernel and `uname -m` use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Whether every machine of this architecture runs programs built for this variant of it. x86-64-v1 is the baseline
    /// of the psABI, and QEMU and clouds offer nothing less; 64-bit Linux requires Armv8.
    #[must_use]
    pub fn runs(self, variant: Option<&str>) -> bool {
        match (self, variant) {
            (_, None | Some("")) => true,
            (Self::X86_64, Some(variant)) => variant == "v1",
            (Self::Aarch64, Some(variant)) => variant == "v8",
        }
    }

    /// The name that OCI documents use (Go's `GOARCH`).
    #[must_use]
    pub fn oci_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }
}

impl Chosen {
    /// Reads an image's configuration, and checks that it is for `architecture`.
    fn new(
        store: &impl Store,
        digest: Digest,
        manifest: ImageManifest,
        architecture: Architecture,
    ) -> Result<Self, OciError> {
        let bytes = layout::document(store, &manifest.config, Role::Configuration)?;
        let config = model::parse_config(&bytes)?;
        select::check_platform(&config, architecture)?;
        if manifest.layers.len() != config.rootfs.diff_ids.len() {
            let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
            return Err(OciError::LayerCount { layers, diff_ids });
        }
        match manifest.layers.iter().find(|layer| !media::is_layer(&layer.media_type)) {
            Some(wrong) => Err(OciError::MediaType(wrong.media_type.clone())),
            None => Ok(Self { digest, manifest, config }),
        }
    }

    /// Locates the layers.
    pub fn open(self, store: &impl Store) -> Result<Image, OciError> {
        let layer = |(descriptor, diff_id): (&Descriptor, &Digest)| {
            let blob = layout::blob(store, descriptor, Role::Layer)?;
            Ok(Layer { blob, digest: Some(descriptor.digest), diff_id: *diff_id })
        };
        let pairs = self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids);
        let layers = pairs.map(layer).collect::<Result<_, OciError>>()?;
        let config_digest = self.manifest.config.digest;
        Ok(Image { manifest: Some(self.digest), config_digest, config: self.config, layers })
    }
}

/// Opens an image layout and selects one image in it.
pub fn open_layout(path: &Path, select: &Select, architecture: Architecture) -> Result<Image, OciError> {
    let layout = Layout::open(path)?;
    let index = layout.index()?;
    choose(&layout, &index, select, architecture)?.open(&layout)
}

/// Selects one image from blobs, by its own digest or by that of an index that refers to it.
pub fn find(store: &impl Store, digest: Digest, architecture: Architecture) -> Result<Chosen, OciError> {
    let nothing = Index { schema_version: 2, media_type: None, manifests: Vec::new() };
    choose(store, &nothing, &Select::Digest(digest), architecture)
}

/// Formats names for a message.
fn list(names: &[String]) -> String {
    // Ten are enough for an overview.
    let mut text = names.iter().take(10).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "none".clone_into(&mut text),
        11.. => text.push_str(", …"),
        _ => {}
    }
    text
}

#[cfg(test)]
pub(crate) mod test_image;
#[cfg(test)]
mod tests;
