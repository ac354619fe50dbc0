//! Reads an archive: for tests, and to list the contents of a ramdisk.
//!
//! Invariant: a size is checked before memory is allocated for it; only names and link targets are held in memory.

use std::io::{self, Read};

use super::{ALIGNMENT, HEADER, MAGIC, MAX_NAME, TRAILER, file_type};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as stored.
    pub name: Vec<u8>,
    /// The file's type and permission bits, as in `stat(2)`.
    pub mode: u32,
    /// The inode number: entries with the same number and more than one link are the same file.
    pub inode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub links: u32,
    /// Modification time in seconds since 1970.
    pub mtime: u32,
    /// Bytes of content.
    pub size: u32,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read, or ends early.
    #[error("the archive cannot be read or ends early")]
    Read(#[source] io::Error),
    /// An invalid header.
    #[error("there is no newc header at byte {0}")]
    Header(u64),
    /// A name that the kernel would skip.
    #[error("the name at byte {0} is empty, too long or not terminated by a zero")]
    Name(u64),
}

/// Reads one archive.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    position: u64,
    left: u64,
}

impl<R: Read> Reader<R> {
    /// Starts at the beginning of an archive.
    pub fn new(source: R) -> Self {
        Self { source, position: 0, left: 0 }
    }

    /// The next entry; unread bytes of the last one are skipped. `None` at the entry that ends the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        self.skip(self.left)?;
        self.left = 0;
        self.align()?;
        let start = self.position;
        let mut header = [0; HEADER];
        self.fill(&mut header)?;
        let numbers = numbers(&header).ok_or(ReadError::Header(start))?;
        let [inode, mode, uid, gid, links, mtime, size, _, _, _, _, name_size, _] = numbers;
        let name = self.name(name_size).map_err(|error| error.unwrap_or(ReadError::Name(start)))?;
        self.align()?;
        self.left = u64::from(size);
        let end = name == TRAILER;
        Ok((!end).then_some(Entry { name, mode, inode, uid, gid, links, mtime, size }))
    }

    /// How many bytes have been read: the position of the current entry's content.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The content of the current entry.
    pub fn data(&mut self) -> impl Read + '_ {
        Data(self)
    }

    /// The underlying stream, positioned after the archive.
    pub fn into_source(self) -> R {
        self.source
    }

    fn name(&mut self, size: u32) -> Result<Vec<u8>, Option<ReadError>> {
        let size = usize::try_from(size).ok().filter(|size| (2..=MAX_NAME).contains(size)).ok_or(None)?;
        let mut name = vec![0; size];
        self.fill(&mut name).map_err(Some)?;
        let zero = name.pop();
        if zero == Some(0) && !name.contains(&0) { Ok(name) } else { Err(None) }
    }

    fn align(&mut self) -> Result<(), ReadError> {
        self.skip(self.position.wrapping_neg() % ALIGNMENT)
    }

    fn skip(&mut self, count: u64) -> Result<(), ReadError> {
        let skipped =
            io::copy(&mut self.source.by_ref().take(count), &mut io::sink()).map_err(ReadError::Read)?;
        self.position = self.position.saturating_add(skipped);
        if skipped == count { Ok(()) } else { Err(ReadError::Read(io::ErrorKind::UnexpectedEof.into())) }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.source.read_exact(buffer).map_err(ReadError::Read)?;
        self.position = self.position.saturating_add(crate::wide(buffer.len()));
        Ok(())
    }
}

impl Entry {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.mode & file_type::MASK == file_type::DIRECTORY
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.mode & file_type::MASK == file_type::REGULAR
    }

    /// Whether it is a symbolic link, whose content is its target.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.mode & file_type::MASK == file_type::SYMLINK
    }
}

/// The thirteen numbers of a header.
fn numbers(header: &[u8; HEADER]) -> Option<[u32; 13]> {
    let digits = header.strip_prefix(MAGIC)?;
    let mut numbers = [0; 13];
    for (number, digits) in numbers.iter_mut().zip(digits.chunks_exact(8)) {
        let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
        *number = u32::from_str_radix(text, 16).ok()?;
    }
    Some(numbers)
}

struct Data<'a, R>(&'a mut Reader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.0.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            // A decompressor treats an empty buffer as an error.
            return Ok(0);
        }
        let count = self.0.source.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.0.left = self.0.left.saturating_sub(crate::wide(count));
        self.0.position = self.0.position.saturating_add(crate::wide(count));
        Ok(count)
    }
}
