//! The log of what happened after the launch, and its replay into registers.
//!
//! Invariant: a log has one encoding, and two different logs have different heads. Nothing in a log is authentic until
//! a register or the report data has confirmed its replay.
//!
//! docs/evidence.md specifies the format. Init extends the first event, whose encoding is in `cloister-wire`; both are
//! under test to have the same bytes.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest as _, Sha384};

use crate::length;

/// Separates Cloister's events from everything else that may be extended into a register (domain separation).
pub const DOMAIN: &str = "cloister event 1";

/// The list of the boot: init adds one event when the boot is complete, and locks the register.
pub const BOOT_REGISTER: u16 = 16;

/// The list of events while the enclave runs.
pub const EVENT_REGISTER: u16 = 17;

/// The list of files that the enclave received.
pub const FILE_REGISTER: u16 = 18;

/// The kind of the event that ends the boot. It has no data: the launch measured what was booted.
pub const BOOT: &str = "boot";

/// Maximum bytes of a kind: a word or two.
pub const KIND_LIMIT: usize = 64;

/// Maximum bytes of an event's data: larger things are represented by their digest.
pub const DATA_LIMIT: usize = 1024;

/// Maximum number of events: a verifier hashes all of them for each piece of evidence.
pub const EVENTS_LIMIT: usize = 4096;

/// Maximum bytes of an encoded log.
pub const LOG_LIMIT: usize = 512 << 10;

/// The value of a register, or of a log's head.
pub type Value = [u8; 48];

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    register: u16,
    kind: String,
    data: Vec<u8>,
}

/// The events of an enclave, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    events: Vec<Event>,
    /// Bytes of the encoded log.
    length: usize,
}

/// Why an event or a log was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// An event is outside the limits. The text names the limit.
    Event(&'static str),
    /// The bytes from this position on are not an event. The text gives the reason.
    Malformed(usize, &'static str),
    /// The log has too many bytes or events.
    Long,
}

impl Event {
    /// An event: its register ([`BOOT_REGISTER`], [`EVENT_REGISTER`] or [`FILE_REGISTER`]), a kind of lower-case
    /// letters, digits, `-` and `.`, and data of at most [`DATA_LIMIT`] bytes.
    pub fn new(register: u16, kind: &str, data: &[u8]) -> Result<Self, LogError> {
        if !(BOOT_REGISTER..=FILE_REGISTER).contains(&register) {
            return Err(LogError::Event("its register is not 16, 17 or 18"));
        }
        let letter = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        if kind.is_empty() || kind.len() > KIND_LIMIT || !kind.bytes().all(letter) {
            return Err(LogError::Event("its kind is not 1 to 64 lower-case letters, digits, `-` or `.`"));
        }
        if data.len() > DATA_LIMIT {
            return Err(LogError::Event("its data has more than 1024 bytes"));
        }
        Ok(Self { register, kind: kind.into(), data: data.into() })
    }

    /// The register that it belongs to, by its number on AWS Nitro. Other platforms have fewer registers, or none.
    #[must_use]
    pub fn register(&self) -> u16 {
        self.register
    }

    /// What kind of event it is.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bytes that are extended into a register.
    #[must_use]
    pub fn extension(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [DOMAIN.as_bytes(), self.kind.as_bytes(), &self.data] {
            bytes.extend(length(part));
            bytes.extend(part);
        }
        bytes
    }

    /// The event in an encoded log: its register, and what is extended into it.
    fn entry(&self) -> Vec<u8> {
        let mut bytes = Vec::from(self.register.to_be_bytes());
        bytes.extend(self.extension());
        bytes
    }
}

impl Log {
    /// The log of an enclave that has booted: one event.
    #[must_use]
    pub fn booted() -> Self {
        let boot = Event { register: BOOT_REGISTER, kind: BOOT.into(), data: Vec::new() };
        Self { length: boot.entry().len(), events: Vec::from([boot]) }
    }

    /// Reads an encoded log.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        if bytes.len() > LOG_LIMIT {
            return Err(LogError::Long);
        }
        let mut log = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let place = bytes.len().saturating_sub(rest.len());
            let event = read(&mut rest).map_err(|why| LogError::Malformed(place, why))?;
            log.push(event)?;
        }
        Ok(log)
    }

    /// Adds an event, if the log stays one that [`Log::parse`] reads.
    pub fn push(&mut self, event: Event) -> Result<(), LogError> {
        let length = self.length.saturating_add(event.entry().len());
        if self.events.len() >= EVENTS_LIMIT || length > LOG_LIMIT {
            return Err(LogError::Long);
        }
        self.length = length;
        self.events.push(event);
        Ok(())
    }

    /// Its events.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Whether it begins with the event that ends the boot, which is the only one in its register.
    #[must_use]
    pub fn begins_with_the_boot(&self) -> bool {
        let mut boot = self.events.iter().filter(|event| event.register == BOOT_REGISTER);
        self.events.first().is_some_and(|event| event.kind == BOOT && event.data.is_empty())
            && boot.next() == self.events.first()
            && boot.next().is_none()
    }

    /// The encoded log, as [`Log::parse`] reads it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.events.iter().flat_map(Event::entry).collect()
    }

    /// The digest of the whole log, as report data contains it: 48 zero bytes, extended with each entry.
    #[must_use]
    pub fn head(&self) -> Value {
        self.events.iter().fold([0; 48], |head, event| extend(&head, &event.entry()))
    }

    /// The value of this register on AWS Nitro: 48 zero bytes, extended with each of its events.
    #[must_use]
    pub fn nitro_register(&self, register: u16) -> Value {
        let events = self.events.iter().filter(|event| event.register == register);
        events.fold([0; 48], |value, event| extend(&value, &event.extension()))
    }

    /// The value of RTMR3 under Intel TDX: 48 zero bytes, extended with the digest of each entry, as the processor
    /// extends with 48 bytes.
    #[must_use]
    pub fn rtmr3(&self) -> Value {
        self.events.iter().fold([0; 48], |value, event| extend(&value, &Sha384::digest(event.entry())))
    }
}

