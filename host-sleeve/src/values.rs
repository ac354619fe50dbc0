//! Values on the command line: sizes, durations, ports, names and signals.
//!
//! Invariant: one syntax per kind of value; an error shows a valid example.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use cloister_image::limits::Limits;
use serde::{Deserialize, Serialize};

/// A port that the sleeve listens on, and the ingress port behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Publish {
    /// The address that the sleeve listens on. Port 0: any free port.
    pub(crate) listen: SocketAddr,
    /// The port of an `ingress` entry of the manifest.
    pub(crate) ingress: u16,
}

/// Maximum length of an enclave name in bytes: that of a host name in DNS, and of a name in a manifest.
pub(crate) const MAX_NAME: usize = 63;

/// Parses `[ADDRESS:]PORT:INGRESS_PORT`; an IPv6 address is in brackets.
pub(crate) fn publish(text: &str) -> Result<Publish, String> {
    let wrong = || format!("`{text}` is not [ADDRESS:]PORT:INGRESS_PORT, such as 8080:80 or 0.0.0.0:8080:80");
    let (front, ingress) = text.rsplit_once(':').ok_or_else(wrong)?;
    let ingress: u16 = ingress.parse().map_err(|_| wrong())?;
    if ingress == 0 {
        return Err(wrong());
    }
    let (address, port) = match front.rsplit_once(':') {
        None => (IpAddr::V4(Ipv4Addr::LOCALHOST), front),
        Some((address, port)) => (ip(address).ok_or_else(wrong)?, port),
    };
    let port: u16 = port.parse().map_err(|_| wrong())?;
    Ok(Publish { listen: SocketAddr::new(address, port), ingress })
}

/// Parses `PORT`, `:PORT` or `ADDRESS:PORT`.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("`{text}` is not [ADDRESS]:PORT, such as :9100");
    let (address, port) = text.rsplit_once(':').unwrap_or(("", text));
    let address = if address.is_empty() { Some(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { ip(address) };
    Ok(SocketAddr::new(address.ok_or_else(wrong)?, port.parse().map_err(|_| wrong())?))
}

fn ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    }
}

/// Parses a size: a number and `KiB`, `MiB` or `GiB` (`K`, `M`, `G` mean the same).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size, such as 512MiB or 2GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "k" | "ki" | "kib" => 10,
        "m" | "mi" | "mib" => 20,
        "g" | "gi" | "gib" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// A changed limit on the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageLimit {
    /// One of [`Limits::NAMES`].
    pub(crate) name: &'static str,
    /// The new limit.
    pub(crate) value: u64,
}

/// Parses `NAME=VALUE`, where the value is a count or a size.
pub(crate) fn image_limit(text: &str) -> Result<ImageLimit, String> {
    let wrong = || {
        let names = Limits::NAMES.join(", ");
        format!("`{text}` is not NAME=VALUE, such as unpacked=128GiB or names=2000000; the names are {names}")
    };
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let name = Limits::NAMES.into_iter().find(|known| *known == name).ok_or_else(wrong)?;
    let value =
        value.parse().ok().filter(|count| *count > 0).or_else(|| size(value).ok()).ok_or_else(wrong)?;
    Ok(ImageLimit { name, value })
}

/// Parses a duration: a number and `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration, such as 500ms, 10s, 2m, 1h or 30d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    };
    milliseconds.map(Duration::from_millis).ok_or_else(wrong)
}

/// Parses a number of lines.
pub(crate) fn lines(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number of lines, such as 0 or 100"))
}

/// Parses an enclave's name.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()];
    let fits = text.len() <= MAX_NAME
        && ends.into_iter().all(|end| end.is_some_and(good))
        && text.bytes().all(|c| good(c) || c == b'-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a name consists of 1 to {MAX_NAME} lower-case letters, digits and hyphens, and neither starts nor ends with a hyphen"
        ))
    }
}

