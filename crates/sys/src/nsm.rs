//! The Nitro Security Module: measurements, randomness and evidence of an AWS Nitro enclave, over `/dev/nsm`.
//!
//! Its law: an answer is parsed as hostile bytes, bounded by the driver's own limits. Requests and answers are CBOR as the
//! vendor's `aws-nitro-enclaves-nsm-api` writes them: a text for a request without fields, else a map with one key, its
//! name. The ioctl is that of the kernel's `include/uapi/linux/nsm.h`.

#![expect(unsafe_code, reason = "the module is driven by an ioctl on raw buffers")]

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::path::Path;

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError};
use rustix::ioctl::{Opcode, Updater, ioctl};

/// The longest request in bytes (`NSM_REQUEST_MAX_SIZE`, `drivers/misc/nsm.c`).
const REQUEST_LIMIT: usize = 0x1000;

/// The longest answer in bytes (`NSM_RESPONSE_MAX_SIZE`, same file).
const RESPONSE_LIMIT: usize = 0x3000;

/// Most PCRs a module may announce; a real one has 32.
const PCR_LIMIT: usize = 256;

/// An open module.
#[derive(Debug)]
pub struct Nsm {
    device: File,
}

/// What the module says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The module's version: major, minor, patch.
    pub version: (u16, u16, u16),
    /// Its name, which holds the instance's and the enclave's.
    pub module_id: String,
    /// How many PCRs it has.
    pub max_pcrs: u16,
    /// Which of them are locked, ascending.
    pub locked_pcrs: Vec<u16>,
    /// The hash of its PCRs: `SHA256`, `SHA384` or `SHA512`.
    pub digest: String,
}

/// One platform configuration register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcr {
    /// Whether it can no longer be extended.
    pub locked: bool,
    /// Its value.
    pub value: Vec<u8>,
}

/// What an attestation document is to carry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims<'a> {
    /// At most 512 bytes.
    pub user_data: Option<&'a [u8]>,
    /// At most 512 bytes.
    pub nonce: Option<&'a [u8]>,
    /// At most 1024 bytes.
    pub public_key: Option<&'a [u8]>,
}

/// Why the module did not do what it was asked.
#[derive(Debug)]
pub enum NsmError {
    /// The device or the ioctl failed.
    Device(io::Error),
    /// The request is over the driver's limit, or cannot be written.
    Request(String),
    /// The module refused, in its own word (`InvalidArgument`, `ReadOnlyIndex`, …).
    Refused(String),
    /// The answer is not what the request asks for.
    Answer(String),
}

impl Nsm {
    /// Opens the module of the machine whose root directory is `root`.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { device: File::options().read(true).write(true).open(root.join("dev/nsm"))? })
    }

    /// What the module says of itself (`DescribeNSM`).
    pub fn describe(&self) -> Result<Description, NsmError> {
        Ok(Answer::new(&self.ask(&bare("DescribeNSM")?)?).description()?)
    }

    /// Some random bytes, up to 256 a call (`GetRandom`).
    pub fn random(&self) -> Result<Vec<u8>, NsmError> {
        Ok(Answer::new(&self.ask(&bare("GetRandom")?)?).bytes_of("GetRandom", "random")?)
    }

    /// A register's value (`DescribePCR`).
    pub fn pcr(&self, index: u16) -> Result<Pcr, NsmError> {
        let request = with_fields("DescribePCR", 1, |fields| fields.str("index")?.u16(index)?.ok())?;
        Ok(Answer::new(&self.ask(&request)?).pcr()?)
    }

    /// Extends a register and gives its new value: `SHA384(old ‖ data)` (`ExtendPCR`).
    pub fn extend(&self, index: u16, data: &[u8]) -> Result<Vec<u8>, NsmError> {
        let request = with_fields("ExtendPCR", 2, |fields| {
            fields.str("index")?.u16(index)?.str("data")?.bytes(data)?.ok()
        })?;
        Ok(Answer::new(&self.ask(&request)?).bytes_of("ExtendPCR", "data")?)
    }

    /// Makes one register read-only until the enclave ends (`LockPCR`).
    pub fn lock(&self, index: u16) -> Result<(), NsmError> {
        let request = with_fields("LockPCR", 1, |fields| fields.str("index")?.u16(index)?.ok())?;
        Ok(Answer::new(&self.ask(&request)?).done("LockPCR")?)
    }

    /// Makes every register below `range` read-only (`LockPCRs`).
    pub fn lock_below(&self, range: u16) -> Result<(), NsmError> {
        let request = with_fields("LockPCRs", 1, |fields| fields.str("range")?.u16(range)?.ok())?;
        Ok(Answer::new(&self.ask(&request)?).done("LockPCRs")?)
    }

    /// A signed attestation document, as COSE bytes (`Attestation`).
    pub fn attest(&self, claims: Claims<'_>) -> Result<Vec<u8>, NsmError> {
        let request = with_fields("Attestation", 3, |fields| {
            optional(fields.str("user_data")?, claims.user_data)?;
            optional(fields.str("nonce")?, claims.nonce)?;
            optional(fields.str("public_key")?, claims.public_key)
        })?;
        Ok(Answer::new(&self.ask(&request)?).bytes_of("Attestation", "document")?)
    }

    fn ask(&self, request: &[u8]) -> Result<Vec<u8>, NsmError> {
        if request.len() > REQUEST_LIMIT {
            let length = request.len();
            return Err(NsmError::Request(format!(
                "it has {length} bytes, the module takes {REQUEST_LIMIT}"
            )));
        }
        let mut room = vec![0; RESPONSE_LIMIT];
        let length = self.exchange(request, &mut room)?;
        room.truncate(length);
        match Answer::new(&room).error() {
            Some(word) => Err(NsmError::Refused(word)),
            None => Ok(room),
        }
    }

    /// One ioctl: the request out, the answer into `room`; gives the answer's length.
    fn exchange(&self, request: &[u8], room: &mut [u8]) -> Result<usize, NsmError> {
        let mut message = Message { request: IoSlice::new(request), response: IoSliceMut::new(room) };
        // SAFETY: NSM_RAW takes an nsm_raw of two iovecs, which IoSlice and IoSliceMut are laid out as; both live on.
        let exchange = unsafe { Updater::<RAW, Message<'_>>::new(&mut message) };
        // SAFETY: the request is made for exactly this number, above.
        unsafe { ioctl(&self.device, exchange) }.map_err(|error| NsmError::Device(error.into()))?;
        Ok(message.response.len())
    }
}

