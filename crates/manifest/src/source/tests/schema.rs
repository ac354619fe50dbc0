//! Compares the published schema and reference with the types.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::{defaults, schema};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[test]
fn the_published_schema_matches_the_types() {
    let path = docs().join("manifest.schema.json");
    let made = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("CLOISTER_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(published, made, "docs/manifest.schema.json differs; CLOISTER_BLESS=1 rewrites it");
}

/// Calls `seen` with the name and schema of each field of each record.
fn fields(schema: &Value, seen: &mut impl FnMut(&str, &Value)) {
    let definitions = schema["$defs"].as_object().unwrap().values();
    for record in definitions.chain([schema]) {
        for (name, field) in record["properties"].as_object().into_iter().flatten() {
            seen(name, field);
        }
    }
}

#[test]
fn every_field_has_a_description_in_the_schema() {
    let mut count = 0;
    fields(&schema(), &mut |name, field| {
        let description = field["description"].as_str().unwrap_or_default();
        assert!(description.len() > 10, "{name} has no description: {field}");
        assert!(!description.contains('\n') || description.len() < 400, "{name}");
        count += 1;
    });
    assert!(count > 60, "{count}");
}

#[test]
fn only_a_service_may_be_null() {
    let text = serde_json::to_string(&schema()).unwrap();
    assert_eq!(text.matches("null").count(), 1);
}

#[test]
fn the_reference_names_every_field() {
    let reference = fs::read_to_string(docs().join("manifest.md")).unwrap();
    let rows: BTreeSet<&str> =
        reference.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut known = BTreeSet::new();
    fields(&schema(), &mut |name, _| {
        assert!(rows.contains(name), "docs/manifest.md has no row for `{name}`");
        known.insert(name.to_owned());
    });
    for row in rows {
        assert!(known.contains(row), "docs/manifest.md has a row for `{row}`, which is not a field");
    }
}

#[test]
fn the_reference_lists_the_refused_system_calls() {
    let reference = fs::read_to_string(docs().join("manifest.md")).unwrap();
    let (_, rest) = reference.split_once("```text\n").unwrap();
    let (listed, _) = rest.split_once("```").unwrap();
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), crate::model::REFUSED_SYSCALLS);
}

#[test]
fn every_example_in_the_reference_is_valid() {
    let reference = fs::read_to_string(docs().join("manifest.md")).unwrap();
    let examples: Vec<_> =
        reference.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() > 3);
    for example in examples.into_iter().filter(|example| example.contains("version:")) {
        super::super::parse("manifest.md", example.as_bytes()).unwrap_or_else(|report| panic!("{report}"));
    }
}

#[test]
fn every_example_of_the_project_is_valid() {
    let folder = docs().join("../examples");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("cloister.yaml"));
    let files: Vec<_> = files.filter(|file| file.exists()).collect();
    assert!(files.len() > 3);
    for file in files {
        super::super::parse(&file.to_string_lossy(), &fs::read(&file).unwrap())
            .unwrap_or_else(|report| panic!("{report}"));
    }
}

#[test]
fn published_defaults_match_the_code() {
    let time = |ms: u64| if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") };
    let reference = fs::read_to_string(docs().join("manifest.md")).unwrap();
    let schema = schema();
    for (record, field, value) in [
        ("Root", "writable", format!("{}MiB", defaults::ROOT_WRITABLE >> 20)),
        ("Service", "start_timeout", time(defaults::START_TIMEOUT_MS)),
        ("Service", "stop_timeout", time(defaults::STOP_TIMEOUT_MS)),
        ("RestartRules", "delay", time(defaults::RESTART_DELAY_MS)),
        ("RestartRules", "max_delay", time(defaults::RESTART_MAX_DELAY_MS)),
        ("RestartRules", "stable", time(defaults::RESTART_STABLE_MS)),
        ("RestartRules", "burst", defaults::RESTART_BURST.to_string()),
        ("Live", "interval", time(defaults::LIVE_INTERVAL_MS)),
        ("Live", "timeout", time(defaults::LIVE_TIMEOUT_MS)),
        ("Live", "threshold", defaults::LIVE_THRESHOLD.to_string()),
        ("Limits", "open_files", defaults::OPEN_FILES.to_string()),
        ("FileRule", "mode", format!("{:04o}", defaults::FILE_MODE)),
    ] {
        let description = schema["$defs"][record]["properties"][field]["description"].as_str().unwrap();
        assert!(description.contains(&format!("Default: `{value}`")), "{record}.{field}: {description}");
        let row = |line: &&str| {
            line.starts_with(&format!("| `{field}` |")) && line.contains(&format!("| `{value}`"))
        };
        assert!(reference.lines().any(|line| row(&line)), "docs/manifest.md: {field} should be {value}");
    }
}
