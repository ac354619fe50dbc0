//! Which measurements are accepted: those that a build predicted.
//!
//! Invariant: evidence is compared with all registers of one reference, and at least one register is compared. A
//! mismatch names the register, both values, and what the register covers.
//!
//! docs/measurements.md specifies the document and the registers.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;

use crate::bytes::is_zero;
use crate::hex;

/// Registers by their number.
pub type Registers = BTreeMap<u16, Vec<u8>>;

/// The registers that a reference from a build contains: those that AWS Nitro, and `virtual` like it, fills from the
/// image.
pub const IMAGE_REGISTERS: [u16; 4] = [0, 1, 2, 8];

/// The version of the document that is read.
const VERSION: u32 = 1;

/// Maximum bytes of the document: some KiB for each platform and machine type.
const DOCUMENT_LIMIT: usize = 1 << 20;

/// Bytes of a register, for each hash that a platform may use: SHA-256, SHA-384, SHA-512.
pub(crate) const REGISTER_LENGTHS: [usize; 3] = [32, 48, 64];

/// The registers of an image that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    name: String,
    registers: Registers,
}

/// Why there is no reference. The operator must provide another document or other registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceError {
    /// The document is not one that `host-sleeve build` writes. The text gives the reason.
    Document(String),
    /// The document does not have this register.
    Register(u16),
    /// No register would be compared.
    Empty,
    /// Every register is all zeros, as PCR8 of each image without a signature.
    Zeros,
}

/// A register that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    register: u16,
    expected: Vec<u8>,
    found: Option<Vec<u8>>,
}

/// `measurements.json`. Unknown platforms are ignored, so that an older verifier can read a newer document.
#[derive(Deserialize)]
struct Document {
    version: u32,
    nitro: Option<Predicted>,
    #[serde(rename = "virtual")]
    development: Option<Predicted>,
}

/// The measurements of AWS Nitro, or those of the platform `virtual`, which have the same form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicted {
    #[serde(rename = "command_line")]
    _command_line: String,
    pcrs: Pcrs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pcrs {
    pcr0: String,
    pcr1: String,
    pcr2: String,
    pcr8: Option<String>,
}

impl Reference {
    /// A reference with these registers, at least one of which is not all zeros. Its name appears in verdicts.
    pub fn new(name: &str, registers: Registers) -> Result<Self, ReferenceError> {
        if registers.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if let Some((register, _)) =
            registers.iter().find(|(_, value)| !REGISTER_LENGTHS.contains(&value.len()))
        {
            return Err(ReferenceError::Document(format!("PCR{register} has an impossible length")));
        }
        if registers.values().all(|value| is_zero(value)) {
            return Err(ReferenceError::Zeros);
        }
        Ok(Self { name: name.into(), registers })
    }

    /// The reference for AWS Nitro in a build's `measurements.json`, with these of its registers ([`IMAGE_REGISTERS`]
    /// for all). An image without a signature has zeros in PCR8.
    pub fn nitro(name: &str, measurements: &[u8], registers: &[u16]) -> Result<Self, ReferenceError> {
        let predicted = document(measurements)?.nitro.ok_or_else(|| missing("AWS Nitro"))?;
        Self::chosen(name, &predicted.registers()?, registers)
    }

    /// The same for the platform `virtual`, from the document that `host-sleeve measure --virtual` prints. Only documents
    /// of that platform match it: the command line is another one.
    pub fn development(name: &str, measurements: &[u8], registers: &[u16]) -> Result<Self, ReferenceError> {
        let predicted = document(measurements)?.development.ok_or_else(|| missing("the platform virtual"))?;
        Self::chosen(name, &predicted.registers()?, registers)
    }

    /// The reference for the platform that the document has: AWS Nitro, or else `virtual`. Registers of one platform match no
    /// evidence of the other.
    pub fn of_any_platform(
        name: &str,
        measurements: &[u8],
        registers: &[u16],
    ) -> Result<Self, ReferenceError> {
        let Document { nitro, development, .. } = document(measurements)?;
        let predicted = nitro.or(development).ok_or_else(|| missing("AWS Nitro or the platform virtual"))?;
        Self::chosen(name, &predicted.registers()?, registers)
    }

    fn chosen(name: &str, all: &Registers, registers: &[u16]) -> Result<Self, ReferenceError> {
        let chosen = registers.iter().map(|register| {
            let value = all.get(register).ok_or(ReferenceError::Register(*register))?;
            Ok((*register, value.clone()))
        });
        Self::new(name, chosen.collect::<Result<_, _>>()?)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The registers that must match.
    #[must_use]
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The registers that are not as expected.
    #[must_use]
    pub fn compare(&self, found: &Registers) -> Vec<Mismatch> {
        let wrong =
            self.registers.iter().filter(|(register, expected)| found.get(register) != Some(expected));
        wrong
            .map(|(register, expected)| Mismatch {
                register: *register,
                expected: expected.clone(),
                found: found.get(register).cloned(),
            })
            .collect()
    }
}

/// The reference that these registers match, or why they match none.
pub(crate) fn accept<'a>(accepted: &'a [Reference], found: &Registers) -> Result<&'a Reference, String> {
    let mut closest: Option<(&Reference, Vec<Mismatch>)> = None;
    for reference in accepted {
        let wrong = reference.compare(found);
        if wrong.is_empty() {
            return Ok(reference);
        }
        if closest.as_ref().is_none_or(|(_, fewest)| wrong.len() < fewest.len()) {
            closest = Some((reference, wrong));
        }
    }
    let Some((reference, wrong)) = closest else { return Err("no measurements are accepted".into()) };
    let wrong: Vec<String> = wrong.iter().map(Mismatch::to_string).collect();
    let others = match accepted.len() {
        1 => String::new(),
        count => format!(", the closest of {count} references"),
    };
    Err(format!("not `{}`{others}: {}", reference.name, wrong.join("; ")))
}