/// `struct nsm_raw` of `linux/nsm.h`. The kernel writes the answer's length into the second iovec.
#[repr(C)]
struct Message<'a> {
    request: IoSlice<'a>,
    response: IoSliceMut<'a>,
}

/// `NSM_IOCTL_RAW`: `_IOWR(0x0A, 0x0, struct nsm_raw)`.
const RAW: Opcode = rustix::ioctl::opcode::read_write::<Message<'_>>(0x0A, 0x0);

type Written = Result<(), EncodeError<std::convert::Infallible>>;

fn bare(name: &str) -> Result<Vec<u8>, NsmError> {
    encode(|out| out.str(name)?.ok())
}

fn with_fields(
    name: &str,
    count: u64,
    fields: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written,
) -> Result<Vec<u8>, NsmError> {
    encode(|out| fields(out.map(1)?.str(name)?.map(count)?))
}

fn encode(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written) -> Result<Vec<u8>, NsmError> {
    let mut out = Encoder::new(Vec::new());
    write(&mut out).map_err(|error| NsmError::Request(error.to_string()))?;
    Ok(out.into_writer())
}

fn optional(out: &mut Encoder<Vec<u8>>, bytes: Option<&[u8]>) -> Written {
    match bytes {
        Some(bytes) => out.bytes(bytes)?.ok(),
        None => out.null()?.ok(),
    }
}

/// An answer being read: a text, or a map from a name to a map of fields.
struct Answer<'a> {
    bytes: &'a [u8],
    decoder: Decoder<'a>,
}

impl<'a> Answer<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, decoder: Decoder::new(bytes) }
    }

    /// The word of `{"Error": word}`, if that is the answer.
    fn error(&self) -> Option<String> {
        let mut decoder = Decoder::new(self.bytes);
        decoder.map().ok()?;
        (decoder.str().ok()? == "Error").then(|| decoder.str().unwrap_or("no reason").to_owned())
    }

    fn done(&mut self, name: &str) -> Result<(), DecodeError> {
        expect_name(self.decoder.str()?, name)
    }

    /// Enters `{name: {…}}` and gives the number of fields.
    fn fields(&mut self, name: &str) -> Result<u64, DecodeError> {
        self.decoder.map()?;
        expect_name(self.decoder.str()?, name)?;
        self.decoder.map()?.ok_or_else(|| DecodeError::message("fields of unknown number"))
    }

    fn bytes_of(&mut self, name: &str, field: &str) -> Result<Vec<u8>, DecodeError> {
        let mut found = None;
        for _ in 0..self.fields(name)? {
            if self.decoder.str()? == field {
                found = Some(self.decoder.bytes()?.to_vec());
            } else {
                self.decoder.skip()?;
            }
        }
        found.ok_or_else(|| DecodeError::message(format!("{name} without {field}")))
    }

    fn pcr(&mut self) -> Result<Pcr, DecodeError> {
        let mut pcr = Pcr { locked: false, value: Vec::new() };
        for _ in 0..self.fields("DescribePCR")? {
            match self.decoder.str()? {
                "lock" => pcr.locked = self.decoder.bool()?,
                "data" => pcr.value = self.decoder.bytes()?.to_vec(),
                _ => self.decoder.skip()?,
            }
        }
        if pcr.value.is_empty() { Err(DecodeError::message("DescribePCR without data")) } else { Ok(pcr) }
    }

    fn description(&mut self) -> Result<Description, DecodeError> {
        let mut seen = Description {
            version: (0, 0, 0),
            module_id: String::new(),
            max_pcrs: 0,
            locked_pcrs: Vec::new(),
            digest: String::new(),
        };
        for _ in 0..self.fields("DescribeNSM")? {
            match self.decoder.str()? {
                "version_major" => seen.version.0 = self.decoder.u16()?,
                "version_minor" => seen.version.1 = self.decoder.u16()?,
                "version_patch" => seen.version.2 = self.decoder.u16()?,
                "module_id" => self.decoder.str()?.clone_into(&mut seen.module_id),
                "max_pcrs" => seen.max_pcrs = self.decoder.u16()?,
                "locked_pcrs" => seen.locked_pcrs = self.numbers()?,
                "digest" => self.decoder.str()?.clone_into(&mut seen.digest),
                _ => self.decoder.skip()?,
            }
        }
        Ok(seen)
    }

    fn numbers(&mut self) -> Result<Vec<u16>, DecodeError> {
        let length = self.decoder.array()?;
        let mut numbers = Vec::new();
        while numbers.len() < PCR_LIMIT {
            let at_end = match length {
                Some(length) => numbers.len() >= usize::try_from(length).unwrap_or(usize::MAX),
                None => self.decoder.datatype()? == Type::Break,
            };
            if at_end {
                break;
            }
            numbers.push(self.decoder.u16()?);
        }
        if length.is_none() {
            self.decoder.skip()?;
        }
        Ok(numbers)
    }
}

