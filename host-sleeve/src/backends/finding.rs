//! The result of one test of this host.
//!
//! Invariant: if a single command adds what is missing, the finding contains it.

use serde::Serialize;

use crate::error::Error;

/// The result of one test of this host.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// What was tested.
    pub(crate) what: &'static str,
    /// Whether it works.
    pub(crate) works: bool,
    /// Whether enclaves run without it.
    pub(crate) optional: bool,
    /// What was found.
    pub(crate) found: String,
    /// The command that adds what is missing, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

/// A finding that works.
pub(crate) fn works(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, works: true, optional: false, found: found.into(), fix: None }
}

/// A finding that does not work, and the command that adds it.
pub(crate) fn lacks(what: &'static str, found: impl Into<String>, fix: Option<&str>) -> Finding {
    Finding { what, works: false, optional: false, found: found.into(), fix: fix.map(str::to_owned) }
}

/// The same finding, marked as not required.
pub(crate) fn optional(finding: Finding) -> Finding {
    Finding { optional: true, ..finding }
}

/// A finding whose test failed, with the reasons.
pub(crate) fn failed(what: &'static str, error: &Error) -> Finding {
    let mut levels = vec![error.to_string()];
    levels.extend(error.reasons());
    lacks(what, levels.join(": "), error.details().hint.as_deref())
}
