//! What an application's root lacks and a service's view needs: folders of volumes, and places to mount on.
//!
//! Its law: what the image has stays as it is, and a place that is made is empty, root's, and as old as the root itself.

use std::sync::Arc;

use cloister_manifest::Manifest;
use cloister_manifest::model::INITCTL;
use cloister_manifest::source::{Volume, volumes};

use super::Application;
use crate::tree::{Content, Inode, Kind, Tree};

/// The permission bits of a place for a file: everybody may see that it is empty.
const PLACE_MODE: u32 = 0o444;

/// Makes the volumes that the image declares and lacks.
pub(super) fn make_volumes(application: &mut Application) {
    for Volume { folders, uid, gid } in volumes(&application.image()) {
        let made = application.tree.inodes.len();
        for folder in folders {
            insert(&mut application.tree, folder.as_bytes(), folder_of_root());
        }
        if let Some(last) = application.tree.inodes.get_mut(made..).and_then(<[Inode]>::last_mut) {
            (last.uid, last.gid) = (uid, gid);
        }
    }
}

/// The root with every place that the manifest pins.
pub(super) fn with_places(tree: &Tree, manifest: &Manifest) -> Tree {
    let mut tree = tree.clone();
    let files = manifest.services.iter().flat_map(|service| &service.files).chain(&manifest.root.additions);
    let files: Vec<&str> = files.map(|file| file.path.as_str()).chain([INITCTL]).collect();
    for path in &manifest.root.pinned {
        let place = if files.contains(&path.as_str()) {
            let kind = Kind::File(Content::Bytes(Arc::from([])));
            Inode { mode: PLACE_MODE, kind, ..folder_of_root() }
        } else {
            folder_of_root()
        };
        insert(&mut tree, path.trim_start_matches('/').as_bytes(), place);
    }
    tree
}

fn folder_of_root() -> Inode {
    Inode::directory()
}

/// Puts `inode` where nothing is.
fn insert(tree: &mut Tree, path: &[u8], inode: Inode) {
    if tree.get(path).is_none() {
        let mtime = tree.get(b"").map_or(0, |root| root.mtime);
        tree.insert(path.to_owned(), Inode { mtime, ..inode });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::tests::manifest;

    #[test]
    fn places_are_made_where_nothing_is() {
        let mut tree = Tree::new();
        tree.insert(b"etc".to_vec(), Inode { mode: 0o700, ..Inode::directory() });
        let mut manifest = manifest();
        manifest.root.pinned =
            ["/etc", "/etc/hosts", "/run", "/run/cloister", INITCTL].map(str::to_owned).to_vec();
        let hosts = "/etc/hosts".to_owned();
        let hosts = cloister_manifest::model::File { path: hosts, content: "x".to_owned(), mode: 0o644 };
        manifest.root.additions = vec![hosts];
        let made = with_places(&tree, &manifest);
        assert_eq!(made.get(b"etc").unwrap().mode, 0o700);
        for (path, folder) in [("run/cloister", true), ("etc/hosts", false), ("run/cloister/initctl", false)]
        {
            let inode = made.get(path.as_bytes()).unwrap();
            assert_eq!((inode.is_directory(), inode.uid), (folder, 0), "{path}");
        }
        assert!(tree.get(b"run").is_none(), "the application stays as it was read");
    }

    #[test]
    fn a_volume_belongs_to_the_images_user_and_its_parents_to_root() {
        let mut application = Application {
            tree: Tree::new(),
            config: cloister_manifest::source::ImageConfig {
                user: "999:998".to_owned(),
                volumes: [("/var/lib/data".to_owned(), serde_json::json!({}))].into(),
                ..Default::default()
            },
            notes: crate::layers::Notes::default(),
            record: crate::artifact::ApplicationRecord::Directory { tree: crate::digest::Digest::of(b"") },
            architecture: crate::oci::Architecture::X86_64,
            clamp_mtime: None,
        };
        make_volumes(&mut application);
        let owner = |path: &str| application.tree.get(path.as_bytes()).map(|inode| (inode.uid, inode.gid));
        assert_eq!(owner("var/lib"), Some((0, 0)));
        assert_eq!(owner("var/lib/data"), Some((999, 998)));
    }
}
