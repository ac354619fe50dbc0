//! How far the enclave's date can be trusted, for the host and for programs inside.
//!
//! Invariant: a date is trusted only if a source that the host does not control has corrected it, and not longer ago than its
//! bound allows.

use serde::{Deserialize, Serialize};

/// How far the enclave's date can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// Whether programs may rely on it.
    pub trusted: bool,
    /// Where the date comes from.
    pub source: TimeSource,
    /// The date's error at most, in milliseconds; `None` if nothing is known about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bound_ms: Option<u64>,
}

/// Where the enclave's date comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeSource {
    /// From nowhere: the host's was implausible, and init replaced it.
    None,
    /// From the host.
    Host,
    /// From the clock of the hypervisor, where the enclave trusts that: on Nitro.
    Ptp,
}

impl TimeSource {
    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Host => "host",
            Self::Ptp => "ptp",
        }
    }
}

/// One line for people.
impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let trusted = if self.trusted { "yes" } else { "no" };
        write!(f, "trusted: {trusted}, source: {}, bound: ", self.source.name())?;
        match self.bound_ms {
            Some(bound) => write!(f, "{bound} ms"),
            None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_these_bytes_and_this_text() {
        let host = Time { trusted: false, source: TimeSource::Host, bound_ms: None };
        assert_eq!(serde_json::to_string(&host).unwrap(), r#"{"trusted":false,"source":"host"}"#);
        assert_eq!(host.to_string(), "trusted: no, source: host, bound: none");
        let none = Time { source: TimeSource::None, ..host };
        assert_eq!(none.to_string(), "trusted: no, source: none, bound: none");
        let ptp = Time { trusted: true, source: TimeSource::Ptp, bound_ms: Some(12) };
        let bytes = r#"{"trusted":true,"source":"ptp","bound_ms":12}"#;
        assert_eq!(serde_json::to_string(&ptp).unwrap(), bytes);
        assert_eq!(serde_json::from_str::<Time>(bytes).unwrap(), ptp);
        assert_eq!(ptp.to_string(), "trusted: yes, source: ptp, bound: 12 ms");
    }
}
