//! The on-disk format of EROFS: constants, and the encoding of records.
//!
//! Invariant: records are encoded from values that are always valid, so nothing here fails. The layout is decided by
//! the callers. Source: `fs/erofs/erofs_fs.h` of Linux 6.12, whose names appear in the comments.

/// Bytes of a block. 4096 is the page size of both architectures: the kernel maps such blocks without splitting pages.
pub(crate) const BLOCK: usize = 4096;
/// [`BLOCK`] for positions.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// `blkszbits`: the logarithm of [`BLOCK`].
pub(crate) const BLOCK_BITS: u8 = 12;
/// Inodes start at multiples of this; a node number counts them from the start of the metadata.
pub(crate) const SLOT: u64 = 32;
/// `EROFS_SUPER_OFFSET`: space for a boot sector precedes the superblock.
pub(crate) const SUPER_OFFSET: usize = 1024;
/// `EROFS_SUPER_MAGIC_V1`.
pub(crate) const MAGIC: u32 = 0xE0F5_E1E2;
/// `EROFS_NAME_LEN`: the maximum length of a file name.
pub(crate) const NAME_MAX: usize = 255;
/// Bytes of a directory entry before the names.
pub(crate) const DIRENT: usize = 12;
/// Bytes of a compact inode.
pub(crate) const INODE_COMPACT: u64 = 32;
/// Bytes of an extended inode.
pub(crate) const INODE_EXTENDED: u64 = 64;
/// Bytes before the first index of a compressed inode: the map header and eight reserved bytes
/// (`Z_EROFS_FULL_INDEX_START`).
pub(crate) const INDEX_HEADER: u64 = 16;
/// Bytes of an index (`z_erofs_lcluster_index`): one for each block of uncompressed content.
pub(crate) const INDEX: u64 = 8;

/// Features that a reader may ignore (`EROFS_FEATURE_COMPAT_*`).
pub(crate) mod compat {
    /// The superblock has a checksum.
    pub(crate) const CHECKSUM: u32 = 1;
    /// Times are modification times.
    pub(crate) const MTIME: u32 = 2;
}

/// Features that a reader must support (`EROFS_FEATURE_INCOMPAT_*`).
pub(crate) mod incompat {
    /// Compressed data is at the end of its blocks.
    pub(crate) const ZERO_PADDING: u32 = 1;
    /// Compression records follow the superblock; clusters may be longer than a block.
    pub(crate) const COMPRESSION_RECORDS: u32 = 2;
    /// Ends of files are stored together in the packed inode.
    pub(crate) const FRAGMENTS: u32 = 0x20;
}

/// `h_advise` of a compressed inode.
pub(crate) mod advise {
    /// Compressed clusters may be longer than a block (`BIG_PCLUSTER_1`).
    pub(crate) const BIG_CLUSTERS: u16 = 2;
}

/// Set in the first index after a head: the rest is the length of the cluster in blocks (`Z_EROFS_LI_D0_CBLKCNT`).
pub(crate) const CLUSTER_BLOCKS: u16 = 1 << 11;
/// Top bit of the map header: the whole file is in the packed inode, at the position in the other 63 bits.
pub(crate) const WHOLE_FRAGMENT: u64 = 1 << 63;

/// The layout of an inode's content (`i_format`, bits 1 to 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Whole blocks.
    Plain,
    /// Compressed, with an index of eight bytes for each block.
    Compressed,
    /// Whole blocks, and the rest after the inode.
    Inline,
}

/// The type of an inode or a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileType {
    Regular,
    Directory,
    Symlink,
    Fifo,
}

/// The fields of an inode, in either of its two forms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InodeRecord {
    pub(crate) layout: Layout,
    pub(crate) file_type: FileType,
    pub(crate) permissions: u16,
    pub(crate) xattr_count: u16,
    pub(crate) links: u32,
    pub(crate) size: u64,
    /// `i_u`: the first block, or the number of blocks of compressed content.
    pub(crate) data: u32,
    pub(crate) number: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
}

/// One index of a compressed inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    /// An uncompressed block.
    Plain { block: u32 },
    /// The first block of a compressed cluster.
    Head { block: u32 },
    /// A further block of the cluster: the distance to the head before it (or the length of the cluster) and the
    /// distance to the next head.
    Rest { before: u16, after: u16 },
}

