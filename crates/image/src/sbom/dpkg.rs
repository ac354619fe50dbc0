//! Debian's packages: `/var/lib/dpkg/status`, or one file each in `status.d` in images without dpkg.
//!
//! Invariant: only installed packages are listed, not those of which only configuration files are left.

use std::io;

use super::{Component, Distribution, fields, purl, read, text};
use crate::tree::{Kind, Tree, base};

const STATUS: &[u8] = b"var/lib/dpkg/status";
const STATUS_FOLDER: &[u8] = b"var/lib/dpkg/status.d";

pub(super) fn packages(tree: &Tree, distribution: &Distribution) -> io::Result<Vec<Component>> {
    let mut texts: Vec<String> = read(tree, STATUS)?.into_iter().collect();
    for (path, id) in tree.below(STATUS_FOLDER) {
        if let (Some(Kind::File(content)), false) =
            (tree.inode(*id).map(|inode| &inode.kind), base(path).ends_with(b".md5sums"))
        {
            texts.push(text(content)?);
        }
    }
    let paragraphs = texts.iter().flat_map(|text| text.split("\n\n"));
    Ok(paragraphs.filter_map(|paragraph| component(paragraph, distribution)).collect())
}

fn component(paragraph: &str, distribution: &Distribution) -> Option<Component> {
    let fields = fields(paragraph);
    let get = |name: &str| fields.get(name).copied().unwrap_or_default();
    // Images without dpkg omit the status.
    let installed = get("Status").is_empty() || get("Status").ends_with(" installed");
    let (name, version) = (get("Package"), get("Version"));
    if name.is_empty() || version.is_empty() || !installed {
        return None;
    }
    let id = if distribution.id.is_empty() { "debian" } else { &distribution.id };
    let tag = distribution.tag();
    let purl = purl::of("deb", &[id], name, version, &[("arch", get("Architecture")), ("distro", &tag)]);
    Some(Component::new("library", name, version, Some(purl)))
}
