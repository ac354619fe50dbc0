//! `inspect` of an enclave image file: its contents, which of them are measured, and who signed it.
//!
//! Invariant: the file's own claims are marked as such, and every part that is not measured is listed.

use std::path::Path;

use cloister_image::eif::{Explanation, SignatureDetails, Validity};
use serde::Serialize;

use crate::error::Result;
use crate::output::{self, Table};
use crate::state::record::now_ms;
use crate::values::show_size;

use super::DONE;
use crate::values::word;

/// The result of `inspect --json` for a file.
#[derive(Serialize)]
struct File<'a> {
    path: &'a Path,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// Explains a file.
pub(super) fn inspect(path: &Path, explanation: &Explanation, json: bool) -> Result<u8> {
    if json {
        output::json(&File { path, explanation })?;
    } else {
        output::data(&text(path, explanation))?;
    }
    Ok(DONE)
}

fn text(path: &Path, file: &Explanation) -> String {
    let mut facts = Table::default();
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    fact("file", format!("{}, {}", path.display(), show_size(file.length)));
    fact("digest", file.digest.to_string());
    fact("format", format!("EIF 4 for {}, valid checksum {:08x}", word(&file.arch), file.checksum));
    fact("defaults", format!("{}, {} CPUs", show_size(file.default_memory), file.default_cpus));
    fact("command line", file.command_line.clone());
    if let Some(metadata) = &file.metadata {
        fact("own metadata", serde_json::to_string(metadata).unwrap_or_default());
    }
    match &file.signature {
        Some(signature) => signed(signature, &mut fact),
        None => fact("signature", "none".to_owned()),
    }
    let unmeasured = file.unmeasured.map(|what| format!("\n  {what}")).concat();
    format!("{}\n\n{}\n\n{}\n\nnot measured:{unmeasured}", facts.render(), sections(file), registers(file))
}

/// Whether the hardware accepts the certificate's validity period.
fn verdict(validity: Validity, now: u64) -> &'static str {
    if now < validity.not_before {
        "not valid yet, so AWS Nitro hardware does not boot it"
    } else if now > validity.not_after {
        "expired, so AWS Nitro hardware does not boot it"
    } else {
        "valid now"
    }
}

fn signed(signature: &SignatureDetails, fact: &mut impl FnMut(&str, String)) {
    let now = now_ms() / 1000;
    fact("signature", "valid for PCR0 with the certificate's key".to_owned());
    fact("signed by", format!("{}, issued by {}", signature.subject, signature.issuer));
    fact("valid", format!("{}: {}", signature.validity, verdict(signature.validity, now)));
    fact("fingerprint", format!("sha384:{}", signature.fingerprint));
}

fn sections(file: &Explanation) -> String {
    let mut table = Table::new(&["SECTION", "AT", "BYTES", "MEASURED", "DIGEST"]);
    for section in &file.sections {
        table.row([
            section.kind.to_string(),
            section.offset.to_string(),
            section.size.to_string(),
            if section.measured { "yes" } else { "no" }.to_owned(),
            section.digest.to_string(),
        ]);
    }
    table.render()
}

fn registers(file: &Explanation) -> String {
    let covered = [
        (0, "kernel, command line, ramdisks"),
        (1, "kernel, command line, first ramdisk: the system"),
        (2, "other ramdisks: the application"),
        (8, "the certificate"),
    ];
    let mut table = Table::new(&["REGISTER", "COVERS", "VALUE"]);
    for (index, what) in covered {
        let value = file.pcrs.get(index).map(|pcr| pcr.to_string()).unwrap_or_default();
        table.row([format!("PCR{index}"), what.to_owned(), value]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_valid_now_is_shown_as_refused_by_the_hardware() {
        let validity = Validity { not_before: 10, not_after: 20 };
        assert!(verdict(validity, 9).contains("not valid yet"));
        assert_eq!((verdict(validity, 10), verdict(validity, 20)), ("valid now", "valid now"));
        assert!(verdict(validity, 21).contains("expired"));
    }
}
