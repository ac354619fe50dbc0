//! One thing that was looked at.
//!
//! Its law: what is missing comes with what adds it, where one command does.

use serde::Serialize;

use crate::error::Error;

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) what: &'static str,
    /// Whether it works.
    pub(crate) works: bool,
    /// Whether enclaves run here without it.
    pub(crate) optional: bool,
    /// What was found.
    pub(crate) found: String,
    /// The command that adds what is missing, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

/// It works.
pub(crate) fn works(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, works: true, optional: false, found: found.into(), fix: None }
}

/// It does not, and this adds it.
pub(crate) fn lacks(what: &'static str, found: impl Into<String>, fix: Option<&str>) -> Finding {
    Finding { what, works: false, optional: false, found: found.into(), fix: fix.map(str::to_owned) }
}

/// The same, where enclaves run without it.
pub(crate) fn optional(finding: Finding) -> Finding {
    Finding { optional: true, ..finding }
}

/// It could not be looked at, or is not there.
pub(crate) fn failed(what: &'static str, error: &Error) -> Finding {
    lacks(what, error.to_string(), error.details().hint.as_deref())
}
