//! Invalid manifests and the exact text of their reports.
//!
//! Each `testdata/bad/NAME.yaml` has its report in `NAME.txt`. With `CLOISTER_BLESS=1` the reports are written instead of
//! compared: read the difference before committing it.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::build;
use super::super::image::{Arch, Image, ImageConfig};
use super::build::{config, files};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// Compares with a file of `testdata`, or writes it.
pub(super) fn compare(name: &str, golden: &str, found: &str) {
    if std::env::var_os("CLOISTER_BLESS").is_some() {
        fs::write(testdata().join(name), found).unwrap();
        return;
    }
    assert_eq!(found, golden, "{name} differs; CLOISTER_BLESS=1 rewrites it");
}

fn report(name: &str, source: &[u8], config: &ImageConfig) -> String {
    let files = files();
    let image = Image { config, root: &files, arch: Arch::X86_64 };
    match build(name, source, &image) {
        Ok(manifest) => panic!("{name} should be refused: {manifest:?}"),
        Err(report) => format!("{report}\n"),
    }
}

#[test]
fn reports_on_invalid_manifests_match_the_goldens() {
    let mut sources: Vec<_> =
        fs::read_dir(testdata().join("bad")).unwrap().map(|entry| entry.unwrap().path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    sources.sort();
    assert!(sources.len() > 10);
    for source in sources {
        let name = source.file_name().unwrap().to_str().unwrap();
        let golden = source.with_extension("txt");
        let found = report(name, &fs::read(&source).unwrap(), &config());
        let relative = format!("bad/{}", golden.file_name().unwrap().to_str().unwrap());
        compare(&relative, &fs::read_to_string(&golden).unwrap_or_default(), &found);
    }
}

#[test]
fn an_image_with_an_unusable_configuration_is_refused() {
    let broken = ImageConfig {
        env: vec!["ZERO=\0".into()],
        user: "ngnix".into(),
        working_dir: "/missing".into(),
        stop_signal: "SIGNOPE".into(),
        ..ImageConfig::default()
    };
    let found = report("cloister.yaml", b"version: 1\nservices: {web: {}}\n", &broken);
    compare("bad-image.txt", include_str!("../../../testdata/bad-image.txt"), &found);
}

#[test]
fn a_report_can_be_written_as_json() {
    let source = b"version: 1\nservices:\n  web: {evn: {}, after: [db]}\n";
    let report = super::super::parse("cloister.yaml", source).unwrap_err();
    let found = serde_json::to_string_pretty(&report.to_json()).unwrap() + "\n";
    compare("report.json", include_str!("../../../testdata/report.json"), &found);
}

#[test]
fn a_report_stops_at_a_hundred_errors() {
    let wrong: Vec<_> = (0..150).map(|index| format!("  wrong{index}: 1")).collect();
    let source = format!("version: 1\nservice:\n{}\n", wrong.join("\n"));
    let report = super::super::parse("x", source.as_bytes()).unwrap_err();
    assert_eq!((report.problems().len(), report.dropped()), (100, 50));
    assert!(report.to_string().ends_with("x has 150 errors; only the first 100 are shown"));
}
