//! What an image's configuration asks of whoever runs it, beyond what the manifest takes from it.
//!
//! Its law: what engines do for a container is done here; what nobody does in an enclave is said.

use cloister_manifest::source::ImageConfig;

use crate::layers::Notes;
use crate::limits::{MAX_NAME, MAX_PATH};
use crate::oci::{self, Architecture};
use crate::tree::{Inode, Tree, join};

/// Makes the working directory if the image lacks it: as engines do before each start (runc, `finalizeNamespace`), with
/// root's folders of mode 0755. Where it cannot be, resolving the manifest says why.
pub(super) fn working_dir(tree: &mut Tree, config: &ImageConfig, notes: &mut Notes) {
    let asked = config.working_dir.as_bytes();
    let Ok(place) = tree.follow(asked) else { return };
    if place.len() > MAX_PATH || place.split(|byte| *byte == b'/').any(|name| name.len() > MAX_NAME) {
        return;
    }
    let missing: Vec<Vec<u8>> = ancestors(&place).filter(|path| tree.get(path).is_none()).collect();
    let reachable = ancestors(&place)
        .filter_map(|path| tree.get(&path).map(Inode::is_directory))
        .all(|directory| directory);
    if missing.is_empty() || !reachable || asked.contains(&0) {
        return;
    }
    for path in missing {
        tree.insert(path, Inode::directory());
    }
    tree.renumber();
    notes.add(|| format!("the working directory {} is not in the image: it is made", crate::shown(asked)));
}

/// Says that an image, which was named by its digest, is not for every machine.
pub(super) fn variant(config: &oci::ImageConfig, architecture: Architecture, notes: &mut Notes) {
    if let Some(variant) = config.variant.as_deref().filter(|variant| !architecture.runs(Some(variant))) {
        let (name, variant) = (architecture.oci_name(), crate::shown(variant.as_bytes()));
        notes.add(|| {
            format!("the image is built for {name}/{variant}: on older processors it does not start")
        });
    }
}

/// Says what the configuration has that means something else here, or nothing.
pub(super) fn note(config: &ImageConfig, notes: &mut Notes) {
    for variable in config.env.iter().filter(|variable| variable.find('=').is_none_or(|at| at == 0)) {
        let shown = crate::shown(variable.as_bytes());
        notes.add(|| format!("the image's variable `{shown}` has no name or no value: it is left out"));
    }
    for volume in config.volumes.keys() {
        let shown = crate::shown(volume.as_bytes());
        notes.add(|| {
            format!(
                "the image declares the volume {shown}: here it is a folder of the root, what is written there counts \
                 against `root.writable` and is gone when the enclave ends"
            )
        });
    }
}

/// A path and all above it but the root, from the top.
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
    fn a_working_directory_that_is_not_there_is_made_with_all_above_it() {
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
    fn a_working_directory_that_is_there_or_cannot_be_changes_nothing() {
        let long = "x".repeat(MAX_NAME + 1);
        for path in ["", "/", "/srv", "/srv/", "/file", "/file/x", "/round", &long, "/a\0b"] {
            assert_eq!(made(path), (Vec::new(), Notes::default()), "{path}");
        }
    }

    #[test]
    fn an_image_for_newer_processors_is_said_to_be_one() {
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
    fn what_nobody_does_in_an_enclave_is_said() {
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
