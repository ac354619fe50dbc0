//! The types of single values: durations, sizes, ports, counts, modes.
//!
//! Invariant: a unit is always written, and a value out of range is refused here, so that no later code checks it again.
//! Each type states what it expects, reads itself, and describes itself in the schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::quantity::{bytes, duration_hint, milliseconds, size_hint, thousandths};
use super::read::{FromScalar, Invalid};
use super::tree::Scalar;
use crate::model;

/// Declares a type around one number or string, with its schema.
macro_rules! unit {
    ($(#[$meta:meta])* $name:ident($inner:ty), $schema:tt) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $name(pub(super) $inner);

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

unit!(
    /// The version of the format.
    Version(u32),
    { "const": 1 }
);

unit!(
    /// A boolean: `true` or `false`, not the other spellings of YAML 1.1.
    Flag(bool),
    { "type": "boolean" }
);

unit!(
    /// `false`. Enclaves for development, in which commands can be run, are not supported yet.
    DebugFlag(bool),
    { "const": false }
);

unit!(
    /// Any string. Numbers and booleans are taken literally.
    Text(String),
    { "type": ["string", "number", "boolean"] }
);

unit!(
    /// Milliseconds.
    Duration(u64),
    {
        "type": "string",
        "minLength": 2,
        "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
        "description": "A duration: `250ms`, `10s`, `5m`, `1h`, or combined as in `1m30s`; at most `24h`.",
        "examples": ["10s", "1m30s"],
    }
);

unit!(
    /// Milliseconds, at least one.
    Period(u64),
    {
        "type": "string",
        "minLength": 2,
        "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
        "description": "A duration greater than zero: `250ms`, `10s`, `5m`, `1h`, or combined as in `1m30s`; at most `24h`.",
        "examples": ["10s", "1m30s"],
    }
);

unit!(
    /// Bytes.
    Size(u64),
    {
        "type": "string",
        "pattern": "^[0-9]+ ?(KiB|MiB|GiB)$",
        "description": "A size in KiB, MiB or GiB: `512MiB`; from 1 MiB to 1024 GiB.",
        "examples": ["64MiB", "2GiB"],
    }
);

unit!(
    /// Thousandths of a CPU.
    Cpu(u32),
    {
        "type": "number",
        "minimum": 0.01,
        "maximum": 1024,
        "description": "A number of CPUs, in steps of 0.001: `0.5` is half of one.",
        "examples": [0.5, 2],
    }
);

unit!(
    /// A TCP port.
    Port(u16),
    { "type": "integer", "minimum": 1, "maximum": 65535, "description": "A TCP port." }
);

unit!(
    /// A small whole number, at least 1.
    Count(u32),
    { "type": "integer", "minimum": 1, "maximum": 1_048_576 }
);

unit!(
    /// Permission bits.
    Mode(u32),
    {
        "type": ["string", "integer"],
        "pattern": "^0?[0-7]{3}$",
        "description": "Permission bits in octal: `0444`.",
        "examples": ["0444", "0555"],
    }
);

/// The maximum duration: a day. A longer one is probably a mistake in the unit, and the limit keeps sums of durations far from
/// overflow.
const MAX_DURATION_MS: u64 = 24 * 60 * 60 * 1000;

/// The minimum size. A tmpfs of size 0 has no limit at all, and no program runs in less than this.
const MIN_SIZE: u64 = 1 << 20;

/// The maximum size: more memory than any enclave has.
const MAX_SIZE: u64 = 1 << 40;

impl FromScalar for Version {
    const EXPECTED: &'static str = "a supported version (`1`)";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        match number::<u32>(scalar)? {
            model::VERSION => Ok(Self(model::VERSION)),
            other => Err(Invalid::because(format!("there is no version {other}")).hint("write `version: 1`")),
        }
    }
}

impl FromScalar for Flag {
    const EXPECTED: &'static str = "`true` or `false`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        match (scalar.text.as_str(), scalar.plain) {
            ("true", true) => Ok(Self(true)),
            ("false", true) => Ok(Self(false)),
            (word, _) => Err(match word.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "y" | "1" => Invalid::default().hint("write `true`"),
                "false" | "no" | "off" | "n" | "0" => Invalid::default().hint("write `false`"),
                _ => Invalid::default(),
            }),
        }
    }
}

impl FromScalar for DebugFlag {
    const EXPECTED: &'static str = "a supported value (`false`)";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        if matches!(scalar.text.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "y" | "1") {
            let why = "not supported yet: commands cannot be run inside an enclave";
            let hint = "remove `debug`; `host-sleeve logs`, `inspect --service` and `run --console` show what happens inside";
            return Err(Invalid::because(why).hint(hint));
        }
        Flag::from_scalar(scalar).map(|_| Self(false))
    }
}

impl FromScalar for Text {
    const EXPECTED: &'static str = "a string";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        if scalar.text.contains('\0') {
            return Err(Invalid::because("it contains a NUL byte, which cannot be passed to a program"));
        }
        Ok(Self(scalar.text.clone()))
    }
}

impl FromScalar for Duration {
    const EXPECTED: &'static str = "a duration such as `10s`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        match milliseconds(&scalar.text) {
            Some(ms) if ms <= MAX_DURATION_MS => Ok(Self(ms)),
            Some(_) => Err(Invalid::because("more than 24h")),
            None => Err(duration_hint(&scalar.text)),
        }
    }
}

impl FromScalar for Period {
    const EXPECTED: &'static str = "a duration greater than zero, such as `10s`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        match Duration::from_scalar(scalar)? {
            Duration(0) => Err(Invalid::because("it must be greater than zero")),
            Duration(ms) => Ok(Self(ms)),
        }
    }
}

