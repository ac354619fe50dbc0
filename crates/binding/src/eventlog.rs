//! The log of what happened after the launch, and its replay into registers.
//!
//! Invariant: a log has one encoding, and two different logs have different heads. Nothing in a log is authentic until
//! a register or the report data has confirmed its replay.
//!
//! docs/evidence.md specifies the format. Init extends the first event, whose encoding is in `cloister-wire`; both are
//! under test to have the same bytes.

use alloc::format;
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

/// The kind of the event after which [`EVENT_REGISTER`] is locked and nothing more is recorded in it. Its data is the name of
/// the service that requested it.
pub const LOCKED: &str = "locked";

/// Maximum bytes of a label, which a service chooses for its event.
pub const LABEL_LIMIT: usize = 40;

/// Maximum bytes of a kind: that of a service's event, with the longest name (63 bytes) and label.
pub const KIND_LIMIT: usize = 128;

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
    digests: Digests,
}

/// What a log comes to: its head, and the registers that it is extended into. It grows with the log, event by event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    head: Value,
    boot: Value,
    events: Value,
    files: Value,
    rtmr3: Value,
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
    /// The end of the boot.
    fn boot() -> Self {
        Self { register: BOOT_REGISTER, kind: BOOT.into(), data: Vec::new() }
    }

    /// The end of [`EVENT_REGISTER`], as the service `name` requested it.
    pub fn locked(name: &str) -> Result<Self, LogError> {
        Self::new(EVENT_REGISTER, LOCKED, name.as_bytes())
    }

    /// An event: its register ([`BOOT_REGISTER`], [`EVENT_REGISTER`] or [`FILE_REGISTER`]), a kind of lower-case
    /// letters, digits, `-` and `.`, and data of at most [`DATA_LIMIT`] bytes.
    pub fn new(register: u16, kind: &str, data: &[u8]) -> Result<Self, LogError> {
        if !(BOOT_REGISTER..=FILE_REGISTER).contains(&register) {
            return Err(LogError::Event("its register is not 16, 17 or 18"));
        }
        if kind.is_empty() || kind.len() > KIND_LIMIT || !kind.bytes().all(is_letter) {
            return Err(LogError::Event("its kind is not 1 to 128 lower-case letters, digits, `-` or `.`"));
        }
        if data.len() > DATA_LIMIT {
            return Err(LogError::Event("its data has more than 1024 bytes"));
        }
        Ok(Self { register, kind: kind.into(), data: data.into() })
    }

    /// An event that a service records under a label of its choice: `service.NAME.LABEL` in [`EVENT_REGISTER`]. A name has no
    /// dot, so that no label can imitate another service.
    pub fn of_service(name: &str, label: &str, data: &[u8]) -> Result<Self, LogError> {
        if label.is_empty() || label.len() > LABEL_LIMIT || !label.bytes().all(is_letter) {
            return Err(LogError::Event("its label is not 1 to 40 lower-case letters, digits, `-` or `.`"));
        }
        Self::new(EVENT_REGISTER, &format!("service.{name}.{label}"), data)
    }

    /// The service that has recorded it, if one has.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        let named = self.kind.strip_prefix("service.")?;
        named.split_once('.').filter(|_| self.register == EVENT_REGISTER).map(|(name, _)| name)
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
    #[must_use]
    pub fn entry(&self) -> Vec<u8> {
        let mut bytes = Vec::from(self.register.to_be_bytes());
        bytes.extend(self.extension());
        bytes
    }
}

impl Log {
    /// The log of an enclave that has booted: one event.
    #[must_use]
    pub fn booted() -> Self {
        let mut log = Self::default();
        // One event is within the limits of any log.
        log.push(Event::boot()).unwrap_or_default();
        log
    }

