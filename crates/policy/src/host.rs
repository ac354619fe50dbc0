//! Where a connection goes: a name or an address, in its one canonical form.
//!
//! Invariant: two texts for the same destination have the same canonical form, and the canonical form of a canonical form is itself. A
//! text that some program could read in another way (a zone, a percent sign, white space) is refused.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use crate::address::canonical;
use crate::numeric;
use crate::ports::{Port, Protocol};

/// The maximum length of a label in bytes (RFC 1035, section 2.3.4).
pub const MAX_LABEL: usize = 63;

/// The maximum length of a name in bytes, without the root's dot: 255 in a DNS message with the lengths of the labels (RFC 1035,
/// section 2.3.4).
pub const MAX_NAME: usize = 253;

/// The maximum length of a text in bytes. Four times the longest name: enough for a name in UTF-8, and the work stays bounded.
pub const MAX_INPUT: usize = 1024;

/// All of ASCII except letters, digits, `-`, `.`, and `_`, which service names have (`_sip._tcp`, RFC 2782).
const REFUSED_ASCII: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// A canonical DNS name: lower-case ASCII labels separated by single dots, without the root's dot. Not an address, not `localhost`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A canonical host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name.
    Name(Name),
    /// An address; IPv4-mapped IPv6 addresses are IPv4 addresses.
    Address(IpAddr),
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: Port,
}

/// Why a text is not a host, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No text, or only the root's dot.
    #[error("the host is empty: give a name such as `example.com` or an address")]
    Empty,
    /// It is over [`MAX_INPUT`], [`MAX_NAME`] or [`MAX_LABEL`].
    #[error("the name is too long: at most {MAX_NAME} bytes, and {MAX_LABEL} between two dots")]
    TooLong,
    /// Two dots in a row, or one at the start.
    #[error("a label is empty: a name has exactly one dot between two labels")]
    EmptyLabel,
    /// A character that no host name contains.
    #[error("`{}` is not allowed in a host: a name has letters, digits, `-`, `_` and `.`", .0.escape_default())]
    Character(char),
    /// An IPv6 address with a zone.
    #[error("an address with a zone (`%`) has a meaning on one machine only: give an address without one")]
    Zone,
    /// Brackets or colons, but not an IPv6 address.
    #[error("this is not an IPv6 address: it has eight groups of hexadecimal digits, or `::`")]
    NotIpv6,
    /// The last label is a number, but it is not an IPv4 address.
    #[error(
        "the last label is a number, so this is an IPv4 address, and it is not valid: give four numbers from 0 to 255"
    )]
    NotIpv4,
    /// `localhost` and everything below it (RFC 6761, section 6.3).
    #[error(
        "`localhost` is the machine itself and never leaves the enclave: give an address of the loopback interface"
    )]
    Localhost,
    /// Refused by UTS 46: a label that is not valid Unicode for a name, invalid Punycode, a hyphen at its start or end.
    #[error(
        "the name is not valid for internationalized domain names (UTS 46): check hyphens and `xn--` labels"
    )]
    Idna,
    /// An address where only a name is possible.
    #[error("this is an address, and a name is required here")]
    Address,
}

impl Host {
    /// Reads a name or an address in any spelling: case, a trailing dot, Unicode, brackets around IPv6, every form of `inet_aton`.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if text.len() > MAX_INPUT {
            return Err(HostError::TooLong);
        }
        if text.contains(['[', ']', ':']) {
            return ipv6(text).map(Self::Address);
        }
        let ascii = to_ascii(text)?;
        if numeric::is_numeric(&ascii) {
            let address = numeric::parse(&ascii).ok_or(HostError::NotIpv4)?;
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        if ascii.rsplit('.').next() == Some("localhost") {
            return Err(HostError::Localhost);
        }
        Ok(Self::Name(Name(ascii.into())))
    }
}

impl Name {
    /// Reads a name; an address in any spelling is refused.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match Host::parse(text)? {
            Host::Name(name) => Ok(name),
            Host::Address(_) => Err(HostError::Address),
        }
    }

    /// Reads the labels of a DNS message, without the root's. A label there may contain any byte: one that contains a dot, or is not
    /// ASCII, is refused.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, HostError> {
        let mut text = String::new();
        for label in labels {
            if text.len() > MAX_NAME {
                return Err(HostError::TooLong);
            }
            if !text.is_empty() {
                text.push('.');
            }
            if label.is_empty() {
                return Err(HostError::EmptyLabel);
            }
            for byte in label {
                if *byte == b'.' || !byte.is_ascii() {
                    return Err(HostError::Character(char::from(*byte)));
                }
                text.push(char::from(*byte));
            }
        }
        Self::parse(&text)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a host and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No port, none from 1 to 65535, or one with leading zeros.
    #[error("a port from 1 to 65535 is missing: write HOST:PORT, with an IPv6 address in brackets")]
    Port,
    /// The host is not valid.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Target {
    /// Reads `HOST:PORT`; an IPv6 address must be in brackets, since its last group could be a port.
    pub fn parse(text: &str, protocol: Protocol) -> Result<Self, TargetError> {
        let (host, port) = text.rsplit_once(':').ok_or(TargetError::Port)?;
        if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
            return Err(TargetError::Port);
        }
        // `parse` accepts a sign, and a leading zero could mean octal.
        let digits = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
        let number = port.parse().ok().filter(|_| digits).ok_or(TargetError::Port)?;
        Ok(Self { host: Host::parse(host)?, port: Port { number, protocol } })
    }
}

/// An IPv6 address, in brackets or without, and without a zone.
fn ipv6(text: &str) -> Result<IpAddr, HostError> {
    if text.contains('%') {
        return Err(HostError::Zone);
    }
    let inner = text.strip_prefix('[').map_or(Some(text), |rest| rest.strip_suffix(']'));
    let address = inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok()).ok_or(HostError::NotIpv6)?;
    Ok(canonical(IpAddr::V6(address)))
}

/// Lower-case ASCII labels by UTS 46, non-transitional, without the root's dot. The URL Standard allows hyphens in the third and fourth
/// place, which existing names have (`r3---x`); at the start and end of a label RFC 1123 does not.
pub(crate) fn to_ascii(text: &str) -> Result<String, HostError> {
    if let Some(refused) = text.chars().find(|letter| is_refused(*letter)) {
        return Err(HostError::Character(refused));
    }
    let ascii = Uts46::new()
        .to_ascii(text.as_bytes(), REFUSED_ASCII, Hyphens::CheckFirstLast, DnsLength::Ignore)
        .map_err(|_| HostError::Idna)?;
    let name = ascii.strip_suffix('.').unwrap_or(&ascii);
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.split('.').any(str::is_empty) {
        return Err(HostError::EmptyLabel);
    }
    if name.len() > MAX_NAME || name.split('.').any(|label| label.len() > MAX_LABEL) {
        return Err(HostError::TooLong);
    }
    Ok(name.to_owned())
}

/// Control characters, white space, and ASCII that is in no name: found before UTS 46 maps or ignores some of them.
fn is_refused(letter: char) -> bool {
    let name = letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    letter.is_control() || letter.is_whitespace() || (letter.is_ascii() && !name)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}
