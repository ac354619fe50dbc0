//! The folders that an image declares as volumes and does not have.
//!
//! Its law: an engine makes them, so an image may rely on them; what is there is left as it is.

use super::accounts::Accounts;
use super::image::{Image, hidden_by, walk};

/// The most volumes of an image that are made: images declare one or two, and each costs the memory of its whole way.
const MAX_VOLUMES: usize = 64;

/// A folder to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Every folder to make, from the root, without a slash at its front: the volume's own is the last.
    pub folders: Vec<String>,
    /// The owner of the last, as podman gives it: the user that the image runs as.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The volumes of `image` that are to be made. One that leads nowhere, or into a folder that every service has of its own, is
/// none; the user that the image lacks is root here, and a fault of the manifest's.
#[must_use]
pub fn volumes(image: &Image<'_>) -> Vec<Volume> {
    let user = Accounts::read(image.root).identity(&image.config.user).ok();
    let (uid, gid) = user.map_or((0, 0), |user| (user.uid, user.gid));
    let missing = |path: &String| {
        let way = walk(image.root, path).ok().filter(|way| way.entry.is_none())?;
        let end = format!("/{}", way.path);
        let absent = |step: &String| image.root.entry(step).is_none();
        let folders: Vec<String> = way.steps.into_iter().filter(absent).collect();
        (hidden_by(&end).is_none() && !path.contains('\0')).then_some(Volume { folders, uid, gid })
    };
    image.config.volumes.keys().take(MAX_VOLUMES).filter_map(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::super::image::{Arch, ImageConfig};
    use super::super::testing::Files;
    use super::*;

    #[test]
    fn a_declared_volume_that_is_missing_belongs_to_the_images_user() {
        let files = Files::default()
            .file("/etc/passwd", 0o644, "redis:x:999:998::/:/bin/sh\n")
            .directory("/there")
            .link("/link", "/srv/data");
        let volumes_of = |paths: &[&str], user: &str| {
            let declared = paths.iter().map(|path| ((*path).to_owned(), serde_json::json!({}))).collect();
            let config = ImageConfig { volumes: declared, user: user.to_owned(), ..ImageConfig::default() };
            volumes(&Image { config: &config, root: &files, arch: Arch::X86_64 })
        };
        let volume = |folders: &[&str], uid, gid| Volume {
            folders: folders.iter().map(|folder| (*folder).to_owned()).collect(),
            uid,
            gid,
        };
        assert_eq!(volumes_of(&["/data/x/"], "redis"), [volume(&["data", "data/x"], 999, 998)]);
        assert_eq!(volumes_of(&["/link"], ""), [volume(&["srv", "srv/data"], 0, 0)]);
        assert_eq!(volumes_of(&["/there", "/tmp/x", "/etc/passwd/x", "/"], "redis"), []);
    }
}
