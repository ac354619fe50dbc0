//! The chain of three certificates above a report: VCEK or VLEK, its signing key (ASK or ASVK), AMD's root key (ARK).
//!
//! Invariant: a chain is trusted only if the root's key is one of the pinned keys, whatever the certificates' names are. Names select
//! the product afterwards, and must then all be of that product and of the kind of key that signed the report.
//!
//! Source: AMD 57230, sections 2 and 3.

use alloc::format;

use super::bits::SigningKey;
use super::certificate::Certificate;
use super::product::Product;
use super::report::Report;
use crate::bytes::{Text, date};
use crate::hex;

/// A root key of AMD's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The product that the key is for.
    pub product: Product,
    /// SHA-256 of the key with its algorithm (DER of `SubjectPublicKeyInfo`).
    pub key_sha256: [u8; 32],
}

impl Root {
    /// The root keys of all products that this release knows, as published by AMD's key distribution service
    /// (`https://kdsintf.amd.com/vcek/v1/{product}/cert_chain`).
    pub const AMD: [Self; 3] = [
        Self { product: Product::Milan, key_sha256: MILAN },
        Self { product: Product::Genoa, key_sha256: GENOA },
        Self { product: Product::Turin, key_sha256: TURIN },
    ];
}

const MILAN: [u8; 32] = [
    0x9f, 0x05, 0x6b, 0xee, 0x44, 0x37, 0x7e, 0x29, 0x30, 0x8c, 0xb5, 0xff, 0xa8, 0x95, 0xbd, 0xfb, 0x62,
    0xd1, 0x88, 0x81, 0xfa, 0x6b, 0xed, 0x8d, 0x6f, 0x07, 0x5b, 0x02, 0x04, 0x08, 0x9c, 0xb9,
];
const GENOA: [u8; 32] = [
    0x42, 0x9a, 0x69, 0xc9, 0x42, 0x2a, 0xa2, 0x58, 0xee, 0x4d, 0x8d, 0xb5, 0xfc, 0xda, 0x9c, 0x64, 0x70,
    0xef, 0x15, 0xf8, 0xcd, 0x5a, 0x9c, 0xeb, 0xd6, 0xcb, 0xc7, 0xd9, 0x0b, 0x86, 0x38, 0x31,
];
const TURIN: [u8; 32] = [
    0x4f, 0x12, 0x54, 0x10, 0x56, 0x3a, 0x2a, 0xb9, 0xa5, 0x03, 0x56, 0xf9, 0x24, 0x3f, 0x6f, 0xe0, 0xb6,
    0xf7, 0x3d, 0xe9, 0x86, 0x03, 0xf5, 0x3f, 0x90, 0x33, 0x9c, 0x70, 0xe9, 0xd7, 0xad, 0x08,
];

/// The certificates, from the one that signed the report up to the root.
#[derive(Clone, Debug)]
pub(crate) struct Chain<'a> {
    pub(crate) leaf: Certificate<'a>,
    pub(crate) intermediate: Certificate<'a>,
    pub(crate) root: Certificate<'a>,
}

