//! The policy of `verify`: what a relying party requires of SEV-SNP and TDX, in JSON.
//!
//! Invariant: unknown fields and values are refused, so that a misspelt requirement is not ignored.

use cloister_evidence::hex;
use cloister_evidence::snp::{GuestPolicy, PlatformInfo, Product, Tcb};
use cloister_evidence::tdx::{Attributes, Measurements, TcbStatus};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The version of the format.
const VERSION: u32 = 1;

/// The requirements.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    version: u32,
    pub(super) snp: Option<Snp>,
    pub(super) tdx: Option<Tdx>,
}

/// The requirements of reports of SEV-SNP.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Snp {
    /// Accepted launch digests.
    pub(super) measurements: Vec<Register>,
    /// Accepted products, with the lowest accepted versions.
    pub(super) minimum_tcb: Vec<MinimumTcb>,
    #[serde(default)]
    pub(super) vmpl: u32,
    #[serde(default)]
    pub(super) minimum_guest_svn: Option<u32>,
    #[serde(default)]
    pub(super) id_keys: Option<Vec<Register>>,
    #[serde(default)]
    pub(super) author_keys: Option<Vec<Register>>,
    #[serde(default)]
    pub(super) host_data: Option<Digits<32>>,
    /// Bits that must be set or clear, besides those that the verification refuses by itself.
    #[serde(default, deserialize_with = "guest_policy")]
    pub(super) guest_policy_set: u64,
    #[serde(default, deserialize_with = "guest_policy")]
    pub(super) guest_policy_clear: u64,
    #[serde(default, deserialize_with = "platform")]
    pub(super) platform_set: u64,
    #[serde(default, deserialize_with = "platform")]
    pub(super) platform_clear: u64,
    #[serde(default)]
    pub(super) refuse_reserved: bool,
    #[serde(default)]
    pub(super) require_crl: bool,
}

/// A product with the lowest accepted version of each of its components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Versions")]
pub(super) struct MinimumTcb(pub(super) Product, pub(super) Tcb);

/// The same as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versions {
    product: String,
    boot_loader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
    fmc: Option<u8>,
}

/// The requirements of quotes of TDX.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tdx {
    /// Accepted measurements.
    pub(super) measurements: Vec<Td>,
    /// Accepted statuses; default: `UpToDate`.
    #[serde(default)]
    pub(super) statuses: Option<Vec<Status>>,
    #[serde(default)]
    pub(super) refused_advisories: Vec<String>,
    #[serde(default)]
    pub(super) minimum_evaluation: Option<u32>,
    /// Bits that must be clear, besides those that the verification refuses by itself.
    #[serde(default, deserialize_with = "attributes")]
    pub(super) attributes_clear: u64,
    #[serde(default)]
    pub(super) mrconfigid: Option<Register>,
    #[serde(default)]
    pub(super) mrowner: Option<Register>,
    #[serde(default)]
    pub(super) mrownerconfig: Option<Register>,
}

/// The measurements of a TD.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Td {
    mrtd: Register,
    rtmr0: Register,
    rtmr1: Register,
    rtmr2: Register,
    /// What runs extends this register; if it is missing, any value is accepted.
    #[serde(default)]
    rtmr3: Option<Register>,
}

/// A value of a fixed length, in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digits<const BYTES: usize>(pub(super) [u8; BYTES]);

/// A measurement, or the digest of a key.
pub(super) type Register = Digits<48>;

/// A status that Intel gives to a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(pub(super) TcbStatus);

impl Policy {
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let policy: Self = serde_json::from_slice(bytes)?;
        if policy.version != VERSION {
            return Err(serde_json::Error::custom(format!(
                "version {} instead of {VERSION}",
                policy.version
            )));
        }
        Ok(policy)
    }
}

impl TryFrom<Versions> for MinimumTcb {
    type Error = String;

    /// A version that the product has must be given, and no other: a missing one would accept anything.
    fn try_from(versions: Versions) -> Result<Self, String> {
        let Versions { product, boot_loader, tee, snp, microcode, fmc } = versions;
        let known = Product::ALL.into_iter().find(|known| known.name() == product);
        let product = known.ok_or_else(|| format!("`{product}` is not a product: Milan, Genoa or Turin"))?;
        let fmc = match (product.has_fmc(), fmc) {
            (true, None) => return Err(format!("`fmc` is missing, which {product} has")),
            (false, Some(_)) => return Err(format!("`fmc` is given, which {product} does not have")),
            (_, fmc) => fmc.unwrap_or_default(),
        };
        Ok(Self(product, Tcb { fmc, boot_loader, tee, snp, microcode }))
    }
}