/// The superblock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SuperBlock {
    /// Features that a reader must support.
    pub(crate) incompat: u32,
    /// Bit set of the compressions in use, by `Z_EROFS_COMPRESSION_*`.
    pub(crate) algorithms: u16,
    pub(crate) root: u16,
    pub(crate) packed: u64,
    pub(crate) inodes: u64,
    /// The time of all compact inodes.
    pub(crate) time: i64,
    pub(crate) blocks: u32,
    /// The first block of the metadata.
    pub(crate) metadata: u32,
    /// The file system's identity.
    pub(crate) uuid: [u8; 16],
}

impl Layout {
    fn code(self) -> u16 {
        match self {
            Self::Plain => 0,
            Self::Compressed => 1,
            Self::Inline => 2,
        }
    }

    /// The layout with this number, if the writer uses it.
    pub(crate) fn from_code(code: u16) -> Option<Self> {
        [Self::Plain, Self::Compressed, Self::Inline].into_iter().find(|layout| layout.code() == code)
    }
}

impl FileType {
    /// `S_IFMT` bits of a mode.
    pub(crate) fn mode_bits(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Fifo => 0o010_000,
        }
    }

    /// `EROFS_FT_*` of a directory entry.
    pub(crate) fn entry_code(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::Fifo => 5,
            Self::Symlink => 7,
        }
    }

    /// The type in a mode, if the writer uses it.
    pub(crate) fn from_mode(mode: u16) -> Option<Self> {
        let types = [Self::Regular, Self::Directory, Self::Symlink, Self::Fifo];
        types.into_iter().find(|file_type| file_type.mode_bits() == mode & 0o170_000)
    }
}

impl InodeRecord {
    /// The length of the record if compact inodes have the time `compact_time`.
    pub(crate) fn length(&self, compact_time: i64) -> u64 {
        if self.compact_fields(compact_time).is_some() { INODE_COMPACT } else { INODE_EXTENDED }
    }

    /// The record, in the shorter form if its values fit.
    pub(crate) fn encode(&self, compact_time: i64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        let compact = self.compact_fields(compact_time);
        let format = self.layout.code() << 1 | u16::from(compact.is_none());
        bytes.extend(format.to_le_bytes());
        bytes.extend(self.xattr_count.to_le_bytes());
        bytes.extend((self.file_type.mode_bits() | self.permissions).to_le_bytes());
        match compact {
            Some((links, size, uid, gid)) => {
                bytes.extend(links.to_le_bytes());
                bytes.extend(size.to_le_bytes());
                bytes.extend([0; 4]);
                bytes.extend(self.data.to_le_bytes());
                bytes.extend(self.number.to_le_bytes());
                bytes.extend(uid.to_le_bytes());
                bytes.extend(gid.to_le_bytes());
                bytes.extend([0; 4]);
            }
            None => self.encode_extended(&mut bytes),
        }
        bytes
    }

    fn encode_extended(&self, bytes: &mut Vec<u8>) {
        bytes.extend([0; 2]);
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.data.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.uid.to_le_bytes());
        bytes.extend(self.gid.to_le_bytes());
        bytes.extend(self.mtime.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.links.to_le_bytes());
        bytes.extend([0; 16]);
    }

    /// Links, size, owner and group for a compact inode, if they fit.
    fn compact_fields(&self, compact_time: i64) -> Option<(u16, u32, u16, u16)> {
        if self.mtime != compact_time {
            return None;
        }
        let size = u32::try_from(self.size).ok()?;
        let narrow = |value: u32| u16::try_from(value).ok();
        Some((narrow(self.links)?, size, narrow(self.uid)?, narrow(self.gid)?))
    }
}

impl Index {
    /// The eight bytes of the index. Clusters begin at block boundaries, so `di_clusterofs` is 0.
    pub(crate) fn encode(self) -> [u8; 8] {
        let (kind, words): (u16, [u8; 4]) = match self {
            Self::Plain { block } => (0, block.to_le_bytes()),
            Self::Head { block } => (1, block.to_le_bytes()),
            Self::Rest { before, after } => {
                let ([a, b], [c, d]) = (before.to_le_bytes(), after.to_le_bytes());
                (2, [a, b, c, d])
            }
        };
        let ([k0, k1], [w0, w1, w2, w3]) = (kind.to_le_bytes(), words);
        [k0, k1, 0, 0, w0, w1, w2, w3]
    }
}

