//! The rules as they are written: what a manifest and the operator's list hold.
//!
//! Invariant: nothing here has been checked. [`crate::Policy::new`] and [`crate::Operator::new`] check everything once and report all
//! problems at once, so the fields are texts: a wrong port is a problem with a place, not the end of reading.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The maximum number of problems that are kept: enough for one round of corrections.
pub const MAX_PROBLEMS: usize = 100;

/// The egress rules of a manifest. What no rule allows is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Rules of every service.
    pub every: Rules,
    /// Rules of one service, by its name.
    pub services: BTreeMap<String, Rules>,
}

/// Rules; their order has no meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// What is allowed.
    pub allow: Vec<Rule>,
    /// What is refused although a rule allows it.
    pub deny: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A pattern of names (`api.example.com`, `*.example.com`, `**.example.com`) or a range of addresses (`10.0.0.0/8`, `192.0.2.1`).
    pub to: String,
    /// Ports: `443`, `8000-8099`, or `any`; at least one.
    pub ports: Vec<String>,
    /// `tcp`, `udp` or `any`.
    pub protocol: String,
}

/// The host's own restrictions for all services of an enclave. A field that is left out restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OperatorList {
    /// If given: what is not listed is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<Rule>>,
    /// What is refused.
    pub deny: Vec<Rule>,
    /// Ranges of the host's own addresses (loopback, link-local, metadata services) that the enclave may reach, if its manifest allows
    /// them too.
    pub host: Vec<Rule>,
}

/// One problem of the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its place, such as `services.web.allow[2].ports[0]`.
    pub at: String,
    /// What is wrong, with the value, and what to do.
    pub what: String,
}

/// All problems of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    problems: Vec<Problem>,
    dropped: usize,
}

impl Report {
    /// The problems in the order of the rules, at most [`MAX_PROBLEMS`].
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The number of problems left out.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    pub(crate) fn push(&mut self, at: String, what: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { at, what });
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// `value` if there are no problems.
    pub(crate) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.problems.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let line = if index == 0 { "" } else { "\n" };
            write!(f, "{line}{}: {}", problem.at, problem.what)?;
        }
        if self.dropped > 0 {
            write!(f, "\n{} more problems are not shown", self.dropped)?;
        }
        Ok(())
    }
}
