//! `doctor`.

use cloister_wire::exit;

use crate::backends::finding::Finding;
use crate::doctor::{Diagnosis, diagnose};
use crate::error::Result;
use crate::output::{self, Table};

use super::{DONE, block_on};

/// Examines the host. Exits with 0 if enclaves can be built and run here.
pub(crate) fn doctor(json: bool) -> Result<u8> {
    let diagnosis = block_on(async { Ok(diagnose().await) })?;
    if json {
        output::json(&diagnosis)?;
    } else {
        output::data(&text(&diagnosis))?;
    }
    Ok(if diagnosis.ready { DONE } else { exit::OUR_FAILURE })
}

fn text(diagnosis: &Diagnosis) -> String {
    let mut table = Table::default();
    for finding in &diagnosis.findings {
        table.row([sign(finding).to_owned(), finding.what.to_owned(), finding.found.clone()]);
        if let Some(fix) = &finding.fix {
            table.row([String::new(), String::new(), format!("to fix: {fix}")]);
        }
    }
    let verdict =
        if diagnosis.ready { "Enclaves can be built and run here." } else { "Enclaves cannot run here yet." };
    format!("{}\n\n{verdict}", table.render())
}

const fn sign(finding: &Finding) -> &'static str {
    match (finding.works, finding.optional) {
        (true, _) => "ok",
        (false, true) => "-",
        (false, false) => "MISSING",
    }
}
