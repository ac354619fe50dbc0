//! An attestation report: 1184 bytes, of which the first 672 are signed.
//!
//! Invariant: every byte of a report is either in a field of [`Report`] or in its list of reserved bytes that are not zero; unsigned
//! bytes outside the signature are zero. Parsing checks no signature: only [`super::verify`] makes a report trustworthy.
//!
//! Source: AMD 56860, revision 1.58, table 23 (`ATTESTATION_REPORT`) and section 10 (signature format).

use alloc::vec::Vec;

use super::bits::{GuestPolicy, KeyInfo, PlatformInfo};
use super::product::RawTcb;
use crate::bytes::{Cursor, is_zero};

/// The length of a report in bytes, in all versions.
pub const REPORT_LEN: usize = 1184;
/// The length of the signed part.
const SIGNED_LEN: usize = 0x2a0;
/// Versions that are read. Older ones were never released for production; the layout of newer ones is not known.
const VERSIONS: core::ops::RangeInclusive<u32> = 2..=5;
/// The first version with the processor's family, model and stepping.
const VERSION_PROCESSOR: u32 = 3;
/// The first version with the mitigation vectors.
const VERSION_MITIGATIONS: u32 = 5;
/// ECDSA over P-384 with SHA-384, the only signature algorithm (AMD 56860, table 137).
const ECDSA_P384_SHA384: u32 = 1;
/// The length of each of the two numbers of a signature, of which a number of P-384 uses the first 48 bytes.
const NUMBER_LEN: usize = 72;

/// Why bytes are not a report that this release reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Too short or too long.
    #[error("{0} bytes, but a report has {REPORT_LEN}")]
    Length(usize),
    /// A version from before the first release, or a newer one.
    #[error("report version {0} is not supported: this release reads versions 2 to 5")]
    Version(u32),
    /// A signature algorithm other than ECDSA P-384 with SHA-384.
    #[error("signature algorithm {0} is not supported: only 1, ECDSA P-384 with SHA-384")]
    Algorithm(u32),
    /// Unsigned bytes after the signature's numbers, which could be changed without effect, are not zero.
    #[error("unsigned padding of the signature is not zero")]
    Padding,
}

/// The version of the SNP firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareVersion {
    /// Major version.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// Build number.
    pub build: u8,
}

/// The processor that made the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Family, with its extended part.
    pub family: u8,
    /// Model, with its extended part.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

/// Vulnerability mitigations that the firmware has verified, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mitigations {
    /// When the guest was launched.
    pub launch: u64,
    /// When the report was made.
    pub current: u64,
}

/// The content of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The report's version, 2 to 5.
    pub version: u32,
    /// The guest's security version, from its identity block.
    pub guest_svn: u32,
    /// The policy that the guest was launched with.
    pub policy: GuestPolicy,
    /// The guest's family, from its identity block.
    pub family_id: [u8; 16],
    /// The guest's image, from its identity block.
    pub image_id: [u8; 16],
    /// The privilege level that the report was requested for; 0 is the highest.
    pub vmpl: u32,
    /// The firmware that runs.
    pub current_tcb: RawTcb,
    /// The platform's state.
    pub platform: PlatformInfo,
    /// How the report is signed.
    pub key: KeyInfo,
    /// What the guest asked to be included.
    pub report_data: [u8; 64],
    /// The launch digest, SHA-384.
    pub measurement: [u8; 48],
    /// What the host passed at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the identity block, or zero.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that signed the identity key, or zero.
    pub author_key_digest: [u8; 48],
    /// An identifier of this guest, drawn at launch.
    pub report_id: [u8; 32],
    /// The identifier of its migration agent, or all ones.
    pub report_id_ma: [u8; 32],
    /// The TCB version that the signing key is derived from.
    pub reported_tcb: RawTcb,
    /// The processor, since version 3.
    pub processor: Option<Processor>,
    /// The chip's identifier, or zero if the host masks it.
    pub chip_id: [u8; 64],
    /// The oldest firmware that can be installed.
    pub committed_tcb: RawTcb,
    /// The firmware that runs.
    pub current_version: FirmwareVersion,
    /// The oldest firmware that can be installed.
    pub committed_version: FirmwareVersion,
    /// The firmware that ran when the guest was launched.
    pub launch_tcb: RawTcb,
    /// Mitigations, since version 5.
    pub mitigations: Option<Mitigations>,
    /// Offsets of reserved bytes that are not zero: fields of a firmware that is newer than this release.
    pub reserved: Vec<usize>,
}

/// A parsed report with what is needed to check its signature.
#[derive(Clone, Debug)]
pub(crate) struct Parsed<'a> {
    pub(crate) report: Report,
    /// The bytes that are signed.
    pub(crate) signed: &'a [u8],
    /// The signature's numbers, big-endian, as P-384 libraries expect them.
    pub(crate) r: [u8; 48],
    pub(crate) s: [u8; 48],
}

