//! The directories that an image declares as volumes but does not contain.
//!
//! Container engines create them, so an image may rely on them. Existing ones are left unchanged.

use super::accounts::Accounts;
use super::image::{Image, hidden_by, walk};

/// The maximum number of an image's volumes that are created: images declare one or two, and each costs memory for its whole
/// path.
const MAX_VOLUMES: usize = 64;

/// A volume to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Every directory to create, from the root, without a leading slash: the volume itself is the last.
    pub folders: Vec<String>,
    /// The owner of the last, as with podman: the user that the image runs as.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The volumes of `image` to create. A path that cannot be resolved, or that is in a private directory of the services, is
/// skipped. If the image's user does not exist, the owner is root; resolving the manifest reports that user.
#[must_use]
pub fn volumes(image: &Image<'_>) -> Vec<Volume> {
    let user = Accounts::read(image.root).identity(&image.config.user).ok();
    let (uid, gid) = user.map_or((0, 0), |user| (user.uid, user.gid));
    let missing = |path: &String| {
        let walked = walk(image.root, path).ok().filter(|walked| walked.entry.is_none())?;
        let end = format!("/{}", walked.path);
        let absent = |step: &String| image.root.entry(step).is_none();
        let folders: Vec<String> = walked.steps.into_iter().filter(absent).collect();
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
    fn a_missing_volume_is_owned_by_the_images_user() {
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
