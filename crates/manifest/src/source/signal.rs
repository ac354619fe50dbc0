//! Signals by name.
//!
//! Invariant: a name stands for the number that the enclave's kernel uses (`signal(7)`, the same on x86-64 and Arm),
//! never for that of the build machine.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::hint;
use super::read::{FromScalar, Invalid};
use super::tree::Scalar;

/// Names by number, from 1; `signal(7)`.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Alternative names.
const ALIASES: [(&str, &str); 3] = [("IOT", "ABRT"), ("POLL", "IO"), ("CLD", "CHLD")];

/// The first real-time signal available to programs: glibc reserves two of the kernel's.
const RTMIN: u8 = 34;

/// The last signal.
const RTMAX: u8 = 64;

/// A signal's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signal(pub(super) u8);

impl Signal {
    /// The default stop signal.
    pub(super) const TERM: Self = Self(15);

    /// By name, with or without `SIG`, or by number.
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = by_number(name).or_else(|| by_name(name)).or_else(|| real_time(name));
        match number {
            Some(19) => {
                Err(Invalid::because("SIGSTOP does not end a service").hint("the usual one is `SIGTERM`"))
            }
            Some(number) => Ok(Self(number)),
            None => Err(Invalid {
                reason: "see signal(7)".into(),
                hint: hint::nearest(name, NAMES).map(|near| format!("did you mean `SIG{near}`?")),
            }),
        }
    }
}

impl FromScalar for Signal {
    const EXPECTED: &'static str = "a signal such as `SIGTERM`";

    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid> {
        Self::parse(&scalar.text)
    }
}

impl JsonSchema for Signal {
    fn schema_name() -> Cow<'static, str> {
        "Signal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A signal by name or number, as in signal(7): `SIGTERM`, `QUIT`, `SIGRTMIN+3`.",
            "examples": ["SIGTERM", "SIGINT", "SIGQUIT"],
        })
    }
}

fn by_number(text: &str) -> Option<u8> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| (1..=RTMAX).contains(number))
}

fn by_name(name: &str) -> Option<u8> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, real)| real);
    let index = NAMES.iter().position(|known| *known == name)?;
    u8::try_from(index).ok()?.checked_add(1)
}

/// `RTMIN`, `RTMIN+n`, `RTMAX`, `RTMAX-n`.
fn real_time(name: &str) -> Option<u8> {
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        None => rest.is_empty().then_some(0),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<u8>().ok(),
        Some(_) => None,
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else {
        RTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_match_linux() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("15", 15),
            ("SIGQUIT", 3),
            ("SIGWINCH", 28),
            ("SIGSYS", 31),
            ("SIGPOLL", 29),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(Signal::parse(text).ok(), Some(Signal(number)), "{text}");
        }
        for text in
            ["", "0", "65", "SIG", "SIGRTMIN+31", "SIGRTMIN-1", "RTMAX-31", "RTMIN+x", "SIGSTOP", "+15"]
        {
            assert!(Signal::parse(text).is_err(), "{text}");
        }
        assert_eq!(Signal::parse("SIGTREM").unwrap_err().hint.as_deref(), Some("did you mean `SIGTERM`?"));
    }
}
