//! OCI images: what an index, a manifest and a configuration say, and where the bytes of the layers are.
//!
//! Its law: a document is used only when its bytes have the digest by which it was named, and a name chooses exactly one
//! image or none. Nothing here goes to a network: what comes from a registry was put into a layout before.
//!
//! Sources: the OCI image specification 1.1, and Docker's "Image Manifest V2, Schema 2" for archives and older registries.

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
use crate::layers::{Layer, LayerFault};
use crate::limits::LimitFault;

pub use archive::{open as open_docker_archive, open_oci as open_oci_archive};
pub use blob::{Blob, BlobReader};
pub(crate) use layout::document as read_document;
pub use layout::{Layout, Role, Store};
pub use model::{Descriptor, Document, ImageConfig, ImageManifest, Index, Platform, RootFs, media};
pub use reference::{Reference, ReferenceFault};
pub use select::{Select, choose};

/// What the machine inside runs.
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
    /// The manifest's digest. `None` for an archive of Docker's older form, which has none.
    pub manifest: Option<Digest>,
    /// The configuration's digest: the image ID.
    pub config_digest: Digest,
    /// The configuration.
    pub config: ImageConfig,
    /// The layers.
    pub layers: Vec<Layer>,
}

/// An image that was chosen, and whose layers have not been looked for.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfig,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum OciFault {
    /// The directory is no image layout.
    #[error("it is no OCI image layout: {0} is missing or wrong")]
    NotALayout(&'static str),
    /// The file is no archive of the form it is said to have.
    #[error("it is no {form}: {why}")]
    NotAnArchive {
        /// `docker-archive` or `oci-archive`.
        form: &'static str,
        /// What is missing.
        why: String,
    },
    /// A document that cannot be read.
    #[error("its {what} cannot be understood")]
    Document {
        /// Which one.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A document that says two things at once, so that two readers could see two images.
    #[error("its {0} is both an index and a manifest, or not what its media type says")]
    Ambivalent(Digest),
    /// A document or a list that is too long.
    #[error("it is too large")]
    Limit(#[source] LimitFault),
    /// A blob that is named and not there.
    #[error("the blob {digest} ({what}) is missing")]
    Missing {
        /// Its digest.
        digest: Digest,
        /// What it is for.
        what: &'static str,
    },
    /// Bytes that are not those that were named.
    #[error("the blob {expected} has the digest {found}")]
    Digest {
        /// The name.
        expected: Digest,
        /// What was read.
        found: Digest,
    },
    /// A blob of another size than the one that was named.
    #[error("the blob {digest} has {found} bytes, and its descriptor says {expected}")]
    Size {
        /// Its digest.
        digest: Digest,
        /// What the descriptor says.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// No image for this machine.
    #[error("it has no image for {wanted}, only for {}", list(.available))]
    Platform {
        /// What was looked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// What was found is something else than an image: a signature, a bill of materials.
    #[error("it has no container image, only artifacts: {}", list(.0))]
    Artifact(Vec<String>),
    /// A name that is not there.
    #[error("it has no image `{wanted}`, only {}", list(.available))]
    Name {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// More than one image fits.
    #[error("it has more than one image: {}", list(.0))]
    Ambiguous(Vec<String>),
    /// Something that is no image for containers.
    #[error("`{0}` is not the media type of an image or layer that can be used")]
    MediaType(String),
    /// A configuration that does not go with the manifest.
    #[error("it has {layers} layers and {diff_ids} diff IDs")]
    LayerCount {
        /// How many layers the manifest names.
        layers: usize,
        /// How many the configuration names.
        diff_ids: usize,
    },
    /// An archive whose compression is damaged.
    #[error("it cannot be unpacked")]
    Unpack(#[source] LayerFault),
    /// This host must be looked at.
    #[error("{} cannot be read", .path.display())]
    Host {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Architecture {
    /// The machine this program was compiled for, if enclaves run on such.
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

    /// Whether every machine of this architecture runs what is built for a variant of it. x86-64-v1 is what the psABI calls
    /// the baseline, and QEMU and clouds offer nothing less; Armv8 is all that Linux runs on in 64 bits.
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
    /// Reads an image's configuration, and sees that it is for `architecture`.
    fn new(
        store: &impl Store,
        digest: Digest,
        manifest: ImageManifest,
        architecture: Architecture,
    ) -> Result<Self, OciFault> {
        let bytes = layout::document(store, &manifest.config, Role::Configuration)?;
        let config = model::parse_config(&bytes)?;
        select::check_platform(&config, architecture)?;
        if manifest.layers.len() != config.rootfs.diff_ids.len() {
            let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
            return Err(OciFault::LayerCount { layers, diff_ids });
        }
        match manifest.layers.iter().find(|layer| !media::is_layer(&layer.media_type)) {
            Some(wrong) => Err(OciFault::MediaType(wrong.media_type.clone())),
            None => Ok(Self { digest, manifest, config }),
        }
    }

    /// Finds the layers.
    pub fn open(self, store: &impl Store) -> Result<Image, OciFault> {
        let layer = |(descriptor, diff_id): (&Descriptor, &Digest)| {
            let blob = layout::blob(store, descriptor, Role::Layer)?;
            Ok(Layer { blob, digest: Some(descriptor.digest), diff_id: *diff_id })
        };
        let pairs = self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids);
        let layers = pairs.map(layer).collect::<Result<_, OciFault>>()?;
        let config_digest = self.manifest.config.digest;
        Ok(Image { manifest: Some(self.digest), config_digest, config: self.config, layers })
    }
}

/// Opens an image layout and chooses one image in it.
pub fn open_layout(path: &Path, select: &Select, architecture: Architecture) -> Result<Image, OciFault> {
    let layout = Layout::open(path)?;
    let index = layout.index()?;
    choose(&layout, &index, select, architecture)?.open(&layout)
}

/// Chooses one image from blobs, by its own digest or by that of an index that names it.
pub fn find(store: &impl Store, digest: Digest, architecture: Architecture) -> Result<Chosen, OciFault> {
    let nothing = Index { schema_version: 2, media_type: None, manifests: Vec::new() };
    choose(store, &nothing, &Select::Digest(digest), architecture)
}

/// Names for a message.
fn list(names: &[String]) -> String {
    // Ten are enough to see what there is.
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
