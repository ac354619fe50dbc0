//! Writes an archive sequentially.
//!
//! Invariant: the archive contains nothing of the build machine. Device numbers are zero, inode numbers count from one,
//! and entries without a time have time zero.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use super::{ALIGNMENT, MAGIC, MAX_FILE, MAX_NAME, TRAILER, file_type};
use crate::tree::{Content, Inode, InodeId, Kind, Tree, join};

/// Bytes of content copied at a time.
const CHUNK: usize = 128 * 1024;

/// The mode, owner and modification time of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970. Times outside of 1970 to 2106 are clamped.
    pub mtime: i64,
}

/// Why an archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file that is too large for the format: the image's author must act.
    #[error("`{name}` has {size} bytes, and a cpio archive can only hold files under 4 GiB")]
    TooLarge {
        /// Its name.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
    /// A name or link target that the kernel would skip: the image's author must act.
    #[error("`{0}` is longer than the 4095 bytes that the kernel unpacks")]
    TooLong(String),
    /// The content cannot be read: a problem of this host.
    #[error("the content of `{name}` cannot be read")]
    Read {
        /// The name of the file.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be written: a problem of this host.
    #[error("the archive cannot be written")]
    Write(#[source] io::Error),
}

/// Writes one archive.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    position: u64,
    /// The inode number of the next entry.
    next: u32,
}

/// The fields of an entry's header that are not in [`Header`].
struct Shape {
    kind: u32,
    inode: u32,
    links: u32,
    size: u64,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out, position: 0, next: 1 }
    }

    /// A directory. The kernel does not create parents: they must be written first.
    pub fn directory(&mut self, name: &[u8], header: Header) -> Result<(), WriteError> {
        let shape = self.single(file_type::DIRECTORY, 2, 0);
        self.header(name, header, &shape)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, name: &[u8], header: Header, target: &[u8]) -> Result<(), WriteError> {
        // The kernel needs space for its own terminating zero.
        if target.len() >= MAX_NAME {
            return Err(WriteError::TooLong(crate::shown(name).to_string()));
        }
        let shape = self.single(file_type::SYMLINK, 1, crate::wide(target.len()));
        self.header(name, header, &shape)?;
        self.put(target)?;
        self.pad()
    }

    /// A regular file of `size` bytes.
    pub fn file(
        &mut self,
        name: &[u8],
        header: Header,
        size: u64,
        content: &mut impl Read,
    ) -> Result<(), WriteError> {
        let shape = self.single(file_type::REGULAR, 1, size);
        self.file_as(name, header, &shape, content)
    }

    /// Everything in a tree, below the directory `prefix`. The root of the tree becomes that directory.
    ///
    /// cpio archives have no extended attributes: those of the tree are omitted.
    pub fn tree(&mut self, prefix: &[u8], tree: &Tree) -> Result<(), WriteError> {
        let mut links: HashMap<InodeId, u32> = HashMap::new();
        for id in tree.entries.values() {
            *links.entry(*id).or_default() += 1;
        }
        let first = self.next;
        let mut written: HashMap<InodeId, u32> = HashMap::new();
        for (path, id) in &tree.entries {
            let Some(inode) = tree.inode(*id) else { continue };
            let name = if path.is_empty() { prefix.to_vec() } else { join(prefix, path) };
            let next = first.saturating_add(u32::try_from(written.len()).unwrap_or(u32::MAX));
            let again = written.contains_key(id);
            let number = *written.entry(*id).or_insert(next);
            let links = links.get(id).copied().unwrap_or(1);
            self.inode(&name, inode, number, links, again)?;
        }
        self.next = first.saturating_add(u32::try_from(written.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    /// The current length of the archive in bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Ends the archive and returns the underlying writer.
    pub fn finish(mut self) -> Result<W, WriteError> {
        let shape = Shape { kind: 0, inode: 0, links: 1, size: 0 };
        self.header(TRAILER, Header::default(), &shape)?;
        self.out.flush().map_err(WriteError::Write)?;
        Ok(self.out)
    }

    fn inode(
        &mut self,
        name: &[u8],
        inode: &Inode,
        number: u32,
        links: u32,
        again: bool,
    ) -> Result<(), WriteError> {
        let header = Header { mode: inode.mode, uid: inode.uid, gid: inode.gid, mtime: inode.mtime };
        let shape = |kind, links, size| Shape { kind, inode: number, links, size };
        match &inode.kind {
            Kind::Directory => self.header(name, header, &shape(file_type::DIRECTORY, 2, 0)),
            Kind::Fifo => self.header(name, header, &shape(file_type::FIFO, 1, 0)),
            Kind::Symlink(target) => self.symlink(name, header, target),
            // The kernel links a later name to the first one, and uses the content of the entry that has one.
            Kind::File(_) if again => self.header(name, header, &shape(file_type::REGULAR, links, 0)),
            Kind::File(content) => {
                let shape = shape(file_type::REGULAR, links, content.len());
                self.file_as(name, header, &shape, &mut ContentReader { content, at: 0 })
            }
        }
    }

    fn file_as(
        &mut self,
        name: &[u8],
        header: Header,
        shape: &Shape,
        content: &mut impl Read,
    ) -> Result<(), WriteError> {
        if shape.size > MAX_FILE {
            return Err(WriteError::TooLarge { name: crate::shown(name).to_string(), size: shape.size });
        }
        self.header(name, header, shape)?;
        let mut left = shape.size;
        let mut buffer = vec![0; CHUNK];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            let chunk = buffer.get_mut(..want).unwrap_or_default();
            let name = || crate::shown(name).to_string();
            content.read_exact(chunk).map_err(|source| WriteError::Read { name: name(), source })?;
            self.put(chunk)?;
            left -= crate::wide(want);
        }
        self.pad()
    }

    fn single(&mut self, kind: u32, links: u32, size: u64) -> Shape {
        let inode = self.next;
        self.next = self.next.saturating_add(1);
        Shape { kind, inode, links, size }
    }

    fn header(&mut self, name: &[u8], header: Header, shape: &Shape) -> Result<(), WriteError> {
        if name.len() >= MAX_NAME {
            return Err(WriteError::TooLong(crate::shown(name).to_string()));
        }
        let mode = shape.kind | (header.mode & 0o7777);
        let time = u32::try_from(header.mtime.max(0)).unwrap_or(u32::MAX);
        let numbers = [
            u64::from(shape.inode),
            u64::from(mode),
            u64::from(header.uid),
            u64::from(header.gid),
            u64::from(shape.links),
            u64::from(time),
            shape.size,
            0, // device, major and minor
            0,
            0, // device of a special file, major and minor
            0,
            crate::wide(name.len()) + 1,
            0, // checksum, only used by another format
        ];
        let numbers: String =
            numbers.iter().fold(String::new(), |text, number| text + &format!("{number:08x}"));
        self.put(MAGIC)?;
        self.put(numbers.as_bytes())?;
        self.put(name)?;
        self.put(b"\0")?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.out.write_all(bytes).map_err(WriteError::Write)?;
        self.position = self.position.saturating_add(crate::wide(bytes.len()));
        Ok(())
    }

    fn pad(&mut self) -> Result<(), WriteError> {
        let missing = usize::try_from(self.position.wrapping_neg() % ALIGNMENT).unwrap_or_default();
        self.put([0; 4].get(..missing).unwrap_or_default())
    }
}

/// Reads a content from its beginning.
struct ContentReader<'a> {
    content: &'a Content,
    at: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.content.len().saturating_sub(self.at);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let chunk = buffer.get_mut(..most).unwrap_or_default();
        self.content.read_exact_at(chunk, self.at)?;
        self.at = self.at.saturating_add(crate::wide(most));
        Ok(most)
    }
}
