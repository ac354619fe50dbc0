//! From rules as they are written to rules as they are applied.
//!
//! Invariant: this is the only place where rules are checked, and every problem is reported with its place.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::cidr::Cidr;
use crate::pattern::Pattern;
use crate::ports::{Ports, Protocols};
use crate::registry::special;
use crate::ruleset::{Checked, To};
use crate::source::{Report, Rule};

/// The maximum number of rules of one list.
pub const MAX_RULES: usize = 4096;

/// The maximum number of port ranges of one rule.
pub const MAX_RANGES: usize = 64;

/// The maximum length of a value that a message shows.
const SHOWN: usize = 80;

/// Which kinds of target a list may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Targets {
    All,
    /// Ranges of the host's own addresses only, as in the operator's `host`; no names.
    OfTheHost,
}

/// Checks a list at `place`. A rule with a problem is left out; the report is not empty then.
pub(crate) fn list(rules: &[Rule], place: &str, targets: Targets, report: &mut Report) -> Vec<Checked> {
    if rules.len() > MAX_RULES {
        report.push(place.to_owned(), format!("{} rules, more than the limit of {MAX_RULES}", rules.len()));
        return Vec::new();
    }
    let mut checked = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        checked.extend(one(rule, &format!("{place}[{index}]"), targets, report));
    }
    checked
}

fn one(rule: &Rule, place: &str, targets: Targets, report: &mut Report) -> Option<Checked> {
    let to = match to(&rule.to, targets) {
        Ok(to) => Some(to),
        Err(what) => {
            report.push(format!("{place}.to"), format!("`{}`: {what}", shown(&rule.to)));
            None
        }
    };
    let ports = ports(&rule.ports, place, report);
    let protocols = Protocols::parse(&rule.protocol);
    if protocols.is_none() {
        let what = format!("`{}`: not a protocol: write `tcp`, `udp` or `any`", shown(&rule.protocol));
        report.push(format!("{place}.protocol"), what);
    }
    Some(Checked { to: to?, ports: ports?, protocols: protocols? })
}

/// A range if it is an address or has a slash or a colon, which no name has; else a pattern. A mistyped range is never a name.
fn to(text: &str, targets: Targets) -> Result<To, String> {
    if text.contains(['/', ':']) || text.parse::<IpAddr>().is_ok() {
        let range = Cidr::parse(text).map_err(|error| error.to_string())?;
        if targets == Targets::OfTheHost && !leads_to_host(range) {
            return Err(
                "not a range of the host's own addresses: loopback, link-local, a metadata service, multicast or broadcast"
                    .to_owned(),
            );
        }
        return Ok(To::Number(range));
    }
    if targets == Targets::OfTheHost {
        return Err(
            "not a range of addresses: the host's own addresses are allowed by number only".to_owned()
        );
    }
    Pattern::parse(text).map(To::Name).map_err(|error| error.to_string())
}

/// Whether the range lies within a special range of the host's own addresses.
fn leads_to_host(range: Cidr) -> bool {
    special(range.network())
        .is_some_and(|special| special.class.is_of_the_host() && range.is_within(&special.range))
}

fn ports(texts: &[String], place: &str, report: &mut Report) -> Option<Ports> {
    if texts.is_empty() || texts.len() > MAX_RANGES {
        let what = format!("{} entries: list from 1 to {MAX_RANGES} ports or ranges, or `any`", texts.len());
        report.push(format!("{place}.ports"), what);
        return None;
    }
    let mut ranges = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match Ports::range(text) {
            Ok(range) => ranges.push(range),
            Err(error) => {
                report.push(format!("{place}.ports[{index}]"), format!("`{}`: {error}", shown(text)));
            }
        }
    }
    (ranges.len() == texts.len()).then(|| Ports::new(ranges))
}

/// A value for a message: shortened, without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars().take(SHOWN) {
        if letter.is_control() || letter == '`' || (!letter.is_ascii() && !letter.is_alphanumeric()) {
            // Writing to a string does not fail.
            write!(shown, "{}", letter.escape_default()).unwrap_or_default();
        } else {
            shown.push(letter);
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