impl Td {
    /// As the verification takes it.
    pub(super) fn value(&self) -> Measurements {
        let registers = [Some(self.rtmr0), Some(self.rtmr1), Some(self.rtmr2), self.rtmr3];
        Measurements {
            mr_td: self.mrtd.0,
            rtmr: registers.map(|register| register.map(|Digits(value)| value)),
        }
    }
}

impl<'de, const BYTES: usize> Deserialize<'de> for Digits<BYTES> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = hex::bytes(&text).and_then(|bytes| bytes.try_into().ok());
        let wrong =
            || D::Error::custom(format!("the value has {} hexadecimal digits in lower case", 2 * BYTES));
        value.map(Self).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let status = TcbStatus::of_name(&text);
        status
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is not a status, such as UpToDate")))
    }
}

fn guest_policy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    bits(deserializer, "the guest policy", GuestPolicy::of_name)
}

fn platform<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    bits(deserializer, "the platform information", PlatformInfo::of_name)
}

fn attributes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    bits(deserializer, "the attributes", Attributes::of_name)
}

/// The bits of these names.
fn bits<'de, D: Deserializer<'de>>(
    deserializer: D,
    field: &str,
    of_name: fn(&str) -> Option<u64>,
) -> Result<u64, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().try_fold(0, |bits, name| {
        let bit = of_name(name);
        let bit = bit.ok_or_else(|| D::Error::custom(format!("`{name}` is not a bit of {field}")))?;
        Ok(bits | bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_requirement_is_refused() {
        let refused = |text: &str| Policy::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(refused(r#"{"version": 1, "spn": {}}"#).contains("unknown field `spn`"));
        assert!(refused(r#"{"version": 2}"#).contains("version 2 instead of 1"));
        let short = r#"{"version": 1, "snp": {"measurements": ["00"], "minimum_tcb": []}}"#;
        assert!(refused(short).contains("96 hexadecimal digits"));
        let status = r#"{"version": 1, "tdx": {"measurements": [], "statuses": ["Fine"]}}"#;
        assert!(refused(status).contains("`Fine` is not a status"));
        for (part, field, what) in [
            ("snp", "guest_policy_set", "the guest policy"),
            ("snp", "guest_policy_clear", "the guest policy"),
            ("snp", "platform_set", "the platform information"),
            ("snp", "platform_clear", "the platform information"),
            ("tdx", "attributes_clear", "the attributes"),
        ] {
            let text = format!(r#"{{"version": 1, "{part}": {{"{field}": ["SPEED"]}}}}"#);
            assert!(refused(&text).contains(&format!("`SPEED` is not a bit of {what}")), "{field}");
        }
    }

    fn minimum(product: &str, fmc: &str) -> Result<MinimumTcb, String> {
        let versions = format!(r#""boot_loader": 1, "tee": 2, "snp": 3, "microcode": 4{fmc}"#);
        let text = format!(
            r#"{{"version": 1, "snp": {{"measurements": [], "minimum_tcb": [{{"product": "{product}", {versions}}}]}}}}"#
        );
        let policy = Policy::from_json(text.as_bytes()).map_err(|error| error.to_string())?;
        Ok(policy.snp.unwrap().minimum_tcb[0])
    }

    #[test]
    fn each_component_of_a_product_has_a_minimum_and_no_other_has() {
        let tcb = Tcb { fmc: 0, boot_loader: 1, tee: 2, snp: 3, microcode: 4 };
        for (name, product) in [("Milan", Product::Milan), ("Genoa", Product::Genoa)] {
            assert_eq!(minimum(name, ""), Ok(MinimumTcb(product, tcb)));
            let refused = minimum(name, r#", "fmc": 0"#).unwrap_err();
            assert!(refused.starts_with(&format!("`fmc` is given, which {name} does not have")), "{refused}");
        }
        let turin = MinimumTcb(Product::Turin, Tcb { fmc: 5, ..tcb });
        assert_eq!(minimum("Turin", r#", "fmc": 5"#), Ok(turin));
        let refused = minimum("Turin", "").unwrap_err();
        assert!(refused.starts_with("`fmc` is missing, which Turin has"), "{refused}");
        let refused = minimum("Naples", "").unwrap_err();
        assert!(refused.starts_with("`Naples` is not a product"), "{refused}");
    }
}
