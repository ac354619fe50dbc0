//! Decompresses a blob to the bytes of its tar.
//!
//! Invariant: compressed and decompressed bytes are hashed as they pass, and counted before they are used.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::LayerError;
use crate::digest::{Digest, Hashed};
use crate::limits::{self, LimitError};
use crate::oci::BlobReader;
use crate::tar::{Source, TarError};

/// Compressed bytes read at a time.
const CHUNK: usize = 128 * 1024;

/// Maximum window size of a zstd frame, as a power of two: 128 MiB, zstd's default limit for decoders.
const WINDOW_LOG: u32 = 27;

type Input = BufReader<Hashed<BlobReader>>;

enum Decoder {
    Plain(Input),
    Gzip(Box<MultiGzDecoder<Input>>),
    Zstd(zstd::Decoder<'static, Input>),
}

/// The unpacked bytes of a layer.
pub(super) struct Stream {
    decoder: Hashed<Decoder>,
    budget: u64,
}

/// The totals of a stream that has been read to its end.
pub(super) struct ReadToEnd {
    pub(super) digest: Digest,
    pub(super) diff_id: Digest,
    pub(super) unpacked: u64,
}

impl Stream {
    /// Starts a layer that may unpack to `budget` bytes.
    pub(super) fn new(blob: BlobReader, budget: u64) -> Result<Self, LayerError> {
        let decoder = Decoder::new(BufReader::with_capacity(CHUNK, Hashed::new(blob)))?;
        Ok(Self { decoder: Hashed::new(decoder), budget })
    }

    /// Reads the rest, so that the digests cover the whole stream.
    pub(super) fn finish(mut self) -> Result<ReadToEnd, LayerError> {
        io::copy(&mut self, &mut io::sink()).map_err(read_error)?;
        let unpacked = self.decoder.count();
        let (decoder, diff_id) = self.decoder.finish();
        let mut input = decoder.into_input();
        // A decoder may leave trailing bytes unread; a blob's digest covers all its bytes.
        io::copy(&mut input, &mut io::sink()).map_err(LayerError::Blob)?;
        Ok(ReadToEnd { digest: input.into_inner().digest(), diff_id, unpacked })
    }

    /// Whether the blob is not compressed.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.decoder.inner(), Decoder::Plain(_))
    }

    fn check(&self) -> Result<(), LimitError> {
        limits::check(limits::UNPACKED, self.decoder.count(), self.budget)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.check().map_err(io::Error::other)?;
        Ok(count)
    }
}

impl Source for Stream {}

impl Decoder {
    /// Detects the compression from the first bytes, as engines do: media types are often wrong.
    fn new(mut input: Input) -> Result<Self, LayerError> {
        let magic = input.fill_buf().map_err(LayerError::Blob)?;
        match magic {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(input)))),
            // A frame, or a skippable frame before one (RFC 8878, 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::Decoder::with_buffer(input).map_err(LayerError::Blob)?;
                decoder.window_log_max(WINDOW_LOG).map_err(LayerError::Blob)?;
                Ok(Self::Zstd(decoder))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(LayerError::Compression("xz")),
            [b'B', b'Z', b'h', ..] => Err(LayerError::Compression("bzip2")),
            _ => Ok(Self::Plain(input)),
        }
    }

    fn into_input(self) -> Input {
        match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self {
            Self::Plain(input) => return input.read(buffer).map_err(blob_error),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        };
        // Errors of the system have an error number; errors of a decoder have none.
        read.map_err(|error| if error.raw_os_error().is_some() { blob_error(error) } else { damaged(&error) })
    }
}

fn blob_error(error: io::Error) -> io::Error {
    io::Error::other(Tagged::Blob(error))
}

/// Marks an error as the scratch directory's.
pub(super) fn scratch_error(error: io::Error) -> io::Error {
    io::Error::other(Tagged::Scratch(error))
}

fn damaged(error: &io::Error) -> io::Error {
    io::Error::other(Tagged::Damaged(error.to_string()))
}

/// The origin of an error, preserved while it passes through readers that return `io::Error`.
#[derive(Debug, thiserror::Error)]
enum Tagged {
    #[error("the file cannot be read")]
    Blob(#[source] io::Error),
    #[error("the scratch directory cannot be written")]
    Scratch(#[source] io::Error),
    #[error("damaged: {0}")]
    Damaged(String),
}

/// Converts an error that passed through [`Stream`].
pub(super) fn read_error(error: io::Error) -> LayerError {
    let error = match error.downcast::<LimitError>() {
        Ok(error) => return LayerError::Limit(error),
        Err(error) => error,
    };
    match error.downcast::<Tagged>() {
        Ok(Tagged::Scratch(error)) => LayerError::Scratch(error),
        Ok(Tagged::Damaged(text)) => LayerError::Damaged(text),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            LayerError::Damaged("unexpected end of data".to_owned())
        }
        Ok(Tagged::Blob(error)) | Err(error) => LayerError::Blob(error),
    }
}

/// Converts an error of the tar reader.
pub(super) fn tar_error(error: TarError, offset: u64) -> LayerError {
    match error {
        TarError::Read(error) => read_error(error),
        error => LayerError::Tar { offset, error },
    }
}
