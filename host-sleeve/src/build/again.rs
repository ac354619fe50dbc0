//! A build that is to give what another one gave.
//!
//! Its law: the record says how, and is right or wrong about all of it: a build whose own record is another one has failed,
//! and replaces nothing.

use std::io::Read;
use std::path::Path;

use cloister_image::artifact::{ApplicationRecord, Artifact, BuildRecord, Finished};
use cloister_image::difference;

use crate::error::{Error, Result};

use super::unreadable::unread;

/// The longest record that is read, in bytes: one has a line for each layer.
const MAX_RECORD: u64 = 4 * 1024 * 1024;

/// How many differences are told; the rest is `diff`'s.
const TOLD: usize = 10;

/// Reads a record: a file, or the one in an enclave image.
pub(super) fn read(path: &Path) -> Result<BuildRecord> {
    let what = || Error::operator(format!("{} is no build record", path.display()));
    let hint = "give a build.json or an enclave image";
    if path.is_dir() {
        let record = Artifact::open(path).and_then(|artifact| artifact.build_record());
        return record.map_err(|fault| what().because(fault).hint(hint));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| what().because(error).hint(hint))?;
    file.take(MAX_RECORD).read_to_end(&mut bytes).map_err(|error| what().because(error).hint(hint))?;
    serde_json::from_slice(&bytes).map_err(|error| what().because(error).hint(hint))
}

/// Where the image of a record is found, if the record can say.
pub(super) fn image(record: &BuildRecord) -> Result<String> {
    match &record.application {
        ApplicationRecord::Image { repository: Some(repository), manifest: Some(digest), .. } => {
            Ok(format!("docker://{repository}@{digest}"))
        }
        _ => Err(Error::operator("the record does not say where its image is")
            .hint("it came from this host: name it with --image; it is compared with the record")),
    }
}

/// Compares what was built with the record it was to be built by.
pub(super) fn compare(record: &BuildRecord, built: &Finished, output: &Path) -> Result<()> {
    let built = built.open().and_then(|artifact| artifact.build_record());
    let built = built.map_err(unread)?;
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
    let told: Vec<String> = fields.iter().take(TOLD).map(line).collect();
    Err(Error::operator(format!("the build for {} is not what the record says", output.display()))
        .because(std::io::Error::other(told.join("\n")))
        .hint("nothing was replaced; built without --from under another name, `host-sleeve diff` explains it file by file"))
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
    fn an_image_of_a_registry_is_found_again_by_its_digest() {
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
    fn a_record_is_read_as_it_is_written() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("build.json");
        let written = record(ApplicationRecord::Directory { tree: Digest::of(b"") });
        std::fs::write(&path, serde_json::to_vec(&written).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), written);
        assert!(read(place.path()).is_err() && read(&place.path().join("none")).is_err());
    }
}
