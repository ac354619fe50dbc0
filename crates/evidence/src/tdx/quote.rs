//! A TDX quote of version 4 or 5: a header, the TD's report, the quoting enclave's report and Intel's certificates.
//!
//! Invariant: every length in a quote is exact. Nothing lies between or after its parts but zeros behind its end, which quoting
//! services append to fill their buffers. Parsing checks no signature: only [`super::verify`] makes a quote trustworthy.
//!
//! Source: Intel TDX DCAP Quoting Library API, revision 0.9 and later, appendix A (quote formats 4 and 5); Intel TDX module ABI
//! specification 348551 for the attributes.

use alloc::string::String;

use crate::bytes::{Cursor, is_zero};
use crate::flags;

/// The longest quote that is read, in bytes. Quotes have some 5,000; services fill them up to 8,192 or 16,384.
pub const MAX_QUOTE: usize = 32_768;
/// The TEE type of TDX.
const TEE_TDX: u32 = 0x81;
/// ECDSA with P-256, the only attestation key type that Intel's services certify.
const ECDSA_P256: u16 = 2;
/// Intel's quoting enclave: 939a7233-f79c-4ca9-940a-0db3957f0607.
const INTEL_QE: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
/// Certification data that contains the quoting enclave's report.
const CERTIFIED_BY_QE_REPORT: u16 = 6;
/// Certification data that contains the certificates of the platform's key, in PEM.
const CERTIFIED_BY_CHAIN: u16 = 5;
/// The length of the quoting enclave's authentication data.
const QE_AUTH_LEN: u16 = 32;

/// Why bytes are not a TDX quote that this release reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// Longer than any quote.
    #[error("{0} bytes, more than the limit of {MAX_QUOTE}")]
    TooLong(usize),
    /// The bytes end inside the quote.
    #[error("truncated: {0} bytes")]
    Truncated(usize),
    /// Version 3 is of SGX; newer ones are not known.
    #[error("quote version {0} is not supported: this release reads versions 4 and 5")]
    Version(u16),
    /// The quote is of SGX, or of something else.
    #[error("TEE type {0:#x} is not TDX (0x81)")]
    TeeType(u32),
    /// A key type that Intel's services do not certify.
    #[error("attestation key type {0} is not supported: only 2, ECDSA with P-256")]
    KeyType(u16),
    /// The quote was made by a quoting enclave that is not Intel's.
    #[error("the quoting enclave is not Intel's")]
    Vendor,
    /// A report of SGX, or one of an unknown form.
    #[error("body type {0} is not supported: only 2, 3 and 4, reports of a TD")]
    BodyType(u16),
    /// The body's length does not belong to its type.
    #[error("the body has {found} bytes, but one of type {body_type} has {expected}")]
    BodyLength {
        /// The body's type.
        body_type: u16,
        /// The length that the quote states.
        found: usize,
        /// The length of bodies of this type.
        expected: usize,
    },
    /// Certification data without the quoting enclave's report, or without certificates.
    #[error("certification data of type {found} is not supported here: expected {expected}")]
    Certification {
        /// The type that the quote states.
        found: u16,
        /// The only supported one.
        expected: u16,
    },
    /// The quoting enclave's authentication data has another length.
    #[error("the quoting enclave's authentication data has {0} bytes, expected 32")]
    AuthLength(u16),
    /// A length leaves bytes over.
    #[error("{0} unexpected bytes inside the quote")]
    Excess(usize),
    /// Bytes after the quote's end are not zero.
    #[error("the {0} bytes after the quote are not zero")]
    Trailing(usize),
}

/// The report of a TD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdReport {
    /// The versions of the TDX module and of what it depends on, when the TD was launched.
    pub tee_tcb_svn: [u8; 16],
    /// The measurement of the TDX module.
    pub mr_seam: [u8; 48],
    /// The signer of the TDX module; zero if it is Intel.
    pub mr_signer_seam: [u8; 48],
    /// The attributes of the TDX module.
    pub seam_attributes: [u8; 8],
    /// The attributes of the TD.
    pub attributes: Attributes,
    /// The processor features that the TD may use.
    pub xfam: u64,
    /// The measurement of the TD's initial content, SHA-384.
    pub mr_td: [u8; 48],
    /// An identifier of the configuration, set by the host.
    pub mr_config_id: [u8; 48],
    /// An identifier of the owner, set by the host.
    pub mr_owner: [u8; 48],
    /// An identifier of the owner's configuration, set by the host.
    pub mr_owner_config: [u8; 48],
    /// The runtime measurement registers.
    pub rtmr: [[u8; 48]; 4],
    /// What the guest asked to be included.
    pub report_data: [u8; 64],
    /// Since TDX 1.5.
    pub td15: Option<Td15>,
}

