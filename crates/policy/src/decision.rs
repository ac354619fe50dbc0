//! Decisions: by which rule, why, and how they are shown.
//!
//! Invariant: what is shown contains only printable ASCII of bounded length, whatever a program asked for: records go to logs, and
//! from there to terminals.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::host::{Host, HostError, Target};
use crate::ports::Port;
use crate::registry::Special;

/// What was decided about one connection or lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an ignored decision allows everything"]
pub struct Decision {
    /// Whose rules decided.
    pub origin: Origin,
    /// The rule that decided, if one did.
    pub rule: Option<RuleRef>,
    /// Why.
    pub reason: Reason,
}

/// Whose rules decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The measured manifest.
    Manifest,
    /// The host's operator.
    Operator,
}

/// One rule, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// The part.
    pub section: Section,
    /// The list in it.
    pub list: List,
    /// The index in that list, from 0.
    pub index: u32,
}

/// A part of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The rules of the service that asked.
    Service,
    /// The rules of every service.
    Every,
    /// The operator's list.
    Operator,
}

/// A list of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `allow`.
    Allow,
    /// `deny`.
    Deny,
    /// `only`.
    Only,
    /// `host`.
    Host,
}

/// Why something is allowed or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Allowed: a rule allows the name.
    Name,
    /// Allowed: a rule allows the address by number.
    Number,
    /// Allowed: the operator's list does not restrict it.
    Unrestricted,
    /// Allowed until the first bytes are known: not all names of the address are allowed, so these bytes must name one that is.
    Pending,
    /// Refused by a deny rule.
    Denied,
    /// No rule allows it.
    NoRule,
    /// A special address that no rule opens by number.
    Special {
        /// Its range.
        special: &'static Special,
        /// The special address: the target, or one within it.
        address: IpAddr,
        /// The form in which the target contains it.
        form: Option<&'static str>,
    },
    /// Port 0.
    PortZero,
    /// A name without addresses.
    NoAddress,
    /// More addresses than are judged at once.
    TooManyAddresses,
    /// No name is bound to the address, and no rule allows it by number.
    Unbound,
    /// Names of the address are not all allowed, and the connection names none.
    HelloMissing,
    /// The connection names something that is not bound to its address.
    HelloElsewhere,
    /// What the connection names is not a host.
    HelloInvalid(HostError),
}

impl Decision {
    /// Whether the connection or lookup may go on.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.reason.allows()
    }

    /// A decision of the manifest's side without a rule.
    pub(crate) fn plain(reason: Reason) -> Self {
        Self { origin: Origin::Manifest, rule: None, reason }
    }
}

impl Reason {
    /// Whether it is a reason to allow.
    #[must_use]
    pub fn allows(&self) -> bool {
        matches!(self, Self::Name | Self::Number | Self::Unrestricted | Self::Pending)
    }

    /// The keyword in records.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Number => "number",
            Self::Unrestricted => "unrestricted",
            Self::Pending => "pending",
            Self::Denied => "denied",
            Self::NoRule => "no-rule",
            Self::Special { .. } => "special-address",
            Self::PortZero => "port-zero",
            Self::NoAddress => "no-address",
            Self::TooManyAddresses => "too-many-addresses",
            Self::Unbound => "unbound",
            Self::HelloMissing => "hello-missing",
            Self::HelloElsewhere => "hello-elsewhere",
            Self::HelloInvalid(_) => "hello-invalid",
        }
    }
}

impl RuleRef {
    /// Its place, as in [`crate::Problem::at`].
    #[must_use]
    pub fn place(&self, service: &str) -> String {
        let index = self.index;
        let list = match self.list {
            List::Allow => "allow",
            List::Deny => "deny",
            List::Only => "only",
            List::Host => "host",
        };
        match self.section {
            Section::Service => format!("services.{}.{list}[{index}]", printable(service)),
            Section::Every => format!("every.{list}[{index}]"),
            Section::Operator => format!("operator.{list}[{index}]"),
        }
    }
}

