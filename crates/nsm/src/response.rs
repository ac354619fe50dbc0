//! Responses, parsed as hostile bytes.
//!
//! Invariant: a response is parsed to its last byte or refused, and the result is bounded. Unknown fields are skipped, so that
//! a newer module may send more.

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error as DecodeError};

use crate::model::{Description, NsmError, Pcr, RANDOM_LIMIT, RESPONSE_LIMIT};

/// Maximum number of registers that a module may list; a real one has 32.
const PCR_LIMIT: usize = 256;

/// Bytes of a register, for each hash that a module may use: SHA-256, SHA-384, SHA-512.
const PCR_LENGTHS: [usize; 3] = [32, 48, 64];

/// The names of these hashes (`Digest` of the vendor's library).
const DIGESTS: [&str; 3] = ["SHA256", "SHA384", "SHA512"];

/// Maximum bytes of a text; a module's name has about 40, a reason at most 16.
const TEXT_LIMIT: usize = 256;

/// What is wrong with a response.
pub(crate) type Malformed = DecodeError;

/// A response being parsed: a text, or a map from a name to a map of fields.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    decoder: Decoder<'a>,
}

impl<'a> Response<'a> {
    /// Parses all of `bytes` with `read`, unless they are a refusal.
    pub(crate) fn read<T>(
        bytes: &'a [u8],
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<T, NsmError> {
        let malformed = |error: Malformed| NsmError::Response(error.to_string());
        if bytes.len() > RESPONSE_LIMIT {
            let length = bytes.len();
            return Err(NsmError::Response(format!("{length} bytes, the limit is {RESPONSE_LIMIT}")));
        }
        let mut response = Self { decoder: Decoder::new(bytes) };
        if let Some(mut refusal) = response.refusal() {
            let reason = refusal.text().map_err(malformed)?;
            refusal.end().map_err(malformed)?;
            return Err(NsmError::Refused(reason));
        }
        let value = read(&mut response).map_err(malformed)?;
        response.end().map_err(malformed)?;
        Ok(value)
    }

    /// The response after `{"Error": `, if it begins so.
    fn refusal(&self) -> Option<Self> {
        let mut decoder = self.decoder.clone();
        (decoder.map().ok()? == Some(1) && decoder.str().ok()? == "Error").then_some(Self { decoder })
    }

    /// Checks that no bytes follow.
    fn end(&self) -> Result<(), Malformed> {
        let rest = self.decoder.input().len().saturating_sub(self.decoder.position());
        if rest == 0 { Ok(()) } else { Err(Malformed::message(format!("trailing bytes: {rest}"))) }
    }

    /// The response to a request that returns nothing.
    pub(crate) fn done(&mut self, name: &str) -> Result<(), Malformed> {
        expect_name(self.decoder.str()?, name)
    }

    pub(crate) fn random(&mut self) -> Result<Vec<u8>, Malformed> {
        let bytes = self.bytes_of("GetRandom", "random")?;
        if (1..=RANDOM_LIMIT).contains(&bytes.len()) { Ok(bytes) } else { Err(length(&bytes)) }
    }

    pub(crate) fn extended(&mut self) -> Result<Vec<u8>, Malformed> {
        register(&self.bytes_of("ExtendPCR", "data")?)
    }

    pub(crate) fn document(&mut self) -> Result<Vec<u8>, Malformed> {
        self.bytes_of("Attestation", "document")
    }

    pub(crate) fn pcr(&mut self) -> Result<Pcr, Malformed> {
        let (mut locked, mut value) = (None, None);
        for _ in 0..self.fields("DescribePCR")? {
            match self.decoder.str()? {
                "lock" => locked = Some(self.decoder.bool()?),
                "data" => value = Some(register(self.decoder.bytes()?)?),
                _ => self.decoder.skip()?,
            }
        }
        let (Some(locked), Some(value)) = (locked, value) else {
            return Err(Malformed::message("DescribePCR without lock or data"));
        };
        Ok(Pcr { locked, value })
    }

    pub(crate) fn description(&mut self) -> Result<Description, Malformed> {
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
                "module_id" => seen.module_id = self.text()?,
                "max_pcrs" => seen.max_pcrs = self.decoder.u16()?,
                "locked_pcrs" => seen.locked_pcrs = self.numbers()?,
                "digest" => seen.digest = self.text()?,
                _ => self.decoder.skip()?,
            }
        }
        if DIGESTS.contains(&seen.digest.as_str()) {
            Ok(seen)
        } else {
            Err(Malformed::message("DescribeNSM without a known digest"))
        }
    }

    /// Enters `{name: {…}}` and returns the number of fields.
    fn fields(&mut self, name: &str) -> Result<u64, Malformed> {
        if self.decoder.map()? != Some(1) {
            return Err(Malformed::message("not a map with one entry"));
        }
        expect_name(self.decoder.str()?, name)?;
        self.decoder.map()?.ok_or_else(|| Malformed::message("a map of indefinite length"))
    }

    fn bytes_of(&mut self, name: &str, field: &str) -> Result<Vec<u8>, Malformed> {
        let mut found = None;
        for _ in 0..self.fields(name)? {
            if self.decoder.str()? == field {
                found = Some(self.decoder.bytes()?.to_vec());
            } else {
                self.decoder.skip()?;
            }
        }
        found.ok_or_else(|| Malformed::message(format!("{name} without {field}")))
    }

    /// A text that is safe to print on a terminal.
    fn text(&mut self) -> Result<String, Malformed> {
        let text = self.decoder.str()?;
        if text.len() <= TEXT_LIMIT && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(text.to_owned())
        } else {
            Err(Malformed::message("a text is too long or not printable"))
        }
    }

    fn numbers(&mut self) -> Result<Vec<u16>, Malformed> {
        let length = self.decoder.array()?;
        let mut numbers = Vec::new();
        loop {
            let at_end = match length {
                Some(length) => numbers.len() >= usize::try_from(length).unwrap_or(usize::MAX),
                None => self.decoder.datatype()? == Type::Break,
            };
            if at_end {
                break;
            }
            if numbers.len() >= PCR_LIMIT {
                return Err(Malformed::message(format!("more than {PCR_LIMIT} locked registers")));
            }
            numbers.push(self.decoder.u16()?);
        }
        if length.is_none() {
            self.decoder.skip()?;
        }
        Ok(numbers)
    }
}

fn register(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    if PCR_LENGTHS.contains(&bytes.len()) { Ok(bytes.to_vec()) } else { Err(length(bytes)) }
}

fn length(bytes: &[u8]) -> Malformed {
    Malformed::message(format!("a value of {} bytes", bytes.len()))
}

fn expect_name(seen: &str, name: &str) -> Result<(), Malformed> {
    if seen == name {
        Ok(())
    } else {
        // The received name is hostile text and is not shown.
        Err(Malformed::message(format!("not a response to {name}")))
    }
}

#[cfg(test)]
mod tests;
