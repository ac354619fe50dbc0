//! Parts of an image's configuration that the manifest does not cover.
//!
//! Invariant: what engines do for a container is done here, or a note says that an enclave does not do it.

use cloister_manifest::source::ImageConfig;

use crate::layers::Notes;
use crate::limits::{MAX_NAME, MAX_PATH};
use crate::oci::{self, Architecture};
use crate::tree::{Inode, Tree, join};

/// Creates the working directory if the image lacks it, as engines do before each start (runc, `finalizeNamespace`):
/// owned by root, mode 0755. If it cannot be created, resolving the manifest reports why.
pub(super) fn working_dir(tree: &mut Tree, config: &ImageConfig, notes: &mut Notes) {
    let configured = config.working_dir.as_bytes();
    let Ok(place) = tree.follow(configured) else { return };
    if place.len() > MAX_PATH || place.split(|byte| *byte == b'/').any(|name| name.len() > MAX_NAME) {
        return;
    }
    let missing: Vec<Vec<u8>> = ancestors(&place).filter(|path| tree.get(path).is_none()).collect();
    let reachable = ancestors(&place)
        .filter_map(|path| tree.get(&path).map(Inode::is_directory))
        .all(|directory| directory);
    if missing.is_empty() || !reachable || configured.contains(&0) {
        return;
    }
    for path in missing {
        tree.insert(path, Inode::directory());
    }
    tree.renumber();
    notes.add(|| {
        format!("the working directory {} is missing from the image: it is created", crate::shown(configured))
    });
}

/// Notes that an image, selected by its digest, does not run on every machine.
pub(super) fn variant(config: &oci::ImageConfig, architecture: Architecture, notes: &mut Notes) {
    if let Some(variant) = config.variant.as_deref().filter(|variant| !architecture.runs(Some(variant))) {
        let (name, variant) = (architecture.oci_name(), crate::shown(variant.as_bytes()));
        notes.add(|| {
            format!("the image is built for {name}/{variant}: it does not start on older processors")
        });
    }
}

/// Notes the fields of the configuration that have another meaning here, or none.
pub(super) fn note(config: &ImageConfig, notes: &mut Notes) {
    for variable in config.env.iter().filter(|variable| variable.find('=').is_none_or(|at| at == 0)) {
        let shown = crate::shown(variable.as_bytes());
        notes.add(|| format!("the image's variable `{shown}` has no name or no value: it is ignored"));
    }
    for volume in config.volumes.keys() {
        let shown = crate::shown(volume.as_bytes());
        notes.add(|| {
            format!(
                "the image declares the volume {shown}: in an enclave it is a directory of the root; data in it counts \
                 against `root.writable` and is lost when the enclave stops"
            )
        });
    }
}

/// A path and its ancestors except the root, from the top.
fn ancestors(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.scan(Vec::new(), |at, part| {
        *at = join(at, part);
        Some(at.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    fn tree() -> Tree {
        let mut tree = Tree::new();
        tree.insert(b"srv".to_vec(), Inode { uid: 7, ..Inode::directory() });
        tree.insert(b"file".to_vec(), Inode { kind: Kind::Fifo, ..Inode::directory() });
        let link = |target: &str| Inode { kind: Kind::Symlink(target.into()), ..Inode::directory() };
        tree.insert(b"link".to_vec(), link("/new/place"));
        tree.insert(b"round".to_vec(), link("round"));
        tree
    }

    fn made(path: &str) -> (Vec<String>, Notes) {
        let (mut tree, mut notes) = (tree(), Notes::default());
        let before = tree.clone();
        let config = ImageConfig { working_dir: path.to_owned(), ..ImageConfig::default() };
        working_dir(&mut tree, &config, &mut notes);
        let new = tree.entries.keys().filter(|path| !before.entries.contains_key(*path));
        (new.map(|path| String::from_utf8_lossy(path).into_owned()).collect(), notes)
    }

    #[test]
    fn a_missing_working_directory_is_created_with_its_parents() {
        for (path, expected) in [
            ("/srv/app/data", &["srv/app", "srv/app/data"][..]),
            ("relative", &["relative"]),
            ("/link/deeper", &["new", "new/place", "new/place/deeper"]),
            ("/tmp/x/../y", &["tmp", "tmp/y"]),
        ] {
            let (new, notes) = made(path);
            assert_eq!(new, expected, "{path}");
            assert!(notes.texts[0].contains(path), "{notes:?}");
        }
    }

    #[test]
    fn a_working_directory_that_exists_or_cannot_be_created_changes_nothing() {
        let long = "x".repeat(MAX_NAME + 1);
        for path in ["", "/", "/srv", "/srv/", "/file", "/file/x", "/round", &long, "/a\0b"] {
            assert_eq!(made(path), (Vec::new(), Notes::default()), "{path}");
        }
    }

    #[test]
    fn an_image_for_newer_processors_is_noted() {
        let notes = |variant: &str| {
            let json = format!(
                r#"{{"architecture": "amd64", "os": "linux", "variant": "{variant}", "rootfs": {{"diff_ids": []}}}}"#
            );
            let mut notes = Notes::default();
            super::variant(&serde_json::from_str(&json).unwrap(), Architecture::X86_64, &mut notes);
            notes.texts
        };
        assert!(notes("v3")[0].contains("amd64/v3"));
        assert_eq!((notes("v1"), notes("")), (Vec::new(), Vec::new()));
    }

    #[test]
    fn fields_without_an_effect_in_an_enclave_are_noted() {
        let json = r#"{"Env": ["A=1", "B", "=c"], "Volumes": {"/data": {}}}"#;
        let mut notes = Notes::default();
        note(&serde_json::from_str(json).unwrap(), &mut notes);
        for (text, part) in notes.texts.iter().zip(["`B`", "`=c`", "/data"]) {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(notes.texts.len(), 3);
        let mut notes = Notes::default();
        let json = r#"{"Env": null, "Volumes": null, "Healthcheck": {"Test": ["NONE"], "Interval": 3}}"#;
        note(&serde_json::from_str(json).unwrap(), &mut notes);
        note(&serde_json::from_str(r#"{"Healthcheck": null}"#).unwrap(), &mut notes);
        note(&serde_json::from_str(r#"{"Healthcheck": {"Test": "curl"}}"#).unwrap(), &mut notes);
        assert_eq!(notes, Notes::default());
    }
}