impl SuperBlock {
    /// The first block of the image, including the checksum. `records` are the compression records (see `codec`).
    pub(crate) fn encode(&self, records: &[u8]) -> Vec<u8> {
        let mut block = self.fields(0);
        block.extend(records);
        block.resize(BLOCK - SUPER_OFFSET, 0);
        let mut block = self.fields(checksum(&block));
        block.extend(records);
        let mut image = vec![0; SUPER_OFFSET];
        image.append(&mut block);
        image.resize(BLOCK, 0);
        image
    }

    fn fields(&self, checksum: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(checksum.to_le_bytes());
        bytes.extend((compat::CHECKSUM | compat::MTIME).to_le_bytes());
        bytes.extend([BLOCK_BITS, 0]);
        bytes.extend(self.root.to_le_bytes());
        bytes.extend(self.inodes.to_le_bytes());
        bytes.extend(self.time.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.blocks.to_le_bytes());
        bytes.extend(self.metadata.to_le_bytes());
        // No shared extended attributes.
        bytes.extend([0; 4]);
        bytes.extend(self.uuid);
        // No name.
        bytes.extend([0; 16]);
        bytes.extend(self.incompat.to_le_bytes());
        bytes.extend(self.algorithms.to_le_bytes());
        // No further devices, directory blocks of one block, no long attribute prefixes.
        bytes.extend([0; 2 + 2 + 1 + 1 + 4]);
        bytes.extend(self.packed.to_le_bytes());
        bytes.extend([0; 24]);
        bytes
    }
}

/// The UUID derived from a digest: version 8, whose other 122 bits are implementation-defined (RFC 9562, section 5.8).
/// It is never the null UUID, with which overlayfs would identify files by inode numbers that change.
pub(crate) fn uuid(digest: &[u8; 32]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(digest.split_at(16).0);
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut uuid;
    *version = *version & 0x0F | 0x80;
    *variant = *variant & 0x3F | 0x80;
    uuid
}

/// CRC-32C as the kernel computes it over the superblock's block: initialized with ones, not inverted at the end.
/// Computed bit by bit, since it covers three kilobytes once per image.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    // The Castagnoli polynomial with its bits reversed.
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let carry = if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            crc >> 1 ^ carry
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis_without_the_last_inversion() {
        // The check value of CRC-32C in the Catalogue of Parametrised CRC Algorithms is 0xE3069283.
        assert_eq!(!checksum(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn a_uuid_has_its_version_and_variant_for_any_digest() {
        let digits = |byte| uuid(&[byte; 32]).map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(digits(0x00), "00000000000080008000000000000000");
        assert_eq!(digits(0xff), "ffffffffffff8fffbfffffffffffffff");
    }

    #[test]
    fn records_have_the_lengths_of_the_kernels_structures() {
        let superblock = SuperBlock {
            incompat: 0,
            algorithms: 0,
            root: 1,
            packed: 0,
            inodes: 1,
            time: 0,
            blocks: 1,
            metadata: 1,
            uuid: [7; 16],
        };
        assert_eq!(superblock.fields(0).len(), 128);
        assert_eq!(superblock.encode(&[]).len(), BLOCK);
        let inode = InodeRecord {
            layout: Layout::Plain,
            file_type: FileType::Regular,
            permissions: 0o644,
            xattr_count: 0,
            links: 1,
            size: 0,
            data: 0,
            number: 1,
            uid: 0,
            gid: 0,
            mtime: 7,
        };
        assert_eq!(inode.encode(7).len(), 32);
        assert_eq!(inode.encode(8).len(), 64);
    }

    #[test]
    fn an_inode_is_extended_when_one_value_does_not_fit() {
        let small = InodeRecord {
            layout: Layout::Plain,
            file_type: FileType::Regular,
            permissions: 0o644,
            xattr_count: 0,
            links: 65_535,
            size: u64::from(u32::MAX),
            data: 0,
            number: 1,
            uid: 65_535,
            gid: 65_535,
            mtime: -5,
        };
        assert_eq!(small.length(-5), INODE_COMPACT);
        let wide = [
            InodeRecord { links: 65_536, ..small },
            InodeRecord { size: 1 << 32, ..small },
            InodeRecord { uid: 65_536, ..small },
            InodeRecord { gid: 65_536, ..small },
            InodeRecord { mtime: 0, ..small },
        ];
        assert!(wide.iter().all(|inode| inode.length(-5) == INODE_EXTENDED));
    }
}
