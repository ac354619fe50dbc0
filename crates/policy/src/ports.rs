//! Ports and protocols.

use std::fmt;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP, and with it QUIC.
    Udp,
}

/// The protocols of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// One of them.
    Only(Protocol),
    /// Both.
    Any,
}

/// A port of a protocol. Port 0 is refused by every policy: no connection can be made to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// The ports of a rule: ranges, sorted, which neither overlap nor touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<(u16, u16)>);

/// Why a text is not a port or a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not of the form.
    #[error("not a port such as `443`, a range such as `8000-8099`, or `any`")]
    Form,
    /// Outside of 1 to 65535.
    #[error("not a port from 1 to 65535")]
    Number,
    /// The end is before the start.
    #[error("the range ends before it starts")]
    Order,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// The word in rules and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Protocols {
    /// Reads `tcp`, `udp` or `any`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "tcp" => Some(Self::Only(Protocol::Tcp)),
            "udp" => Some(Self::Only(Protocol::Udp)),
            "any" => Some(Self::Any),
            _ => None,
        }
    }

    /// Whether `protocol` is one of them.
    #[must_use]
    pub fn contains(self, protocol: Protocol) -> bool {
        self == Self::Any || self == Self::Only(protocol)
    }
}

impl Ports {
    /// Joins ranges. Each must start at 1 or above and not end before it starts, which [`Self::range`] ensures.
    #[must_use]
    pub fn new(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match joined.last_mut() {
                Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        Self(joined)
    }

    /// Reads one entry of a rule's list: `443`, `8000-8099` or `any`.
    pub fn range(text: &str) -> Result<(u16, u16), PortError> {
        if text == "any" {
            return Ok((1, u16::MAX));
        }
        let (start, end) = text.split_once('-').unwrap_or((text, text));
        let (start, end) = (port(start)?, port(end)?);
        if end < start { Err(PortError::Order) } else { Ok((start, end)) }
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= port);
        after.checked_sub(1).and_then(|index| self.0.get(index)).is_some_and(|(_, end)| port <= *end)
    }

    /// The ports that are in both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.ranges().peekable(), other.ranges().peekable());
        let mut both = Vec::new();
        while let (Some(one), Some(two)) = (left.peek().copied(), right.peek().copied()) {
            let (start, end) = (one.0.max(two.0), one.1.min(two.1));
            if start <= end {
                both.push((start, end));
            }
            if one.1 < two.1 {
                left.next()
            } else {
                right.next()
            };
        }
        Self(both)
    }

    /// All other ports from 1.
    pub(crate) fn others(&self) -> Self {
        let mut others = Vec::with_capacity(self.0.len() + 1);
        let mut next = Some(1);
        for (start, end) in self.ranges() {
            others.extend(next.filter(|next| *next < start).map(|next| (next, start - 1)));
            next = end.checked_add(1);
        }
        others.extend(next.map(|next| (next, u16::MAX)));
        Self(others)
    }

    /// The first port.
    pub(crate) fn first(&self) -> Option<u16> {
        self.0.first().map(|(start, _)| *start)
    }

    /// The ranges, each with its first and last port.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.0.iter().copied()
    }
}

fn port(text: &str) -> Result<u16, PortError> {
    // `parse` accepts a sign, and a leading zero could mean octal.
    if text.is_empty() || text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(if text == "0" { PortError::Number } else { PortError::Form });
    }
    text.parse().map_err(|_| PortError::Number)
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Only(protocol) => protocol.as_str(),
            Self::Any => "any",
        })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == [(1, u16::MAX)] {
            return f.write_str("any");
        }
        for (index, (start, end)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if start == end { write!(f, "{comma}{start}")? } else { write!(f, "{comma}{start}-{end}")? }
        }
        Ok(())
    }
}