fn expect_name(seen: &str, name: &str) -> Result<(), DecodeError> {
    if seen == name {
        Ok(())
    } else {
        Err(DecodeError::message(format!("an answer to {seen}, not to {name}")))
    }
}

impl fmt::Display for NsmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => write!(f, "the Nitro Security Module cannot be reached: {error}"),
            Self::Request(why) => write!(f, "a request to the Nitro Security Module cannot be made: {why}"),
            Self::Refused(word) => write!(f, "the Nitro Security Module refuses: {word}"),
            Self::Answer(why) => write!(f, "the Nitro Security Module answers nonsense: {why}"),
        }
    }
}

impl std::error::Error for NsmError {}

impl From<DecodeError> for NsmError {
    fn from(error: DecodeError) -> Self {
        Self::Answer(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_vendors_bytes() {
        assert_eq!(bare("GetRandom").unwrap(), b"\x69GetRandom");
        let pcr = with_fields("DescribePCR", 1, |fields| fields.str("index")?.u16(4)?.ok()).unwrap();
        assert_eq!(pcr, b"\xa1\x6bDescribePCR\xa1\x65index\x04");
        let attest = with_fields("Attestation", 3, |fields| {
            optional(fields.str("user_data")?, None)?;
            optional(fields.str("nonce")?, Some(b"n"))?;
            optional(fields.str("public_key")?, None)
        });
        assert_eq!(
            attest.unwrap(),
            b"\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\x41n\x6apublic_key\xf6"
        );
    }

    #[test]
    fn a_register_is_read_whatever_the_order_of_its_fields() {
        let answer = b"\xa1\x6bDescribePCR\xa2\x64data\x43abc\x64lock\xf5";
        let pcr = Answer::new(answer).pcr().unwrap();
        assert_eq!(pcr, Pcr { locked: true, value: b"abc".to_vec() });
    }

    #[test]
    fn a_description_is_read_with_its_locked_registers() {
        let answer = b"\xa1\x6bDescribeNSM\xa4\x6dversion_major\x01\x69module_id\x62id\x6blocked_pcrs\x9f\x00\x01\xff\x66digest\x66SHA384";
        let seen = Answer::new(answer).description().unwrap();
        assert_eq!((seen.version, seen.locked_pcrs, seen.digest.as_str()), ((1, 0, 0), vec![0, 1], "SHA384"));
    }

    #[test]
    fn a_refusal_is_told_in_the_modules_word() {
        assert_eq!(Answer::new(b"\xa1\x65Error\x6dReadOnlyIndex").error().unwrap(), "ReadOnlyIndex");
        assert_eq!(Answer::new(b"\xa1\x69GetRandom\xa1\x66random\x41x").error(), None);
    }

    #[test]
    fn an_answer_to_another_request_is_refused() {
        let error = Answer::new(b"\x67LockPCR").done("LockPCRs").unwrap_err();
        assert!(error.to_string().contains("LockPCRs"));
    }

    #[test]
    fn every_truncation_of_an_answer_is_refused_and_none_panics() {
        let answer: &[u8] = b"\xa1\x6bDescribePCR\xa2\x64lock\xf5\x64data\x43abc";
        for length in 0..answer.len() {
            assert!(Answer::new(&answer[..length]).pcr().is_err());
        }
    }
}
