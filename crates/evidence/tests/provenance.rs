//! Recorded evidence is what its record says: each file is in a table of `PROVENANCE.md`, with its hash.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Compares the files below `testdata/PLATFORM/recorded` with the table: names and hashes.
fn check(platform: &str) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(platform);
    let table = fs::read_to_string(folder.join("PROVENANCE.md"))?;
    let mut listed = BTreeMap::new();
    for row in table.lines().filter_map(|line| line.strip_prefix("| `recorded/")) {
        let (name, rest) = row.split_once("` | ").ok_or("a row without a hash")?;
        listed.insert(name.to_owned(), rest.split(' ').next().unwrap_or_default().to_owned());
    }
    let mut found = BTreeMap::new();
    for file in fs::read_dir(folder.join("recorded"))? {
        let file = file?;
        let mut hash = String::new();
        for byte in Sha256::digest(fs::read(file.path())?) {
            write!(hash, "{byte:02x}")?;
        }
        found.insert(file.file_name().to_string_lossy().into_owned(), hash);
    }
    assert!(!found.is_empty(), "no recorded evidence of {platform}");
    assert_eq!(listed, found);
    Ok(())
}

#[test]
fn recorded_evidence_of_snp_is_unchanged() -> Result<(), Box<dyn Error>> {
    check("snp")
}

#[test]
fn recorded_evidence_of_tdx_is_unchanged() -> Result<(), Box<dyn Error>> {
    check("tdx")
}
