//! `verify`: whether evidence proves what it is required to prove.
//!
//! Invariant: the exit code is 0 only if every check that applies passed.

use std::time::{SystemTime, UNIX_EPOCH};

use cloister_evidence::Verdict;
use serde_json::{Value, json};

use crate::cli::Verify;
use crate::error::{ErrorContext as _, Result};
use crate::output;
use crate::state::{EnclaveDir, Root};
use crate::verify::{self, Source};

use super::{DONE, attested};

/// The exit code for evidence that is not accepted.
const REFUSED: u8 = 1;

/// Verifies evidence, and prints the verdict.
pub(crate) fn verify(args: &Verify, json: bool) -> Result<u8> {
    let source = match named(args)? {
        Some(directory) => Source::of_enclave(args, || attested::evidence(&directory))?,
        None => Source::of(args)?,
    };
    // After the request, which may take some time: evidence is never from the future because of that.
    let now = args.at.map_or_else(current_time, Ok)?;
    let verdict = verify::verify(args, &source, now)?;
    if json {
        output::json(&document(&verdict, now, args.at.is_some()))?;
    } else {
        output::data(&text(&verdict, args.at))?;
    }
    Ok(if verdict.accepted() { DONE } else { REFUSED })
}

/// The enclave that the argument names, if it has the form of a name and is no file.
fn named(args: &Verify) -> Result<Option<EnclaveDir>> {
    let text = args.evidence.to_str().filter(|text| !text.contains(['/', '.', ':']) && *text != "-");
    match text.filter(|_| !args.evidence.exists()) {
        Some(name) => Root::open()?.find(name).map(Some).map_err(|error| {
            error.hint(format!(
                "`{name}` is neither a file here nor an enclave of yours; `host-sleeve ps` lists enclaves"
            ))
        }),
        None => Ok(None),
    }
}

/// Seconds since 1970.
fn current_time() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(std::io::Error::other);
    Ok(now.context(|| "this host's clock is before 1970".to_owned())?.as_secs())
}

fn document(verdict: &Verdict, now: u64, is_recorded: bool) -> Value {
    let checks: Vec<Value> = (verdict.checks.iter())
        .map(|check| {
            json!({"name": check.name, "outcome": check.outcome.word().to_lowercase(), "text": check.outcome.text()})
        })
        .collect();
    json!({
        "verified": verdict.accepted(),
        "platform": verdict.platform,
        "time": now,
        "time_given": is_recorded,
        "checks": checks,
    })
}

/// The verdict for a person: the result first, then every check.
fn text(verdict: &Verdict, at: Option<u64>) -> String {
    let platform = match verdict.platform {
        "virtual" => "VIRTUAL (no hardware protects this enclave)",
        "nitro" => "AWS Nitro Enclaves",
        "snp" => "AMD SEV-SNP",
        "tdx" => "Intel TDX",
        other => other,
    };
    let result = match verdict.failure() {
        None => "VERIFIED".to_owned(),
        Some(check) => format!("NOT VERIFIED ({})", check.name),
    };
    let time = at.map_or_else(String::new, |at| format!(", as of {at} seconds since 1970, not now"));
    format!("{result}: {platform}{time}\n\n{verdict}")
}
