//! The device of the test kernel, `/dev/tsm-test`: what a process needs to play the hardware that makes reports
//! (`kernel-config/tsm-test/tsm_test.c`).
//!
//! Invariant: it knows the bytes of requests and answers, and nothing of what a report contains.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::io::Errno;

/// The device.
const PATH: &str = "/dev/tsm-test";

/// `struct tsm_test_request`: the number, the privilege level, the length of the caller's bytes, and 64 of them.
const REQUEST: usize = 80;

/// The device, opened: the requests of this machine come to this process.
#[derive(Debug)]
pub struct Device(File);

/// A request for a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number, from 1.
    pub id: u64,
    /// The privilege level that the caller has written, or 0.
    pub privlevel: u32,
    /// The bytes that the report must cover.
    pub inblob: Vec<u8>,
}

/// The blobs of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blobs {
    /// The report itself.
    pub outblob: Vec<u8>,
    /// What is added to it, such as certificates.
    pub auxblob: Vec<u8>,
}

impl Device {
    /// Opens the device.
    ///
    /// Errors: `NotFound` on every kernel but the one for tests, and there without a provider.
    pub fn open() -> io::Result<Self> {
        File::options().read(true).write(true).open(PATH).map(Self)
    }

    /// Waits for the next request.
    pub fn next(&self) -> io::Result<Request> {
        let mut bytes = [0; REQUEST];
        let read = (&self.0).read(&mut bytes)?;
        bytes.get(..read).and_then(decoded).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Answers request `id` with a report, or makes it fail with this error.
    ///
    /// Errors: `ESTALE` if the request has timed out or was interrupted, `EFBIG` if a blob exceeds 32 KiB (`TSM_OUTBLOB_MAX`).
    pub fn answer(&self, id: u64, answer: &Result<Blobs, Errno>) -> io::Result<()> {
        let bytes = encoded(id, answer)?;
        // One call: the device takes an answer whole or not at all.
        let written = (&self.0).write(&bytes)?;
        if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

fn decoded(bytes: &[u8]) -> Option<Request> {
    let (id, rest) = bytes.split_first_chunk()?;
    let (privlevel, rest) = rest.split_first_chunk()?;
    let (length, inblob) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
    Some(Request {
        id: u64::from_ne_bytes(*id),
        privlevel: u32::from_ne_bytes(*privlevel),
        inblob: inblob.get(..length)?.to_vec(),
    })
}

/// `struct tsm_test_answer`, followed by the blobs.
fn encoded(id: u64, answer: &Result<Blobs, Errno>) -> io::Result<Vec<u8>> {
    let none = Blobs::default();
    let (error, blobs) = match answer {
        Ok(blobs) => (0, blobs),
        Err(error) => (error.raw_os_error().unsigned_abs(), &none),
    };
    let length = |blob: &[u8]| u32::try_from(blob.len()).map_err(io::Error::other);
    let mut bytes = id.to_ne_bytes().to_vec();
    for number in [error, length(&blobs.outblob)?, length(&blobs.auxblob)?, 0] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend_from_slice(&blobs.outblob);
    bytes.extend_from_slice(&blobs.auxblob);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_the_driver_lays_it_out() {
        let mut bytes = 7_u64.to_ne_bytes().to_vec();
        bytes.extend(2_u32.to_ne_bytes());
        bytes.extend(64_u32.to_ne_bytes());
        bytes.extend([9; 64]);
        assert_eq!(bytes.len(), REQUEST);
        assert_eq!(decoded(&bytes), Some(Request { id: 7, privlevel: 2, inblob: vec![9; 64] }));
        assert_eq!(decoded(&bytes[..79]), None);
    }

    #[test]
    fn an_answer_is_a_head_and_both_blobs() {
        let blobs = Blobs { outblob: b"report".to_vec(), auxblob: b"chain".to_vec() };
        let mut expected = 7_u64.to_ne_bytes().to_vec();
        for number in [0_u32, 6, 5, 0] {
            expected.extend(number.to_ne_bytes());
        }
        expected.extend(b"reportchain");
        assert_eq!(encoded(7, &Ok(blobs)).unwrap(), expected);
    }

    #[test]
    fn a_failure_is_a_positive_error_number_without_blobs() {
        let mut expected = 7_u64.to_ne_bytes().to_vec();
        for number in [5_u32, 0, 0, 0] {
            expected.extend(number.to_ne_bytes());
        }
        assert_eq!(encoded(7, &Err(Errno::IO)).unwrap(), expected);
    }
}