/// Signals by name (`signal(7)`, x86 and ARM numbers), for `service signal` and for reporting terminations.
const SIGNALS: [(u8, &str); 31] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (4, "ILL"),
    (5, "TRAP"),
    (6, "ABRT"),
    (7, "BUS"),
    (8, "FPE"),
    (9, "KILL"),
    (10, "USR1"),
    (11, "SEGV"),
    (12, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (17, "CHLD"),
    (18, "CONT"),
    (19, "STOP"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (23, "URG"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (28, "WINCH"),
    (29, "IO"),
    (30, "PWR"),
    (31, "SYS"),
];

/// Parses a signal: `HUP`, `SIGHUP` or a number from 1 to 64.
pub(crate) fn signal(text: &str) -> Result<u8, String> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = SIGNALS.iter().find(|(_, name)| *name == bare).map(|(number, _)| *number);
    let by_number = || text.parse().ok().filter(|number| (1..=64).contains(number));
    by_name.or_else(by_number).ok_or_else(|| format!("`{text}` is not a signal, such as HUP or 10"))
}

/// A signal's human-readable name: `SIGKILL`, or `signal 40`.
pub(crate) fn signal_name(number: u8) -> String {
    match SIGNALS.iter().find(|(candidate, _)| *candidate == number) {
        Some((_, name)) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

/// A human-readable size, in the largest unit that fits; one decimal below ten units.
pub(crate) fn show_size(bytes: u64) -> String {
    const STEPS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in STEPS {
        let whole = bytes >> shift;
        if whole > 0 {
            let tenths = ((bytes - (whole << shift)) * 10) >> shift;
            return if whole >= 10 || tenths == 0 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{tenths} {unit}")
            };
        }
    }
    format!("{bytes} B")
}

/// A human-readable duration, in at most two units.
pub(crate) fn show_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds}.{} s", span.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A value of the wire protocol as its JSON text, without quotes and braces.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default().replace(['"', '{', '}'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_port_is_on_the_loopback_unless_an_address_is_given() {
        let ports = |text| publish(text).map(|p| (p.listen.to_string(), p.ingress));
        assert_eq!(ports("8080:80"), Ok(("127.0.0.1:8080".into(), 80)));
        assert_eq!(ports("0.0.0.0:0:80"), Ok(("0.0.0.0:0".into(), 80)));
        assert_eq!(ports("[::1]:8080:80"), Ok(("[::1]:8080".into(), 80)));
    }

    #[test]
    fn malformed_ports_are_refused() {
        for text in ["", "80", "a:80", "80:0", "70000:80", "8080:80:", "::1:8080:80", "localhost:1:2"] {
            assert!(publish(text).is_err(), "{text}");
        }
    }

    #[test]
    fn metrics_are_served_on_the_loopback_unless_an_address_is_given() {
        let at = |text| listen(text).map(|address| address.to_string());
        assert_eq!(at(":9100"), Ok("127.0.0.1:9100".into()));
        assert_eq!(at("9100"), Ok("127.0.0.1:9100".into()));
        assert_eq!(at("[::]:9100"), Ok("[::]:9100".into()));
        assert!(at("").is_err() && at("host:9100").is_err() && at(":x").is_err());
    }

    #[test]
    fn a_size_requires_a_unit() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("2G"), Ok(2 << 30));
        for text in ["512", "MiB", "0MiB", "1.5GiB", "99999999999GiB", "-1MiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_requires_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(duration("30d"), Ok(Duration::from_hours(720)));
        assert!(duration("10").is_err() && duration("s").is_err() && duration("1w").is_err());
    }

    #[test]
    fn a_number_of_lines_is_not_negative() {
        assert_eq!(lines("0"), Ok(0));
        assert_eq!(lines("-1").unwrap_err(), "`-1` is not a number of lines, such as 0 or 100");
    }

    #[test]
    fn a_name_is_a_valid_directory_name() {
        assert!(name("web-2").is_ok());
        for text in ["", "Web", "-web", "web-", "a/b", "..", "a b", &"x".repeat(64)] {
            assert!(name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_signal_has_a_name_and_a_number() {
        assert_eq!(signal("sigterm"), Ok(15));
        assert_eq!(signal("10"), Ok(10));
        assert!(signal("0").is_err() && signal("65").is_err() && signal("NO").is_err());
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(40), "signal 40");
    }

    #[test]
    fn sizes_and_durations_are_shown_short() {
        assert_eq!(show_size(512 << 20), "512 MiB");
        assert_eq!(show_size(3 << 29), "1.5 GiB");
        assert_eq!(show_size(10), "10 B");
        assert_eq!(show_duration(Duration::from_millis(2345)), "2.3 s");
        assert_eq!(show_duration(Duration::from_secs(3725)), "1 h 2 min");
    }
}