impl<'a> Chain<'a> {
    pub(crate) fn parse(certificates: &[&'a [u8]]) -> Result<Self, Text> {
        let [leaf, intermediate, root] = certificates else {
            let text = "certificates, but a chain has three: VCEK or VLEK, ASK or ASVK, ARK";
            return Err(format!("{} {text}", certificates.len()).into());
        };
        let parse = |name, bytes: &'a [u8]| Certificate::parse(bytes).map_err(|error| named(name, &error));
        let chain = Self {
            leaf: parse("VCEK or VLEK", leaf)?,
            intermediate: parse("ASK", intermediate)?,
            root: parse("ARK", root)?,
        };
        Ok(chain)
    }

    /// The product of the pinned key that the chain ends in.
    pub(crate) fn product(&self, roots: &[Root]) -> Result<Product, Text> {
        let key = self.root.key_sha256().map_err(|error| named("ARK", &error))?;
        let root = roots.iter().find(|root| root.key_sha256 == key);
        let root = root.ok_or_else(|| {
            format!("the key of the ARK is not a trusted root: SHA-256 {}", hex::text(&key))
        })?;
        Ok(root.product)
    }

    pub(crate) fn check_signatures(&self) -> Result<(), Text> {
        self.root.check_signature(&self.root).map_err(|error| named("ARK", &error))?;
        self.intermediate.check_signature(&self.root).map_err(|error| named("ASK", &error))?;
        self.leaf.check_signature(&self.intermediate).map_err(|error| named("VCEK or VLEK", &error))
    }

    /// Each certificate may issue the next one, and names it.
    pub(crate) fn check_issuers(&self) -> Result<(), Text> {
        if self.root.subject() != self.root.issuer() {
            return Err("ARK: not self-issued".into());
        }
        if self.intermediate.issuer() != self.root.subject() {
            return Err("ASK: its issuer is not the ARK".into());
        }
        if self.leaf.issuer() != self.intermediate.subject() {
            return Err("VCEK or VLEK: its issuer is not the ASK".into());
        }
        for (name, certificate) in [("ARK", &self.root), ("ASK", &self.intermediate)] {
            let (authority, may_sign) = certificate.authority().map_err(|error| named(name, &error))?;
            if !authority || !may_sign {
                return Err(named(name, "not allowed to issue certificates"));
            }
        }
        let (authority, _) = self.leaf.authority().map_err(|error| named("VCEK or VLEK", &error))?;
        if authority { Err("VCEK or VLEK: a certificate authority".into()) } else { Ok(()) }
    }

    pub(crate) fn check_dates(&self, now: u64) -> Result<(), Text> {
        let certificates = [("VCEK or VLEK", &self.leaf), ("ASK", &self.intermediate), ("ARK", &self.root)];
        for (name, certificate) in certificates {
            let (from, until) = certificate.validity();
            check_dates(name, from, until, now)?;
        }
        Ok(())
    }

    /// The certificates are of `product`, and the processor in the report is not known to be another one.
    pub(crate) fn check_product(&self, product: Product, report: &Report) -> Result<(), Text> {
        let name = self.leaf.product_name()?;
        if !product.has_name(&name) {
            return Err(format!("the certificate is for {name:?}, but its chain is of {product}").into());
        }
        let Some(processor) = report.processor else { return Ok(()) };
        match Product::of_processor(processor.family, processor.model) {
            Some(found) if found != product => {
                Err(format!("the report is from a processor of {found}, but its chain is of {product}")
                    .into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The certificate is of the kind of key that the report names, in a chain for such keys.
    pub(crate) fn check_key(&self, product: Product, report: &Report) -> Result<SigningKey, Text> {
        let key = report.key.signing_key();
        let (leaf, intermediate) = match key {
            SigningKey::Vcek if report.key.mask_chip_key() => {
                return Err(
                    "the host forbids signatures by the VCEK (MASK_CHIP_KEY): the report is not signed"
                        .into(),
                );
            }
            SigningKey::Vcek => ("SEV-VCEK", format!("SEV-{product}")),
            SigningKey::Vlek => ("SEV-VLEK", format!("SEV-VLEK-{product}")),
            SigningKey::None => return Err("the report is not signed".into()),
            SigningKey::Unknown(value) => return Err(format!("signing key {value} is not supported").into()),
        };
        let expected = [
            (&self.leaf, alloc::string::String::from(leaf)),
            (&self.intermediate, intermediate),
            (&self.root, format!("ARK-{product}")),
        ];
        for (certificate, expected) in expected {
            let found = certificate.common_name().unwrap_or_default();
            if found != expected {
                let text = format!(
                    "the report is signed by a {} of {product}: expected a certificate for",
                    key.name()
                );
                return Err(format!("{text} {expected}, found {found:?}").into());
            }
        }
        Ok(key)
    }
}

/// Checks a period of validity, both ends included. The two failures have distinct texts: a clock that is behind is another fault
/// than evidence that is too old.
pub(crate) fn check_dates(name: &str, from: u64, until: u64, now: u64) -> Result<(), Text> {
    if now < from {
        let text = "the clock is behind, or the evidence is newer than the time to verify it at";
        return Err(format!(
            "{name}: not valid before {}, and the time is {}: {text}",
            date(from),
            date(now)
        )
        .into());
    }
    if now > until {
        return Err(format!("{name}: expired at {}, and the time is {}", date(until), date(now)).into());
    }
    Ok(())
}

pub(crate) fn named(name: &str, error: &str) -> Text {
    format!("{name}: {error}").into()
}
