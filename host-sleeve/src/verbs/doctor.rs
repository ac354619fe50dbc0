//! `doctor`: what this host can run, and what would add what is missing.

use serde::Serialize;

use crate::error::Result;
use crate::output;

use super::DONE;

/// Looks at the host.
pub(crate) fn doctor(json: bool) -> Result<u8> {
    let findings: Vec<Finding> = Vec::new();
    if json {
        output::json(&findings)?;
    }
    Ok(DONE)
}

#[derive(Serialize)]
struct Finding {
    what: String,
}
