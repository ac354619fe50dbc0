//! RPM's packages, in each form of its database: `SQLite`'s since 4.16 (Fedora 33, RHEL 9, and what follows them), Berkeley DB's
//! before (RHEL and `CentOS` to 8, Amazon Linux 2), and SUSE's ndb.
//!
//! Its law: a value of the database is a package's header, a list of tags with their places in what follows it. Tags that are
//! not there leave their part of the component out; without name and version there is none.
//!
//! Sources: RPM's "Package Format" (its section on header structures), `include/rpm/rpmtag.h`, and `rpm` of the package URL
//! types.

use std::io;

use super::{Component, Distribution, MAX_FILE, bdb, ndb, purl, sqlite};
use crate::tree::{Kind, Tree, join};

/// Where the database was, where Fedora and SUSE have it now, and where ostree keeps it.
const FOLDERS: [&[u8]; 3] = [b"var/lib/rpm", b"usr/lib/sysimage/rpm", b"usr/share/rpm"];

/// What reads the headers out of a database.
type Reader = fn(&[u8]) -> Vec<Vec<u8>>;

/// The database in each form, by the name that RPM gives it.
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

/// The length of an entry of a header's index.
const ENTRY: usize = 16;

/// A key that somebody trusts is kept as a package of this name, and is no software.
const KEY: &str = "gpg-pubkey";

pub(super) fn packages(tree: &Tree, distribution: &Distribution) -> io::Result<Vec<Component>> {
    let mut components = Vec::new();
    for (folder, (name, read)) in
        FOLDERS.iter().flat_map(|folder| FORMS.iter().map(move |form| (folder, form)))
    {
        let Some(Kind::File(content)) =
            tree.lookup(&join(folder, name)).ok().flatten().map(|inode| &inode.kind)
        else {
            continue;
        };
        if content.len() > MAX_FILE {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap_or_default()];
        content.read_exact_at(&mut bytes, 0)?;
        components.extend(read(&bytes).iter().filter_map(|header| component(header, distribution)));
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

/// A package's header as it lies in the database: two lengths, an index, and what it points to.
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

    /// Where the value of a tag begins, if it has this type.
    fn value(&self, tag: u32, kind: u32) -> Option<&'a [u8]> {
        let fits = |entry: &&[u8]| u32_at(entry, 0) == Some(tag) && u32_at(entry, 4) == Some(kind);
        let entry = self.index.chunks_exact(ENTRY).find(fits)?;
        self.data.get(usize::try_from(u32_at(entry, 8)?).ok()?..)
    }

    fn text(&self, tag: u32) -> Option<String> {
        let bytes = self.value(tag, STRING)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
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
