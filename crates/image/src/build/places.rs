//! Creates what a service's view needs and the application's root lacks: volume directories and mount points.
//!
//! Invariant: everything in the image stays as it is; a created mount point is empty, owned by root, and has the
//! modification time of the root directory.

use std::sync::Arc;

use cloister_manifest::Manifest;
use cloister_manifest::model::INITCTL;
use cloister_manifest::source::{Volume, volumes};

use super::Application;
use crate::tree::{Content, Inode, Kind, Tree};

/// The mode of a mount point for a file: everyone may read it, and it is empty.
const PLACE_MODE: u32 = 0o444;

/// Creates the volumes that the image declares and lacks.
pub(super) fn make_volumes(application: &mut Application) {
    for Volume { folders, uid, gid } in volumes(&application.image()) {
        let made = application.tree.inodes.len();
        for directory in folders {
            insert(&mut application.tree, directory.as_bytes(), Inode::directory());
        }
        if let Some(last) = application.tree.inodes.get_mut(made..).and_then(<[Inode]>::last_mut) {
            (last.uid, last.gid) = (uid, gid);
        }
    }
}

/// The root with every mount point that the manifest pins.
pub(super) fn with_places(tree: &Tree, manifest: &Manifest) -> Tree {
    let mut tree = tree.clone();
    let files = manifest.services.iter().flat_map(|service| &service.files).chain(&manifest.root.additions);
    let files: Vec<&str> = files.map(|file| file.path.as_str()).chain([INITCTL]).collect();
    for path in &manifest.root.pinned {
        let place = if files.contains(&path.as_str()) {
            let kind = Kind::File(Content::Bytes(Arc::from([])));
            Inode { mode: PLACE_MODE, kind, ..Inode::directory() }
        } else {
            Inode::directory()
        };
        insert(&mut tree, path.trim_start_matches('/').as_bytes(), place);
    }
    tree
}

/// Inserts `inode` if the path does not exist.
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
    fn missing_mount_points_are_created() {
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
        for (path, directory) in
            [("run/cloister", true), ("etc/hosts", false), ("run/cloister/initctl", false)]
        {
            let inode = made.get(path.as_bytes()).unwrap();
            assert_eq!((inode.is_directory(), inode.uid), (directory, 0), "{path}");
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