    /// Reads an encoded log.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        match Self::read(bytes)? {
            (log, None) => Ok(log),
            (log, Some(_)) => Err(LogError::Malformed(log.length, TRUNCATED)),
        }
    }

    /// Reads an encoded log whose last entry may have been cut off while it was written, and leaves that one out.
    pub fn parse_written(bytes: &[u8]) -> Result<Self, LogError> {
        Self::read(bytes).map(|(log, _)| log)
    }

    /// The complete entries, and the bytes of an incomplete one after them.
    fn read(bytes: &[u8]) -> Result<(Self, Option<&[u8]>), LogError> {
        if bytes.len() > LOG_LIMIT {
            return Err(LogError::Long);
        }
        let mut log = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let entry = rest;
            match read(&mut rest) {
                Ok(event) => log.push(event)?,
                Err(TRUNCATED) => return Ok((log, Some(entry))),
                Err(why) => return Err(LogError::Malformed(log.length, why)),
            }
        }
        Ok((log, None))
    }

    /// Adds an event, if the log stays one that [`Log::parse`] reads.
    pub fn push(&mut self, event: Event) -> Result<(), LogError> {
        let length = self.length.saturating_add(event.entry().len());
        if self.events.len() >= EVENTS_LIMIT || length > LOG_LIMIT {
            return Err(LogError::Long);
        }
        self.length = length;
        self.digests.add(&event);
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

    /// What it comes to.
    #[must_use]
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// [`Digests::head`].
    #[must_use]
    pub fn head(&self) -> Value {
        self.digests.head
    }

    /// [`Digests::nitro_register`].
    #[must_use]
    pub fn nitro_register(&self, register: u16) -> Value {
        self.digests.nitro_register(register)
    }

    /// [`Digests::rtmr3`].
    #[must_use]
    pub fn rtmr3(&self) -> Value {
        self.digests.rtmr3
    }
}

impl Default for Digests {
    /// Those of a log without events.
    fn default() -> Self {
        let zeros = [0; 48];
        Self { head: zeros, boot: zeros, events: zeros, files: zeros, rtmr3: zeros }
    }
}

impl Digests {
    /// Adds the next event of the log.
    pub fn add(&mut self, event: &Event) {
        let (entry, extension) = (event.entry(), event.extension());
        self.head = extend(&self.head, &entry);
        self.rtmr3 = extend(&self.rtmr3, &Sha384::digest(&entry));
        let register = match event.register {
            BOOT_REGISTER => &mut self.boot,
            EVENT_REGISTER => &mut self.events,
            _ => &mut self.files,
        };
        *register = extend(register, &extension);
    }

    /// The digest of the whole log, as report data contains it: 48 zero bytes, extended with each entry.
    #[must_use]
    pub fn head(&self) -> Value {
        self.head
    }

    /// The value of this register on AWS Nitro: 48 zero bytes, extended with each of its events.
    #[must_use]
    pub fn nitro_register(&self, register: u16) -> Value {
        match register {
            BOOT_REGISTER => self.boot,
            EVENT_REGISTER => self.events,
            FILE_REGISTER => self.files,
            _ => [0; 48],
        }
    }

    /// The value of RTMR3 under Intel TDX: 48 zero bytes, extended with the digest of each entry, as the processor
    /// extends with 48 bytes.
    #[must_use]
    pub fn rtmr3(&self) -> Value {
        self.rtmr3
    }
}

/// What kinds and labels consist of.
fn is_letter(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')
}

/// A register after an extension: `SHA384(old ‖ data)`.
fn extend(old: &Value, data: &[u8]) -> Value {
    Sha384::new().chain_update(old).chain_update(data).finalize().into()
}

/// Why an entry could not be read of which only the beginning is there.
const TRUNCATED: &str = "it is truncated";

/// Reads one entry, and advances `rest` past it.
fn read(rest: &mut &[u8]) -> Result<Event, &'static str> {
    let (register, after) = rest.split_first_chunk().ok_or(TRUNCATED)?;
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
    let (length, after) = rest.split_first_chunk().ok_or(TRUNCATED)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > limit {
        return Err("a length in it exceeds the limit");
    }
    let (part, after) = after.split_at_checked(length).ok_or(TRUNCATED)?;
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
