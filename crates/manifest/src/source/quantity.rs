//! The syntax of quantities: durations, sizes, decimal fractions.
//!
//! Text in, number out; [`super::units`] defines which numbers are allowed.

use super::read::Invalid;

/// `1h`, `2m`, `3s`, `4ms`, or a sequence of them, larger units first.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let mut rest = text;
    let mut total: u64 = 0;
    for (unit, factor) in UNITS {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (amount, after) = rest.split_at_checked(digits)?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (word, after) = after.split_at_checked(letters)?;
        if word == unit && digits > 0 {
            total = total.checked_add(amount.parse::<u64>().ok()?.checked_mul(factor)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(total)
}

/// Why a text is not a duration, with what was probably meant.
pub(super) fn duration_hint(text: &str) -> Invalid {
    let invalid = Invalid::because("expected a number and one of `ms`, `s`, `m`, `h`");
    let whole: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit = text.get(whole.len()..).unwrap_or("").trim().to_ascii_lowercase();
    match unit.as_str() {
        _ if whole.is_empty() => invalid,
        "" | "sec" | "secs" | "second" | "seconds" => invalid.hint(format!("write `{whole}s` for seconds")),
        "min" | "mins" | "minute" | "minutes" => invalid.hint(format!("write `{whole}m` for minutes")),
        "hour" | "hours" | "hr" => invalid.hint(format!("write `{whole}h` for hours")),
        "d" | "day" | "days" => invalid.hint("write it in hours"),
        _ if unit.starts_with('.') => invalid.hint("write a fraction in a smaller unit: `1500ms`"),
        _ => invalid,
    }
}

/// `1KiB`, `2MiB`, `3GiB`, in bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = text.split_at_checked(digits)?;
    let shift = match unit.strip_prefix(' ').unwrap_or(unit) {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    amount.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Why a text is not a size, with what was probably meant.
pub(super) fn size_hint(text: &str) -> Invalid {
    let invalid = Invalid::because("expected a whole number and one of `KiB`, `MiB`, `GiB`");
    let whole: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit = text.get(whole.len()..).unwrap_or("").trim().to_ascii_lowercase();
    match unit.chars().next() {
        _ if whole.is_empty() => invalid,
        None | Some('b') => invalid.hint("write the unit, as in `64MiB`"),
        Some('k') => invalid.hint(format!("write `{whole}KiB`: units here are powers of 1024")),
        Some('m') => invalid.hint(format!("write `{whole}MiB`: units here are powers of 1024")),
        Some('g') => invalid.hint(format!("write `{whole}GiB`: units here are powers of 1024")),
        Some('.') => invalid.hint("write a fraction in a smaller unit: `1536MiB`"),
        Some(_) => invalid,
    }
}

/// A decimal number with up to three digits after the point, in thousandths.
pub(super) fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let part: u32 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(part)
}