/// What a register of AWS Nitro covers, and what it changes with.
#[must_use]
pub fn covers(register: u16) -> &'static str {
    match register {
        0 => "covers kernel, command line and all ramdisks, and changes with anything",
        1 => "covers kernel, command line and ramdisk 1, and changes with the operating system's release",
        2 => "covers ramdisk 2, and changes with the application or its manifest",
        3 => "covers the parent instance's IAM role",
        4 => "covers the parent instance's ID",
        8 => "covers the signing certificate, and changes with the signer; zeros if the image is not signed",
        16 => "covers the end of the boot; zeros before init has completed it",
        17 => "covers the events since the boot",
        18 => "covers the files that the enclave received",
        _ => "is not used by Cloister",
    }
}

fn document(measurements: &[u8]) -> Result<Document, ReferenceError> {
    if measurements.len() > DOCUMENT_LIMIT {
        return Err(ReferenceError::Document(format!("more than {DOCUMENT_LIMIT} bytes")));
    }
    let document: Document =
        serde_json::from_slice(measurements).map_err(|error| ReferenceError::Document(format!("{error}")))?;
    if document.version != VERSION {
        let version = document.version;
        return Err(ReferenceError::Document(format!("version {version} instead of {VERSION}")));
    }
    Ok(document)
}

fn missing(platform: &str) -> ReferenceError {
    ReferenceError::Document(format!("no measurements for {platform}"))
}

impl Predicted {
    fn registers(self) -> Result<Registers, ReferenceError> {
        let unsigned = || "00".repeat(48);
        let pcrs = [
            (0, self.pcrs.pcr0),
            (1, self.pcrs.pcr1),
            (2, self.pcrs.pcr2),
            (8, self.pcrs.pcr8.unwrap_or_else(unsigned)),
        ];
        let value = |(register, text): (u16, String)| {
            let value = hex::bytes(&text).filter(|value| value.len() == 48);
            let value =
                value.ok_or_else(|| ReferenceError::Document(format!("PCR{register} is not a register")))?;
            Ok((register, value))
        };
        pcrs.into_iter().map(value).collect()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { register, expected, found } = self;
        let (expected, covers) = (hex::text(expected), covers(*register));
        match found {
            Some(found) => {
                write!(f, "PCR{register} is {}, expected {expected}; it {covers}", hex::text(found))
            }
            None => write!(f, "PCR{register} is missing, expected {expected}; it {covers}"),
        }
    }
}

/// [`ReferenceError::Zeros`].
const ZEROS: &str = "all registers of the reference are zeros, which every image without a signature has in PCR8: \
                     choose registers that identify the image, or sign it";

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(why) => write!(f, "not a measurements document: {why}"),
            Self::Register(register) => {
                write!(f, "the measurements document has no PCR{register}; it has PCR0, 1, 2 and 8")
            }
            Self::Empty => f.write_str("a reference needs at least one register"),
            Self::Zeros => f.write_str(ZEROS),
        }
    }
}