/// A decision as one line: `egress refused service=web to=10.0.0.1 port=5432 protocol=tcp reason=no-rule`. As JSON it has the same
/// fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Whether it was allowed.
    pub allowed: bool,
    /// The service that asked.
    pub service: String,
    /// The name or address.
    pub to: String,
    /// The port; none if the text could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp` or `udp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// The place of the rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The keyword of the reason.
    pub reason: &'static str,
}

impl Record {
    /// The record of a decision about `host`.
    #[must_use]
    pub fn new(service: &str, host: &Host, port: Port, decision: &Decision) -> Self {
        Self {
            allowed: decision.allowed(),
            service: printable(service),
            to: host.to_string(),
            port: Some(port.number),
            protocol: Some(port.protocol.as_str()),
            rule: decision.rule.map(|rule| rule.place(service)),
            reason: decision.reason.key(),
        }
    }
}

/// The record of a text that is no host, and so was refused before any rule.
#[must_use]
pub fn refused_input(service: &str, text: &str) -> Record {
    let (service, to) = (printable(service), printable(text));
    Record { allowed: false, service, to, port: None, protocol: None, rule: None, reason: "invalid-host" }
}

/// The maximum number of characters of a foreign text in a record: those of the longest name.
const MAX_PRINTED: usize = crate::host::MAX_NAME;

/// Printable ASCII without spaces, quotes, backslashes and equals signs; the rest as in `\u{1b}`.
pub(crate) fn printable(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '"' | '\'' | '\\' | '=');
    let mut printed = String::new();
    for letter in text.chars().take(MAX_PRINTED) {
        if plain(letter) {
            printed.push(letter);
        } else {
            printed.extend(letter.escape_unicode());
        }
    }
    printed
}

/// Several lines for a person: the decision, the rule, the reason.
pub(crate) fn explanation(service: &str, target: &Target, decision: &Decision, rule: Option<&str>) -> String {
    let verdict = if decision.allowed() { "allowed" } else { "refused" };
    let whose = match decision.origin {
        Origin::Manifest => "",
        Origin::Operator => ", by the operator's list",
    };
    let rule = rule.map(|rule| format!("\n  rule: {rule}")).unwrap_or_default();
    format!("{verdict}{whose}: {} to {target}{rule}\n  why: {}", printable(service), decision.reason)
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.allowed { "allowed" } else { "refused" };
        write!(f, "egress {verdict} service={} to={}", self.service, self.to)?;
        if let (Some(port), Some(protocol)) = (self.port, self.protocol) {
            write!(f, " port={port} protocol={protocol}")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, " rule={rule}")?;
        }
        write!(f, " reason={}", self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("this rule allows the name; each of its addresses is checked when it is resolved"),
            Self::Number => f.write_str("this rule allows the address by number"),
            Self::Unrestricted => f.write_str("the operator's list does not restrict it"),
            Self::Pending => f.write_str(
                "several names have this address and not all are allowed: TLS or HTTP must name one that is",
            ),
            Self::Denied => f.write_str("this rule denies it, and a deny rule wins over every allow rule"),
            Self::NoRule => f.write_str("no rule allows this host, port and protocol, and what no rule allows is refused"),
            Self::Special { special, address, form } => {
                if let Some(form) = form {
                    write!(f, "the address contains {address} ({form}): ")?;
                }
                write!(
                    f,
                    "{address} is {} ({}, {}); only a rule with a range within {} allows it, never a name or a wider range",
                    special.class.as_str(),
                    special.range,
                    special.source,
                    special.range,
                )
            }
            Self::PortZero => f.write_str("port 0 is not a port that can be connected to"),
            Self::NoAddress => f.write_str("the name has no addresses"),
            Self::TooManyAddresses => f.write_str("the answer has more addresses than are checked; the rest is not used"),
            Self::Unbound => f.write_str(
                "no rule allows this address by number, and no recent DNS answer for this service contained it",
            ),
            Self::HelloMissing => f.write_str(
                "several names have this address, not all are allowed, and TLS or HTTP named none: the client must send a server name",
            ),
            Self::HelloElsewhere => f.write_str("TLS or HTTP names a host that is not bound to this address"),
            Self::HelloInvalid(error) => write!(f, "what TLS or HTTP names is not a host: {error}"),
        }
    }
}
