//! The field `platforms`: the hardware that an image may run on.
//!
//! Invariant: the result has at least one platform, each once, in canonical order; the order in the file does not change the
//! measurement.

use super::defaults;
use super::document::Document;
use super::hint;
use super::problem::{Kind, Problem, Problems};
use super::read::{FromScalar, Invalid, Spanned};
use super::tree::Scalar;
use crate::platform::Platform;

/// Other names that authors may try, from vendors, kernels and tools, with the platform they mean.
const OTHER_NAMES: [(&str, Platform); 15] = [
    ("aws", Platform::Nitro),
    ("aws-nitro", Platform::Nitro),
    ("nitro-enclave", Platform::Nitro),
    ("nitro-enclaves", Platform::Nitro),
    ("qemu-nitro", Platform::Nitro),
    ("intel-tdx", Platform::Tdx),
    ("tdx-guest", Platform::Tdx),
    ("amd-sev-snp", Platform::Snp),
    ("sev", Platform::Snp),
    ("sev-guest", Platform::Snp),
    ("sev-snp", Platform::Snp),
    ("kvm", Platform::Virtual),
    ("none", Platform::Virtual),
    ("qemu", Platform::Virtual),
    ("vm", Platform::Virtual),
];

impl FromScalar for Platform {
    const EXPECTED: &'static str = "a platform";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        let names = Self::ALL.map(Self::name);
        if let Some(platform) = Self::ALL.into_iter().find(|platform| platform.name() == scalar.text) {
            return Ok(platform);
        }
        let plain = scalar.text.to_ascii_lowercase().replace('_', "-");
        let meant = OTHER_NAMES.iter().find(|(other, _)| *other == plain).map(|(_, platform)| *platform);
        let hint = match meant {
            Some(platform) => Some(format!("write `{platform}`")),
            None => hint::did_you_mean(&scalar.text, names),
        };
        Err(Invalid { reason: format!("expected {}", hint::one_of(names)), hint })
    }
}

/// Reports an empty list.
pub(super) fn check(list: &Spanned<Vec<Spanned<Platform>>>, problems: &mut Problems) {
    if list.value.is_empty() && !problems.any_within(list.span) {
        let problem =
            Problem::new(Kind::BadValue, list.span, "no platform is listed: the image could not run");
        let all = Platform::ALL.map(Platform::name).join(", ");
        problems
            .push(problem.hint(format!("list some of `[{all}]`, or remove the line to allow all of them")));
    }
}

/// The platforms that the image may run on.
pub(super) fn allowed(document: &Document) -> Vec<Platform> {
    let listed = document.platforms.as_ref().map(|list| list.value.as_slice());
    let listed: Option<Vec<Platform>> = listed.map(|list| list.iter().map(value).collect());
    let mut platforms = listed.unwrap_or_else(|| defaults::PLATFORMS.to_vec());
    platforms.sort_unstable();
    platforms.dedup();
    platforms
}

fn value(platform: &Spanned<Platform>) -> Platform {
    platform.value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_for(text: &str) -> Option<String> {
        Platform::from_scalar(&Scalar { text: text.to_owned(), plain: true }).unwrap_err().hint
    }

    #[test]
    fn a_vendors_name_is_answered_with_ours() {
        assert_eq!(hint_for("SEV_SNP").as_deref(), Some("write `snp`"));
        assert_eq!(hint_for("intel-tdx").as_deref(), Some("write `tdx`"));
        assert_eq!(hint_for("qemu").as_deref(), Some("write `virtual`"));
        assert_eq!(hint_for("nirto").as_deref(), Some("did you mean `nitro`?"));
        assert_eq!(hint_for("sgx"), None);
    }
}
