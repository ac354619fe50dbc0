//! IPv4 addresses in every spelling that `inet_aton` reads: `127.1`, `0x7f.1`, `0177.0.0.1`, `2130706433`.
//!
//! Invariant: a text whose last label is a number is an address or an error, never a name. C libraries, and through them most programs,
//! connect to such a text without asking a resolver; as a name it would bypass every rule about addresses.

use std::net::Ipv4Addr;

/// An address has at most four parts.
const PARTS: usize = 4;

/// Whether a C library could read this as an address instead of a name: its last label consists of digits, or starts with `0x` and
/// consists of hexadecimal digits. That is the rule of the URL Standard, section 3.5 ("ends in a number"). No top-level domain is one
/// (RFC 3696, section 2).
pub(crate) fn is_numeric(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    !last.is_empty() && (digits(last) || strip_hexadecimal(last).is_some_and(hexadecimal))
}

/// The address that `inet_aton` reads: one to four parts, each decimal, octal with a leading `0` or hexadecimal with a leading `0x`;
/// the last part fills all remaining bytes. `None` where `inet_aton` fails.
pub(crate) fn parse(text: &str) -> Option<Ipv4Addr> {
    let parts = text.split('.').map(part).collect::<Option<Vec<_>>>()?;
    if parts.len() > PARTS {
        return None;
    }
    let (last, leading) = parts.split_last()?;
    let mut address: u32 = 0;
    for byte in leading {
        address = (address << 8) | u32::from(u8::try_from(*byte).ok()?);
    }
    let remaining = 8 * u32::try_from(PARTS - leading.len()).ok()?;
    let address = u64::from(address) << remaining;
    (u64::from(*last) < 1 << remaining).then_some(())?;
    u32::try_from(address | u64::from(*last)).ok().map(Ipv4Addr::from)
}

fn part(text: &str) -> Option<u32> {
    // `from_str_radix` accepts a sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    match (strip_hexadecimal(text), text.strip_prefix('0')) {
        (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
        (None, Some("")) => Some(0),
        (None, Some(digits)) => u32::from_str_radix(digits, 8).ok(),
        (None, None) => text.parse().ok(),
    }
}

fn strip_hexadecimal(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}
