//! Images for tests, created in memory.
//!
//! Invariant: an image is valid by default: every digest is correct unless a test changes it.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::media;
use crate::digest::Digest;

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Plain,
    Gzip,
    Zstd,
}

/// Builds a test image.
#[derive(Clone, Debug)]
pub(crate) struct TestImage {
    pub(crate) architecture: &'static str,
    pub(crate) config: Value,
    /// Each layer's blob and the digest of its tar.
    pub(crate) layers: Vec<(Vec<u8>, Digest)>,
}

impl Default for TestImage {
    fn default() -> Self {
        Self { architecture: "amd64", config: json!({"Cmd": ["/bin/app"], "Env": null}), layers: Vec::new() }
    }
}

impl TestImage {
    pub(crate) fn layer(self, tar: &[u8]) -> Self {
        self.layer_as(tar, Stored::Gzip)
    }

    pub(crate) fn layer_as(mut self, tar: &[u8], stored: Stored) -> Self {
        let diff_id = Digest::of(tar);
        self.layers.push((pack(tar, stored), diff_id));
        self
    }

    pub(crate) fn config_bytes(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|(_, diff_id)| diff_id.to_string()).collect();
        let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
        let config = json!({
            "architecture": self.architecture, "os": "linux", "config": self.config, "rootfs": rootfs, "history": [],
        });
        serde_json::to_vec(&config).unwrap()
    }

    /// Writes the blobs below `root` and returns the manifest's descriptor.
    pub(crate) fn write_blobs(&self, root: &Path) -> Value {
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let layers: Vec<_> = self.layers.iter().map(|(blob, _)| write_blob(root, layer, blob)).collect();
        let config = write_blob(root, "application/vnd.oci.image.config.v1+json", &self.config_bytes());
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": config, "layers": layers});
        write_blob(root, media::MANIFEST, &serde_json::to_vec(&manifest).unwrap())
    }

    pub(crate) fn write_layout(&self, root: &Path) {
        let descriptor = self.write_blobs(root);
        write_index(root, &[descriptor]);
    }
}

/// Writes a blob and returns its descriptor.
pub(crate) fn write_blob(root: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    let blobs = root.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

/// Turns a directory with blobs into a layout.
pub(crate) fn write_index(root: &Path, manifests: &[Value]) {
    std::fs::create_dir_all(root).unwrap();
    std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    std::fs::write(root.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

/// A tar of files and, for names that end with a slash, directories.
pub(crate) fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if name.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(0o755);
        header.set_size(content.len().try_into().unwrap());
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn pack(bytes: &[u8], stored: Stored) -> Vec<u8> {
    match stored {
        Stored::Plain => bytes.to_vec(),
        Stored::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Stored::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}