impl FromScalar for Size {
    const EXPECTED: &'static str = "a size such as `512MiB`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        match bytes(&scalar.text) {
            Some(size) if size < MIN_SIZE => Err(Invalid::because("less than 1MiB")),
            Some(size) if size > MAX_SIZE => Err(Invalid::because("more than 1024GiB")),
            Some(size) => Ok(Self(size)),
            None => Err(size_hint(&scalar.text)),
        }
    }
}

impl FromScalar for Cpu {
    const EXPECTED: &'static str = "a number of CPUs such as `0.5`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        unquoted(scalar)?;
        let millis = thousandths(&scalar.text).ok_or_else(|| match scalar.text.strip_suffix('m') {
            Some(millis) if thousandths(millis).is_some() => {
                Invalid::because("write thousandths as a decimal fraction")
            }
            _ => Invalid::default(),
        })?;
        match millis {
            0..10 => Err(Invalid::because("less than 0.01, the smallest share that the kernel can assign")),
            10..=1_024_000 => Ok(Self(millis)),
            _ => Err(Invalid::because("more than 1024")),
        }
    }
}

impl FromScalar for Port {
    const EXPECTED: &'static str = "a port from 1 to 65535";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        match number::<u16>(scalar)? {
            0 => Err(Invalid::because("port 0 means an arbitrary port, which clients could not know")),
            port => Ok(Self(port)),
        }
    }
}

impl FromScalar for Count {
    const EXPECTED: &'static str = "a whole number from 1 to 1048576";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        match number::<u32>(scalar)? {
            count @ 1..=1_048_576 => Ok(Self(count)),
            _ => Err(Invalid::default()),
        }
    }
}

impl FromScalar for Mode {
    const EXPECTED: &'static str = "a mode such as `0444`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        let text = scalar.text.strip_prefix("0o").unwrap_or(&scalar.text);
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if digits && mode <= 0o777 => Ok(Self(mode)),
            Ok(mode) if digits && mode > 0o777 => {
                Err(Invalid::because("set-user-ID, set-group-ID and sticky bits are not supported"))
            }
            _ => Err(Invalid::default()),
        }
    }
}

/// Refuses a number in quotes: a quoted value is a string.
fn unquoted(scalar: &Scalar) -> Result<(), Invalid> {
    if scalar.plain {
        return Ok(());
    }
    Err(Invalid::because("it is quoted, so it is a string").hint("remove the quotes"))
}

/// A whole number in decimal.
fn number<N: std::str::FromStr>(scalar: &Scalar) -> Result<N, Invalid> {
    unquoted(scalar)?;
    let digits = !scalar.text.is_empty() && scalar.text.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = scalar.text.len() > 1 && scalar.text.starts_with('0');
    match scalar.text.parse() {
        Ok(number) if digits && !leading_zero => Ok(number),
        _ if digits && leading_zero => {
            Err(Invalid::because("a leading zero could mean octal").hint("remove the zeros"))
        }
        _ => Err(Invalid::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar { text: text.to_owned(), plain: true }
    }

    #[test]
    fn durations_have_units() {
        for (text, ms) in [
            ("0s", Some(0)),
            ("250ms", Some(250)),
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("24h", Some(86_400_000)),
            ("30s1m", None),
            ("10", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("10s ", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(milliseconds(text), ms, "{text}");
        }
        assert_eq!(Duration::from_scalar(&plain("25h")), Err(Invalid::because("more than 24h")));
        assert_eq!(Duration::from_scalar(&plain("10")).unwrap_err().hint.unwrap(), "write `10s` for seconds");
        assert_eq!(
            Duration::from_scalar(&plain("5 min")).unwrap_err().hint.unwrap(),
            "write `5m` for minutes"
        );
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, size) in [
            ("1MiB", Some(1 << 20)),
            ("512 MiB", Some(512 << 20)),
            ("2GiB", Some(2 << 30)),
            ("1024KiB", Some(1 << 20)),
            ("512M", None),
            ("MiB", None),
            ("99999999999999999999GiB", None),
            ("18446744073709551615KiB", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
        assert_eq!(Size::from_scalar(&plain("1KiB")), Err(Invalid::because("less than 1MiB")));
        let hint = Size::from_scalar(&plain("512MB")).unwrap_err().hint.unwrap();
        assert_eq!(hint, "write `512MiB`: units here are powers of 1024");
    }

    #[test]
    fn cpus_are_counted_in_thousandths() {
        for (text, millis) in [
            ("0.5", Some(500)),
            ("2", Some(2000)),
            ("0.125", Some(125)),
            ("1.", None),
            (".5", None),
            ("1e3", None),
        ] {
            assert_eq!(thousandths(text), millis, "{text}");
        }
        assert!(Cpu::from_scalar(&plain("0")).is_err());
        assert!(Cpu::from_scalar(&plain("1025")).is_err());
        assert!(Cpu::from_scalar(&Scalar { text: "1".into(), plain: false }).is_err());
    }

    #[test]
    fn a_number_is_decimal_and_has_no_quotes() {
        assert_eq!(Port::from_scalar(&plain("80")), Ok(Port(80)));
        for text in ["0", "65536", "-1", "+80", "080", "0x50", "8_0", "80.0", ""] {
            assert!(Port::from_scalar(&plain(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [
            ("0444", Some(0o444)),
            ("755", Some(0o755)),
            ("0o644", Some(0o644)),
            ("4755", None),
            ("999", None),
            ("7", None),
        ] {
            assert_eq!(Mode::from_scalar(&plain(text)).ok(), mode.map(Mode), "{text}");
        }
    }
}
