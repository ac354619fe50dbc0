//! The JSON documents of an image.
//!
//! Invariant: unknown fields are ignored, as the specification requires; known ones must have the type that the
//! specification gives them. `null` counts as absent, since Docker writes it for empty lists.

use std::collections::BTreeMap;

use cloister_manifest::source::ImageConfig as RunConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::OciError;
use crate::digest::Digest;

/// Media types.
pub mod media {
    /// An index of images.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An image's manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// Docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// An empty document (OCI image specification, "Guidance for an Empty Descriptor").
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

    /// Whether it is an index of images.
    #[must_use]
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, INDEX | DOCKER_INDEX)
    }

    /// Whether it is an image's manifest.
    #[must_use]
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, MANIFEST | DOCKER_MANIFEST)
    }

    /// Whether it is an image's configuration. The last type is the one that the first registries used.
    #[must_use]
    pub fn is_config(media_type: &str) -> bool {
        matches!(
            media_type,
            "application/vnd.oci.image.config.v1+json"
                | "application/vnd.docker.container.image.v1+json"
                | "application/octet-stream"
        )
    }

    /// Whether it is some type of layer, supported or not.
    #[must_use]
    pub fn is_meant_as_layer(media_type: &str) -> bool {
        ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."]
            .iter()
            .any(|family| media_type.starts_with(family))
    }

    /// Whether it is a supported layer. The compression is detected from its bytes.
    #[must_use]
    pub fn is_layer(media_type: &str) -> bool {
        let family = media_type.split('+').next().unwrap_or_default();
        let plain = matches!(
            family,
            "application/vnd.oci.image.layer.v1.tar"
                | "application/vnd.oci.image.layer.nondistributable.v1.tar"
                | "application/vnd.docker.image.rootfs.diff.tar"
                | "application/vnd.docker.image.rootfs.diff.tar.gzip"
                | "application/vnd.docker.image.rootfs.diff.tar.zstd"
                | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        );
        plain && !media_type.ends_with("+encrypted")
    }
}

/// A reference to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The blob's media type.
    pub media_type: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The type of an artifact that is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The platform it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The architecture, as in Go's `GOARCH`.
    pub architecture: String,
    /// The operating system, as in Go's `GOOS`.
    pub os: String,
    /// The variant of the architecture that its programs require: `v3`, `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A list of images or of other indexes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::INDEX`], if present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The listed images and indexes.
    pub manifests: Vec<Descriptor>,
}

/// The manifest of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::MANIFEST`], if present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of an artifact that is not a container image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers from the lowest up; for artifacts, the parts.
    pub layers: Vec<Descriptor>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl ImageManifest {
    /// The type of an artifact that is not an image: signatures, SBOMs, attestations and other artifacts have the form
    /// of an image's manifest.
    #[must_use]
    pub fn artifact(&self) -> Option<&str> {
        let layers = &self.layers;
        if !media::is_config(&self.config.media_type) {
            let config = Some(self.config.media_type.as_str()).filter(|kind| *kind != media::EMPTY);
            let content = layers.first().map(|layer| layer.media_type.as_str());
            return Some(self.artifact_type.as_deref().or(config).or(content).unwrap_or(media::EMPTY));
        }
        // cosign's signatures have an image's configuration, but no layer that can be unpacked.
        let first = layers.first()?;
        let none = !layers.iter().any(|layer| media::is_meant_as_layer(&layer.media_type));
        none.then_some(first.media_type.as_str())
    }
}

/// An image's configuration document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ImageConfig {
    /// The architecture, as in Go's `GOARCH`.
    pub architecture: String,
    /// The operating system, as in Go's `GOOS`.
    pub os: String,
    /// The variant of the architecture that its programs require.
    #[serde(default)]
    pub variant: Option<String>,
    /// The run configuration.
    #[serde(default)]
    pub config: Option<RunConfig>,
    /// The layers.
    pub rootfs: RootFs,
}

/// The unpacked layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// The digests of the layers' tars, from the lowest up.
    pub diff_ids: Vec<Digest>,
}

/// A document that an index or a reference refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "only one exists at a time, and only briefly")]
pub enum Document {
    /// An index.
    Index(Index),
    /// An image's manifest.
    Manifest(ImageManifest),
}

impl Document {
    /// Parses a document of a given media type; a document that could be read as either form is refused, since its
    /// digest would identify two images (CVE-2021-41190).
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, OciError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            #[serde(default)]
            schema_version: u32,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let shape: Shape = parse(bytes, "manifest")?;
        let own = shape.media_type.as_deref().unwrap_or(media_type);
        if shape.schema_version != 2 {
            return Err(OciError::MediaType(format!("{own}, schema version {}", shape.schema_version)));
        }
        match (shape.manifests.is_some(), shape.layers.is_some()) {
            (true, false) if media::is_index(media_type) && own == media_type => {
                parse(bytes, "index").map(Self::Index)
            }
            (false, true) if media::is_manifest(media_type) && own == media_type => {
                parse(bytes, "manifest").map(Self::Manifest)
            }
            (false, _) | (_, false) if !media::is_index(media_type) && !media::is_manifest(media_type) => {
                Err(OciError::MediaType(media_type.chars().take(200).collect()))
            }
            _ => Err(OciError::AmbiguousDocument(Digest::of(bytes))),
        }
    }

    /// Parses a document by its own media type: for one that is referred to by its digest alone.
    pub fn parse_alone(bytes: &[u8]) -> Result<Self, OciError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let shape: Shape = parse(bytes, "manifest")?;
        let guess = if shape.manifests.is_some() { media::INDEX } else { media::MANIFEST };
        Self::parse(bytes, shape.media_type.as_deref().unwrap_or(guess))
    }
}

/// Parses a configuration.
pub(super) fn parse_config(bytes: &[u8]) -> Result<ImageConfig, OciError> {
    parse(bytes, "configuration")
}

/// Parses any document.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, OciError> {
    serde_json::from_slice(bytes).map_err(|source| OciError::Document { what, source })
}
