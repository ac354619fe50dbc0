//! Repeating a build from its record.
//!
//! Invariant: the record determines the whole build: if the new build's record differs in any field, the build has failed and
//! replaces nothing.

use std::io::Read;
use std::path::Path;

use cloister_image::artifact::{ApplicationRecord, Artifact, BuildRecord, Finished};
use cloister_image::difference;

use crate::error::{Error, Result};

use super::unreadable::unreadable;

/// Maximum length of a record in bytes: it has one line per layer.
const MAX_RECORD: u64 = 4 * 1024 * 1024;

/// Maximum number of differences in the error; `diff` shows all of them.
const MAX_SHOWN: usize = 10;

/// Reads a record from a file or from an enclave image.
pub(super) fn read(path: &Path) -> Result<BuildRecord> {
    let what = || Error::operator(format!("{} is not a build record", path.display()));
    let hint = "give a build.json or an enclave image";
    if path.is_dir() {
        let record = Artifact::open(path).and_then(|artifact| artifact.build_record());
        return record.map_err(|error| what().because(error).hint(hint));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| what().because(error).hint(hint))?;
    file.take(MAX_RECORD).read_to_end(&mut bytes).map_err(|error| what().because(error).hint(hint))?;
    serde_json::from_slice(&bytes).map_err(|error| what().because(error).hint(hint))
}

/// The reference of the record's image, if it came from a registry.
pub(super) fn image(record: &BuildRecord) -> Result<String> {
    match &record.application {
        ApplicationRecord::Image { repository: Some(repository), manifest: Some(digest), .. } => {
            Ok(format!("docker://{repository}@{digest}"))
        }
        _ => Err(Error::operator("the record does not contain the location of its image").hint(
            "the image came from this host: set --image to its path; the result is compared with the record",
        )),
    }
}

/// Compares the result with the record that it was built from.
pub(super) fn compare(record: &BuildRecord, built: &Finished, output: &Path) -> Result<()> {
    let built = built.open().and_then(|artifact| artifact.build_record());
    let built = built.map_err(unreadable)?;
    let fields = difference::records(record, &built)
        .map_err(|error| Error::internal("two build records cannot be compared").because(error))?;
    if fields.is_empty() {
        return Ok(());
    }
    let nothing = || "nothing".to_owned();
    let line = |change: &difference::FieldChange| {
        let (first, second) = (change.first.clone(), change.second.clone());
        format!(
            "{}: {} in the record, {} now",
            change.field,
            first.unwrap_or_else(nothing),
            second.unwrap_or_else(nothing)
        )
    };
    let shown: Vec<String> = fields.iter().take(MAX_SHOWN).map(line).collect();
    Err(Error::operator(format!("the build for {} differs from the record", output.display()))
        .because(std::io::Error::other(shown.join("\n")))
        .hint("no file was replaced; to see the difference file by file, build without --from to another path and use `host-sleeve diff`"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cloister_image::artifact::{OsRecord, RootForm, ToolRecord};
    use cloister_image::digest::Digest;

    use super::*;

    fn record(application: ApplicationRecord) -> BuildRecord {
        BuildRecord {
            version: 1,
            tool: ToolRecord { name: "x".to_owned(), version: "1".to_owned() },
            application,
            os: OsRecord { version: "1".to_owned(), record: Digest::of(b"") },
            manifest_source: None,
            root: RootForm::Erofs,
            clamp_mtime: None,
            outputs: BTreeMap::new(),
        }
    }

    #[test]
    fn an_image_from_a_registry_is_referenced_by_its_digest() {
        let digest = Digest::of(b"");
        let image_record = |repository: Option<&str>| ApplicationRecord::Image {
            repository: repository.map(str::to_owned),
            manifest: Some(digest),
            config: digest,
            layers: Vec::new(),
        };
        let found = image(&record(image_record(Some("ghcr.io/a/b")))).unwrap();
        assert_eq!(found, format!("docker://ghcr.io/a/b@{digest}"));
        assert!(image(&record(image_record(None))).is_err());
        assert!(image(&record(ApplicationRecord::Directory { tree: digest })).is_err());
    }

    #[test]
    fn a_record_is_read_as_written() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("build.json");
        let written = record(ApplicationRecord::Directory { tree: Digest::of(b"") });
        std::fs::write(&path, serde_json::to_vec(&written).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), written);
        assert!(read(place.path()).is_err() && read(&place.path().join("none")).is_err());
    }
}