/// The fields that TDX 1.5 added. The extended body of type 4 has more, none of which is appraised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Td15 {
    /// The versions when the report was made.
    pub tee_tcb_svn2: [u8; 16],
    /// The measurement of service TDs, such as a migration TD.
    pub mr_service_td: [u8; 48],
}

/// The attributes of a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(pub u64);

impl Attributes {
    /// The host can read and change the TD. The whole lowest byte makes a TD untrusted.
    pub const DEBUG: u64 = 1;
    /// All bits that put a TD under debug.
    pub const UNTRUSTED: u64 = 0xff;
    /// Violations of the page tables do not become exceptions, by which a host could attack a guest.
    pub const SEPT_VE_DISABLE: u64 = 1 << 28;
    /// The TD can be migrated.
    pub const MIGRATABLE: u64 = 1 << 29;
    /// Performance counters are usable.
    pub const PERFMON: u64 = 1 << 63;

    /// The names of all bits that are set in `bits`.
    #[must_use]
    pub fn names(bits: u64) -> String {
        flags::names(bits, &ATTRIBUTE_NAMES)
    }

    /// The bit of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<u64> {
        flags::of_name(name, &ATTRIBUTE_NAMES)
    }

    /// Whether all of `bits` are set.
    #[must_use]
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }
}

/// Attributes other than those of debugging, as Linux names them (arch/x86/include/asm/shared/tdx.h).
const ATTRIBUTE_NAMES: [(u64, &str); 8] = [
    (1 << 16, "ICSSD"),
    (1 << 27, "LASS"),
    (Attributes::SEPT_VE_DISABLE, "SEPT_VE_DISABLE"),
    (Attributes::MIGRATABLE, "MIGRATABLE"),
    (1 << 30, "PKS"),
    (1 << 31, "KL"),
    (1 << 62, "TPA"),
    (Attributes::PERFMON, "PERFMON"),
];

/// The content of a quote whose signatures have not been checked.
#[derive(Clone, Debug)]
pub struct Quote<'a> {
    /// The quote's version, 4 or 5.
    pub version: u16,
    /// The TD's report.
    pub report: TdReport,
    /// The last 32 bytes of the quoting enclave's report data, which must be zero.
    pub(crate) qe_report_tail: &'a [u8],
    /// The certificates of the platform's key, in PEM.
    pub(crate) certificates: &'a [u8],
    /// The quote without the bytes after its end.
    pub(crate) bytes: &'a [u8],
    /// The number of zeros after its end.
    pub padding: usize,
}

impl<'a> Quote<'a> {
    /// Reads a quote without checking its signatures.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        if bytes.len() > MAX_QUOTE {
            return Err(QuoteError::TooLong(bytes.len()));
        }
        let truncated = QuoteError::Truncated(bytes.len());
        let mut cursor = Cursor::new(bytes);
        let version = header(&mut cursor).ok_or(truncated)??;
        let body_type = body_type(&mut cursor, version).ok_or(truncated)??;
        let body = body_type.body(&mut cursor).ok_or(truncated)??;
        let signature = cursor.counted().ok_or(truncated)?;
        let padding = cursor.rest();
        if !is_zero(padding) {
            return Err(QuoteError::Trailing(padding.len()));
        }
        let (qe_report_tail, certificates) = signature_data(signature).ok_or(truncated)??;
        let end = bytes.len().saturating_sub(padding.len());
        let bytes = bytes.get(..end).ok_or(truncated)?;
        Ok(Self { version, report: body, qe_report_tail, certificates, bytes, padding: padding.len() })
    }
}

/// The outer `None` means that the bytes end too early.
type Part<T> = Option<Result<T, QuoteError>>;