impl core::error::Error for ReferenceError {}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn document(pcr8: &str) -> String {
        let [zero, one, two] = ["a0", "a1", "a2"].map(|byte| byte.repeat(48));
        format!(
            r#"{{"version": 1, "arch": "x86_64", "os": "0.1.0", "later": {{}}, "nitro": {{"command_line": "quiet",
            "pcrs": {{"pcr0": "{zero}", "pcr1": "{one}", "pcr2": "{two}"{pcr8}}}}}}}"#
        )
    }

    fn registers(bytes: &[(u16, u8)]) -> Registers {
        bytes.iter().map(|(register, byte)| (*register, vec![*byte; 48])).collect()
    }

    #[test]
    fn a_builds_measurements_are_read() {
        let all = Reference::nitro("app", document("").as_bytes(), &IMAGE_REGISTERS).unwrap();
        assert_eq!(all.registers(), &registers(&[(0, 0xa0), (1, 0xa1), (2, 0xa2), (8, 0)]));
        let signed = document(&format!(r#", "pcr8": "{}""#, "a8".repeat(48)));
        let some = Reference::nitro("app", signed.as_bytes(), &[1, 8]).unwrap();
        assert_eq!(some.registers(), &registers(&[(1, 0xa1), (8, 0xa8)]));
    }

    #[test]
    fn measurements_of_one_platform_are_not_those_of_the_other() {
        let nitro = document("");
        let development = nitro.replace(r#""nitro""#, r#""virtual""#);
        let read = Reference::development("app", development.as_bytes(), &IMAGE_REGISTERS).unwrap();
        assert_eq!(read.registers(), &registers(&[(0, 0xa0), (1, 0xa1), (2, 0xa2), (8, 0)]));
        let refused =
            Reference::development("app", nitro.as_bytes(), &IMAGE_REGISTERS).unwrap_err().to_string();
        assert!(refused.contains("no measurements for the platform virtual"), "{refused}");
        assert!(Reference::nitro("app", development.as_bytes(), &IMAGE_REGISTERS).is_err());
    }

    #[test]
    fn a_document_of_either_platform_is_read_and_an_error_is_about_the_platform_that_it_has() {
        let read = |text: &str| Reference::of_any_platform("app", text.as_bytes(), &IMAGE_REGISTERS);
        let nitro = document("");
        let development = nitro.replace(r#""nitro""#, r#""virtual""#);
        assert_eq!(read(&nitro), Reference::nitro("app", nitro.as_bytes(), &IMAGE_REGISTERS));
        assert_eq!(read(&development), read(&nitro));
        for text in [nitro, development] {
            let damaged = read(&text.replacen("a1", "", 1)).unwrap_err().to_string();
            assert!(damaged.contains("PCR1 is not a register"), "{damaged}");
        }
        let neither = read(r#"{"version": 1, "arch": "x86_64"}"#).unwrap_err().to_string();
        assert!(neither.contains("no measurements for AWS Nitro or the platform virtual"), "{neither}");
    }

    #[test]
    fn other_documents_and_registers_are_refused() {
        let refused = |text: &str, registers: &[u16]| {
            Reference::nitro("app", text.as_bytes(), registers).unwrap_err().to_string()
        };
        let good = document("");
        assert!(refused(&good, &[3]).contains("has no PCR3"));
        assert_eq!(refused(&good, &[]), "a reference needs at least one register");
        assert!(
            refused(&good.replace(r#""version": 1"#, r#""version": 2"#), &[0])
                .contains("version 2 instead of 1")
        );
        assert!(
            refused(r#"{"version": 1, "arch": "x86_64"}"#, &[0]).contains("no measurements for AWS Nitro")
        );
        assert!(refused(&good.replace("a0a0", "A0A0"), &[0]).contains("PCR0 is not a register"));
        assert!(refused(&good.replacen("a0", "", 1), &[0]).contains("PCR0 is not a register"));
        assert!(refused("{", &[0]).contains("not a measurements document"));
        assert!(refused(&" ".repeat(DOCUMENT_LIMIT + 1), &[0]).contains("more than"));
        let short = [(0, vec![1; 47])].into_iter().collect();
        assert!(Reference::new("app", short).is_err());
    }

    #[test]
    fn registers_that_are_all_zeros_identify_no_image() {
        let unsigned = document("");
        assert_eq!(Reference::nitro("app", unsigned.as_bytes(), &[8]), Err(ReferenceError::Zeros));
        assert_eq!(Reference::new("app", registers(&[(0, 0), (8, 0)])), Err(ReferenceError::Zeros));
        assert!(Reference::nitro("app", unsigned.as_bytes(), &[2, 8]).is_ok());
        let signed = document(&format!(r#", "pcr8": "{}""#, "a8".repeat(48)));
        assert!(Reference::nitro("app", signed.as_bytes(), &[8]).is_ok());
    }

    #[test]
    fn a_mismatch_names_the_register_both_values_and_what_it_covers() {
        let reference = Reference::new("app", registers(&[(0, 1), (2, 3), (8, 0)])).unwrap();
        let error = accept(&[reference], &registers(&[(0, 1), (2, 4)])).unwrap_err();
        let (three, four, zero) = ("03".repeat(48), "04".repeat(48), "00".repeat(48));
        let application = "it covers ramdisk 2, and changes with the application or its manifest";
        assert!(
            error.starts_with(&format!("not `app`: PCR2 is {four}, expected {three}; {application}; ")),
            "{error}"
        );
        assert!(
            error.contains(&format!("PCR8 is missing, expected {zero}; it covers the signing certificate"))
        );
    }

    #[test]
    fn any_of_several_references_is_accepted_and_the_closest_is_reported() {
        let accepted = [
            Reference::new("old", registers(&[(0, 1), (1, 1)])).unwrap(),
            Reference::new("new", registers(&[(0, 2), (1, 2)])).unwrap(),
        ];
        assert_eq!(accept(&accepted, &registers(&[(0, 2), (1, 2)])).unwrap().name(), "new");
        // Registers of two references together are those of neither.
        let error = accept(&accepted, &registers(&[(0, 3), (1, 2)])).unwrap_err();
        assert!(error.starts_with("not `new`, the closest of 2 references: PCR0 is "), "{error}");
        assert!(accept(&[], &registers(&[(0, 1)])).unwrap_err().contains("no measurements are accepted"));
    }
}