/// A register after an extension: `SHA384(old ‖ data)`.
fn extend(old: &Value, data: &[u8]) -> Value {
    Sha384::new().chain_update(old).chain_update(data).finalize().into()
}

/// Reads one entry, and advances `rest` past it.
fn read(rest: &mut &[u8]) -> Result<Event, &'static str> {
    let (register, after) = rest.split_first_chunk().ok_or("it is truncated")?;
    *rest = after;
    if part(rest, DOMAIN.len())? != DOMAIN.as_bytes() {
        return Err("its domain is not `cloister event 1`");
    }
    let kind = str::from_utf8(part(rest, KIND_LIMIT)?).map_err(|_| "its kind is not text")?;
    let data = part(rest, DATA_LIMIT)?;
    Event::new(u16::from_be_bytes(*register), kind, data).map_err(|error| match error {
        LogError::Event(why) | LogError::Malformed(_, why) => why,
        LogError::Long => "it is too long",
    })
}

/// Reads bytes that are preceded by their length.
fn part<'a>(rest: &mut &'a [u8], limit: usize) -> Result<&'a [u8], &'static str> {
    let (length, after) = rest.split_first_chunk().ok_or("it is truncated")?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > limit {
        return Err("a length in it exceeds the limit");
    }
    let (part, after) = after.split_at_checked(length).ok_or("it is truncated")?;
    *rest = after;
    Ok(part)
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(why) => write!(f, "an event is outside its limits: {why}"),
            Self::Malformed(place, why) => write!(f, "malformed event at byte {place} of the log: {why}"),
            Self::Long => {
                write!(f, "the log exceeds its limits of {EVENTS_LIMIT} events and {LOG_LIMIT} bytes")
            }
        }
    }
}

impl core::error::Error for LogError {}

#[cfg(test)]
mod tests;
