//! RPM's packages, in each format of its database: `SQLite` since 4.16 (Fedora 33, RHEL 9 and later), Berkeley DB
//! before (RHEL and `CentOS` up to 8, Amazon Linux 2), and SUSE's ndb.
//!
//! Format: each value of the database is a package's header, a list of tags with their positions in the data after it.
//! Tags that are missing or too long are omitted from the component; a header without name and version gives no
//! component.
//!
//! Invariant: tags may share their bytes, so the size of the output is limited as well as that of the database.
//!
//! Sources: RPM's "Package Format" (its section on header structures), `include/rpm/rpmtag.h`, and `rpm` of the package
//! URL types.

use std::collections::BTreeSet;
use std::io;

use super::{Component, Distribution, MAX_COMPONENTS, MAX_FILE, MAX_TEXT, bdb, ndb, purl, sqlite};
use crate::tree::{Kind, Tree, join};

/// The directory of the database: the original one, that of current Fedora and SUSE, and that of ostree.
const FOLDERS: [&[u8]; 3] = [b"var/lib/rpm", b"usr/lib/sysimage/rpm", b"usr/share/rpm"];

/// A function that reads the headers in a database.
type Reader = fn(&[u8]) -> Vec<Vec<u8>>;

/// The formats of the database, by RPM's file name.
const FORMS: [(&[u8], Reader); 3] = [
    (b"rpmdb.sqlite", |bytes| sqlite::column(bytes, "Packages")),
    (b"Packages", bdb::values),
    (b"Packages.db", ndb::values),
];

/// Tags (`rpmTag_e`).
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCH: u32 = 1022;

/// Types of values (`rpmTagType_e`).
const INT32: u32 = 4;
const STRING: u32 = 6;

/// The size of an entry of a header's index.
const ENTRY: usize = 16;

/// The name under which RPM stores trusted keys as packages. They are not software.
const KEY: &str = "gpg-pubkey";

/// Maximum bytes of package URLs: enough for [`MAX_COMPONENTS`] of the usual hundred bytes. A byte that is not UTF-8
/// takes nine bytes in a URL, and four tags may share it: without this limit the output could be a hundred times as
/// long as the database.
const MAX_URLS: usize = 16 << 20;

/// The remaining budget for all databases of an image together.
struct Budget {
    /// Bytes of databases.
    bytes: u64,
    components: usize,
    /// Bytes of package URLs, the longest part of a component.
    urls: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: MAX_FILE, components: MAX_COMPONENTS, urls: MAX_URLS }
    }
}

impl Budget {
    /// The component, unless it exceeds the budget.
    fn take(&mut self, component: Component) -> Option<Component> {
        self.components = self.components.checked_sub(1)?;
        self.urls = self.urls.checked_sub(component.bom_ref.len())?;
        Some(component)
    }
}

pub(super) fn packages(tree: &Tree, distribution: &Distribution) -> io::Result<Vec<Component>> {
    let (mut components, mut budget) = (Vec::new(), Budget::default());
    // The directories may be links to each other, the files hard links.
    let mut visited = BTreeSet::new();
    for (folder, (name, read)) in
        FOLDERS.iter().flat_map(|folder| FORMS.iter().map(move |form| (folder, form)))
    {
        let id = tree.follow(&join(folder, name)).ok().and_then(|path| tree.entries.get(&path));
        let Some(id) = id.filter(|id| visited.insert(**id)) else { continue };
        let Some(Kind::File(content)) = tree.inode(*id).map(|inode| &inode.kind) else { continue };
        let Some(left) = budget.bytes.checked_sub(content.len()) else { continue };
        budget.bytes = left;
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap_or_default()];
        content.read_exact_at(&mut bytes, 0)?;
        let headers = read(&bytes);
        let found = headers.iter().filter_map(|header| component(header, distribution));
        components.extend(found.map_while(|component| budget.take(component)));
    }
    Ok(components)
}

fn component(bytes: &[u8], distribution: &Distribution) -> Option<Component> {
    let header = Header::read(bytes)?;
    let (name, version) = (header.text(NAME)?, header.text(VERSION)?);
    if name == KEY {
        return None;
    }
    let version =
        header.text(RELEASE).map_or_else(|| version.clone(), |release| format!("{version}-{release}"));
    let epoch = header.number(EPOCH).map(|epoch| epoch.to_string()).unwrap_or_default();
    let arch = header.text(ARCH).unwrap_or_default();
    let namespace = Some(distribution.id.as_str()).filter(|id| !id.is_empty());
    let tag = distribution.tag();
    let qualifiers = [("arch", arch.as_str()), ("distro", &tag), ("epoch", &epoch)];
    let namespace: Vec<&str> = namespace.into_iter().collect();
    let purl = purl::of("rpm", &namespace, &name, &version, &qualifiers);
    let whole = if epoch.is_empty() { version } else { format!("{epoch}:{version}") };
    Some(Component::new("library", &name, &whole, Some(purl)))
}