impl Report {
    /// Reads a report without checking its signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        Parsed::read(bytes).map(|parsed| parsed.report)
    }
}

impl<'a> Parsed<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, ReportError> {
        let length = ReportError::Length(bytes.len());
        if bytes.len() != REPORT_LEN {
            return Err(length);
        }
        let (signed, signature) = bytes.split_at_checked(SIGNED_LEN).ok_or(length)?;
        let mut fields =
            Fields { cursor: Cursor::new(signed), len: signed.len(), length, reserved: Vec::new() };
        let version = fields.u32()?;
        if !VERSIONS.contains(&version) {
            return Err(ReportError::Version(version));
        }
        let (report, algorithm) = fields.report(version)?;
        if algorithm != ECDSA_P384_SHA384 {
            return Err(ReportError::Algorithm(algorithm));
        }
        let mut rest = Cursor::new(signature);
        let r = number(rest.slice(NUMBER_LEN).ok_or(length)?)?;
        let s = number(rest.slice(NUMBER_LEN).ok_or(length)?)?;
        if !is_zero(rest.rest()) {
            return Err(ReportError::Padding);
        }
        Ok(Self { report, signed, r, s })
    }
}

/// A number of a signature, from little-endian to big-endian.
fn number(field: &[u8]) -> Result<[u8; 48], ReportError> {
    let (value, padding) = field.split_first_chunk::<48>().ok_or(ReportError::Padding)?;
    if !is_zero(padding) {
        return Err(ReportError::Padding);
    }
    let mut value = *value;
    value.reverse();
    Ok(value)
}

/// Reads fields in order, and collects reserved bytes.
struct Fields<'a> {
    cursor: Cursor<'a>,
    len: usize,
    /// The error if the bytes end too early.
    length: ReportError,
    reserved: Vec<usize>,
}

impl Fields<'_> {
    /// The report's fields after its version, and the signature algorithm.
    fn report(mut self, version: u32) -> Result<(Report, u32), ReportError> {
        let guest_svn = self.u32()?;
        let policy = GuestPolicy(self.u64()?);
        let family_id = self.array()?;
        let image_id = self.array()?;
        let vmpl = self.u32()?;
        let algorithm = self.u32()?;
        let current_tcb = self.tcb()?;
        let platform = PlatformInfo(self.u64()?);
        let key = KeyInfo(self.u32()?);
        self.reserve(4)?;
        let report_data = self.array()?;
        let measurement = self.array()?;
        let host_data = self.array()?;
        let id_key_digest = self.array()?;
        let author_key_digest = self.array()?;
        let report_id = self.array()?;
        let report_id_ma = self.array()?;
        let reported_tcb = self.tcb()?;
        let processor = self.processor(version)?;
        let chip_id = self.array()?;
        let committed_tcb = self.tcb()?;
        let current_version = self.firmware()?;
        let committed_version = self.firmware()?;
        let launch_tcb = self.tcb()?;
        let mitigations = self.mitigations(version)?;
        self.reserve(self.cursor.rest().len())?;
        let report = Report {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            current_tcb,
            platform,
            key,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb,
            processor,
            chip_id,
            committed_tcb,
            current_version,
            committed_version,
            launch_tcb,
            mitigations,
            reserved: self.reserved,
        };
        Ok((report, algorithm))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReportError> {
        self.cursor.array().ok_or(self.length)
    }

    fn u32(&mut self) -> Result<u32, ReportError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ReportError> {
        self.array().map(u64::from_le_bytes)
    }

    fn tcb(&mut self) -> Result<RawTcb, ReportError> {
        self.array().map(RawTcb)
    }

    fn processor(&mut self, version: u32) -> Result<Option<Processor>, ReportError> {
        if version < VERSION_PROCESSOR {
            self.reserve(24)?;
            return Ok(None);
        }
        let [family, model, stepping] = self.array()?;
        self.reserve(21)?;
        Ok(Some(Processor { family, model, stepping }))
    }

    fn firmware(&mut self) -> Result<FirmwareVersion, ReportError> {
        let [build, minor, major] = self.array()?;
        self.reserve(1)?;
        Ok(FirmwareVersion { major, minor, build })
    }

    fn mitigations(&mut self, version: u32) -> Result<Option<Mitigations>, ReportError> {
        if version < VERSION_MITIGATIONS {
            return Ok(None);
        }
        Ok(Some(Mitigations { launch: self.u64()?, current: self.u64()? }))
    }

    fn reserve(&mut self, len: usize) -> Result<(), ReportError> {
        let start = self.len.saturating_sub(self.cursor.rest().len());
        let bytes = self.cursor.slice(len).ok_or(self.length)?;
        self.reserved.extend((start..).zip(bytes).filter(|(_, byte)| **byte != 0).map(|(offset, _)| offset));
        Ok(())
    }
}