/// Reads the header and returns the version.
fn header(cursor: &mut Cursor<'_>) -> Part<u16> {
    let version = cursor.u16()?;
    let key_type = cursor.u16()?;
    let tee_type = cursor.u32()?;
    cursor.slice(4)?;
    let vendor: [u8; 16] = cursor.array()?;
    cursor.slice(20)?;
    Some(match () {
        () if tee_type != TEE_TDX => Err(QuoteError::TeeType(tee_type)),
        () if !matches!(version, 4 | 5) => Err(QuoteError::Version(version)),
        () if key_type != ECDSA_P256 => Err(QuoteError::KeyType(key_type)),
        () if vendor != INTEL_QE => Err(QuoteError::Vendor),
        () => Ok(version),
    })
}

/// The form of the TD's report.
#[derive(Clone, Copy)]
enum BodyType {
    Td10,
    Td15,
    Td15Extended,
}

/// Version 4 has one form of the body; version 5 states it, with its length.
fn body_type(cursor: &mut Cursor<'_>, version: u16) -> Part<BodyType> {
    if version == 4 {
        return Some(Ok(BodyType::Td10));
    }
    let number = cursor.u16()?;
    let found = usize::try_from(cursor.u32()?).ok()?;
    let (body_type, expected) = match number {
        2 => (BodyType::Td10, 584),
        3 => (BodyType::Td15, 648),
        4 => (BodyType::Td15Extended, 885),
        other => return Some(Err(QuoteError::BodyType(other))),
    };
    if found != expected {
        return Some(Err(QuoteError::BodyLength { body_type: number, found, expected }));
    }
    Some(Ok(body_type))
}

/// The bytes that the extended body has after those of TDX 1.5.
const EXTENDED_LEN: usize = 885 - 648;

impl BodyType {
    fn body(self, cursor: &mut Cursor<'_>) -> Part<TdReport> {
        let mut report = td10(cursor)?;
        if matches!(self, Self::Td15 | Self::Td15Extended) {
            report.td15 = Some(Td15 { tee_tcb_svn2: cursor.array()?, mr_service_td: cursor.array()? });
        }
        if matches!(self, Self::Td15Extended) {
            cursor.slice(EXTENDED_LEN)?;
        }
        Some(Ok(report))
    }
}

fn td10(cursor: &mut Cursor<'_>) -> Option<TdReport> {
    Some(TdReport {
        tee_tcb_svn: cursor.array()?,
        mr_seam: cursor.array()?,
        mr_signer_seam: cursor.array()?,
        seam_attributes: cursor.array()?,
        attributes: Attributes(cursor.u64()?),
        xfam: cursor.u64()?,
        mr_td: cursor.array()?,
        mr_config_id: cursor.array()?,
        mr_owner: cursor.array()?,
        mr_owner_config: cursor.array()?,
        rtmr: [cursor.array()?, cursor.array()?, cursor.array()?, cursor.array()?],
        report_data: cursor.array()?,
        td15: None,
    })
}

/// Signature, attestation key and certification data. Returns the end of the quoting enclave's report data, and the certificates.
fn signature_data(bytes: &[u8]) -> Part<(&[u8], &[u8])> {
    let mut cursor = Cursor::new(bytes);
    cursor.slice(64)?;
    cursor.slice(64)?;
    let outer = match certification(&mut cursor, CERTIFIED_BY_QE_REPORT)? {
        Ok(outer) => outer,
        Err(error) => return Some(Err(error)),
    };
    let mut cursor = Cursor::new(outer);
    cursor.slice(352)?;
    let tail = cursor.slice(32)?;
    cursor.slice(64)?;
    let length = cursor.u16()?;
    if length != QE_AUTH_LEN {
        return Some(Err(QuoteError::AuthLength(length)));
    }
    cursor.slice(usize::from(length))?;
    Some(certification(&mut cursor, CERTIFIED_BY_CHAIN)?.map(|certificates| (tail, certificates)))
}

/// Certification data of the expected type, which ends where its surroundings end.
fn certification<'a>(cursor: &mut Cursor<'a>, expected: u16) -> Part<&'a [u8]> {
    let found = cursor.u16()?;
    let data = cursor.counted()?;
    let excess = cursor.rest().len();
    Some(match () {
        () if found != expected => Err(QuoteError::Certification { found, expected }),
        () if excess != 0 => Err(QuoteError::Excess(excess)),
        () => Ok(data),
    })
}