/// A package's header as stored in the database: two lengths, an index, and the data that the index refers to.
struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let entries = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let length = usize::try_from(u32_at(bytes, 4)?).ok()?;
        let (index, rest) = bytes.get(8..)?.split_at_checked(entries.checked_mul(ENTRY)?)?;
        Some(Self { index, data: rest.get(..length)? })
    }

    /// The data from the value of a tag on, if the tag has this type.
    fn value(&self, tag: u32, kind: u32) -> Option<&'a [u8]> {
        let fits = |entry: &&[u8]| u32_at(entry, 0) == Some(tag) && u32_at(entry, 4) == Some(kind);
        let entry = self.index.chunks_exact(ENTRY).find(fits)?;
        self.data.get(usize::try_from(u32_at(entry, 8)?).ok()?..)
    }

    fn text(&self, tag: u32) -> Option<String> {
        let bytes = self.value(tag, STRING)?;
        let end = bytes.iter().take(MAX_TEXT + 1).position(|byte| *byte == 0)?;
        bytes
            .get(..end)
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .filter(|text| !text.is_empty())
    }

    fn number(&self, tag: u32) -> Option<u32> {
        u32_at(self.value(tag, INT32)?, 0)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::*;
    use crate::tree::Inode;

    /// A header whose name, version, release and architecture are all the same bytes.
    fn header(text: &[u8]) -> Vec<u8> {
        let tags = [NAME, VERSION, RELEASE, ARCH];
        let word = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
        let mut bytes = [word(tags.len()), word(text.len() + 1)].concat();
        for tag in tags {
            bytes.extend([tag, STRING, 0, 1].map(u32::to_be_bytes).concat());
        }
        bytes.extend(text);
        bytes.push(0);
        bytes
    }

    /// An ndb database of these headers: pages of slots, then the packages in blocks of 16 bytes.
    fn database(headers: &[Vec<u8>]) -> Vec<u8> {
        let word = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        let pages = (headers.len() + 2).div_ceil(256);
        let mut bytes = [&b"RpmP"[..], &[0; 8], &word(pages), &[0; 16]].concat();
        let mut blobs = Vec::new();
        for (header, number) in headers.iter().zip(1..) {
            let count = (16 + header.len() + 12).div_ceil(16);
            let first = (pages * 4096 + blobs.len()) / 16;
            bytes.extend([*b"Slot", word(number), word(first), word(count)].concat());
            let end = blobs.len() + count * 16 - 12;
            blobs.extend([&b"BlbS"[..], &word(number), &[0; 4], &word(header.len()), header].concat());
            blobs.resize(end, 0);
            blobs.extend([&[0; 4], &word(header.len())[..], b"BlbE"].concat());
        }
        bytes.resize(pages * 4096, 0);
        bytes.extend(blobs);
        bytes
    }

    fn tree(path: &str, database: &[u8]) -> Tree {
        let mut tree = Tree::new();
        let kind = Kind::File(Content::Bytes(database.into()));
        tree.insert(path.as_bytes().to_vec(), Inode { kind, ..Inode::directory() });
        tree
    }

    fn count(tree: &Tree) -> usize {
        packages(tree, &Distribution::default()).unwrap().len()
    }

    #[test]
    fn a_header_with_a_long_name_gives_no_component() {
        let name = |length: usize| {
            count(&tree("var/lib/rpm/Packages.db", &database(&[header(&vec![b'a'; length])])))
        };
        assert_eq!((name(1), name(1024), name(1025), name(1 << 20)), (1, 1, 0, 0));
    }

    #[test]
    fn a_database_reachable_through_three_directories_is_read_once() {
        let path = "usr/lib/sysimage/rpm/Packages.db";
        let mut tree = tree(path, &database(&[header(b"a"), header(b"b")]));
        let link = Kind::Symlink(b"../../usr/lib/sysimage/rpm".to_vec());
        tree.insert(b"var/lib/rpm".to_vec(), Inode { kind: link, ..Inode::directory() });
        let hard = *tree.entries.get(path.as_bytes()).unwrap();
        tree.entries.insert(b"usr/share/rpm/Packages.db".to_vec(), hard);
        assert_eq!(count(&tree), 2);
    }

    #[test]
    fn all_databases_share_one_size_limit() {
        let mut content = database(&[header(b"a")]);
        content.resize(40 << 20, 0);
        let mut tree = tree("var/lib/rpm/Packages.db", &content);
        let kind = Kind::File(Content::Bytes(content.into()));
        tree.insert(b"usr/share/rpm/Packages.db".to_vec(), Inode { kind, ..Inode::directory() });
        assert_eq!(count(&tree), 1);
    }

    #[test]
    fn text_that_grows_when_escaped_stays_within_the_limit() {
        let headers = vec![header(&[0xff; 1024]); 1000];
        let found = packages(&tree("var/lib/rpm/Packages.db", &database(&headers)), &Distribution::default());
        let length: usize = found.unwrap().iter().map(|component| component.bom_ref.len()).sum();
        assert!((8 << 20..=16 << 20).contains(&length), "{length} bytes of package URLs");
    }

    #[test]
    fn the_number_of_components_is_limited() {
        let mut budget = Budget { components: 2, ..Budget::default() };
        let one = || component(&header(b"a"), &Distribution::default()).unwrap();
        let taken = [one(), one(), one()].map(|component| budget.take(component).is_some());
        assert_eq!(taken, [true, true, false]);
    }
}
