//! Compression of chunks. Each is compressed independently, so that reading one never requires another, and threads can
//! share the work without changing the result.
//!
//! Invariant: the output depends on the bytes and the setting, never on time, thread or machine.

use std::io;

use lz4::block::CompressionMode;

use super::format::{BLOCK, BLOCK_BYTES};

/// Uncompressed bytes of a chunk: what the kernel reads around a page fault. Measured on a Debian root with Python (266
/// MB): 64 KiB chunks make the image 4 % larger and 256 KiB ones 2 % smaller; starting Python costs the same with each.
pub(crate) const CHUNK: usize = 32 * BLOCK;
/// [`CHUNK`] in blocks.
pub(crate) const CHUNK_BLOCKS: u16 = 32;
/// [`CHUNK`] for positions.
pub(crate) const CHUNK_BYTES: u64 = 32 * BLOCK_BYTES;
/// The logarithm of [`CHUNK`] less that of the smallest window (`ZSTD_WINDOWLOG_ABSOLUTEMIN`, 10).
const ZSTD_WINDOW: u8 = 17 - 10;
/// Measured on the same root: 12 % smaller than the fast compressor; the highest level gains 0.5 % for three times the
/// work.
const LZ4_LEVEL: CompressionMode = CompressionMode::HIGHCOMPRESSION(6);
/// Measured on the same root: 4 % smaller than level 3 for three times the work; higher ones gain less than 1 %.
const ZSTD_LEVEL: i32 = 9;

/// How file contents are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// LZ4: the fastest to read.
    Lz4,
    /// Zstandard: the smallest result.
    Zstd,
}

impl Compression {
    /// `Z_EROFS_COMPRESSION_*`.
    pub(crate) fn algorithm(self) -> u8 {
        match self {
            Self::None | Self::Lz4 => 0,
            Self::Zstd => 3,
        }
    }

    /// The bit in the superblock for this compression, and its record: a length and the values.
    pub(crate) fn records(self) -> (u16, Vec<u8>) {
        match self {
            Self::None => (0, Vec::new()),
            Self::Lz4 => {
                let mut record = vec![14, 0, 0, 0];
                record.extend(CHUNK_BLOCKS.to_le_bytes());
                record.resize(16, 0);
                (1, record)
            }
            Self::Zstd => (1 << 3, vec![6, 0, 0, ZSTD_WINDOW, 0, 0, 0, 0]),
        }
    }

    /// A compressor for one thread.
    pub(crate) fn start(self) -> io::Result<Compressor> {
        let mut method = match self {
            Self::None => Method::None,
            Self::Lz4 => Method::Lz4,
            Self::Zstd => Method::Zstd(Box::new(zstd::bulk::Compressor::new(ZSTD_LEVEL)?)),
        };
        let hole = method.compress(&vec![0; CHUNK])?;
        Ok(Compressor { method, hole })
    }
}

/// A compressor that reuses its working memory.
pub(crate) struct Compressor {
    method: Method,
    /// A compressed chunk of zeros: high compression is slowest on those, and sparse files consist of them.
    hole: Option<Vec<u8>>,
}

enum Method {
    None,
    Lz4,
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Compressor {
    /// The chunk compressed, if that saves at least one block.
    pub(crate) fn compress(&mut self, chunk: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if chunk.len() == CHUNK && chunk.iter().all(|byte| *byte == 0) {
            return Ok(self.hole.clone());
        }
        self.method.compress(chunk)
    }
}

impl Method {
    fn compress(&mut self, chunk: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let blocks = chunk.len().div_ceil(BLOCK);
        let packed = match self {
            Self::None => return Ok(None),
            _ if blocks < 2 => return Ok(None),
            Self::Lz4 => lz4::block::compress(chunk, Some(LZ4_LEVEL), false)?,
            Self::Zstd(zstd) => zstd.compress(chunk)?,
        };
        Ok((packed.len().div_ceil(BLOCK) < blocks).then_some(packed))
    }
}

/// Compresses chunks on several threads; results are in the order of the chunks.
pub(crate) fn compress_all(
    chunks: &[Vec<u8>],
    compressors: &mut [Compressor],
) -> io::Result<Vec<Option<Vec<u8>>>> {
    let share = chunks.len().div_ceil(compressors.len().max(1)).max(1);
    std::thread::scope(|scope| {
        let shares = chunks.chunks(share).zip(compressors);
        let threads: Vec<_> = shares
            .map(|(part, compressor)| {
                scope.spawn(move || part.iter().map(|chunk| compressor.compress(chunk)).collect::<Vec<_>>())
            })
            .collect();
        let results = threads.into_iter().flat_map(|thread| match thread.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect()
    })
}
