//! Predictions, and the document that contains them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::*;

fn content(bytes: &[u8]) -> Content {
    Content::Bytes(Arc::from(bytes))
}

fn example() -> Measurements {
    let ramdisks = [content(b"system"), content(b"application")];
    let nitro = nitro(&content(b"kernel"), "quiet", &ramdisks, Some(b"certificate")).unwrap();
    let development =
        Some(NitroMeasurements { pcrs: NitroPcrs { pcr8: None, ..nitro.pcrs }, ..nitro.clone() });
    Measurements {
        version: VERSION,
        arch: Arch::X86_64,
        os: Some("0.1.0".into()),
        nitro: Some(nitro),
        development,
    }
}

#[test]
fn each_part_changes_its_registers_and_no_others() {
    let pcrs = |kernel: &[u8], line, system: &[u8], application: &[u8]| {
        nitro(&content(kernel), line, &[content(system), content(application)], None).unwrap().pcrs
    };
    let base = pcrs(b"kernel", "quiet", b"system", b"application");
    let system = [
        pcrs(b"Kernel", "quiet", b"system", b"application"),
        pcrs(b"kernel", "loud", b"system", b"application"),
        pcrs(b"kernel", "quiet", b"System", b"application"),
    ];
    for changed in system {
        assert!(changed.pcr0 != base.pcr0 && changed.pcr1 != base.pcr1 && changed.pcr2 == base.pcr2);
    }
    let changed = pcrs(b"kernel", "quiet", b"system", b"Application");
    assert!(changed.pcr0 != base.pcr0 && changed.pcr1 == base.pcr1 && changed.pcr2 != base.pcr2);
}

#[test]
fn a_part_longer_than_the_buffer_is_measured_as_a_whole() {
    let long = vec![7; BUFFER * 2 + 5];
    let whole = nitro(&content(&long), "", &[content(b"")], None).unwrap().pcrs;
    assert_eq!(whole.pcr1, Pcr::of(&long));
}

#[test]
fn the_document_is_read_as_it_is_written_and_ignores_other_platforms() {
    let written = serde_json::to_value(example()).unwrap();
    assert_eq!(serde_json::from_value::<Measurements>(written.clone()).unwrap(), example());
    let mut newer = written;
    newer["another platform"] = Value::from(1);
    assert_eq!(serde_json::from_value::<Measurements>(newer).unwrap(), example());
}

#[test]
fn the_schema_in_the_documentation_names_the_fields_of_the_document() {
    let schema = include_str!("../../../../docs/measurements.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let document = serde_json::to_value(example()).unwrap();
    let at =
        |value: &Value, path: &[&str]| path.iter().fold(value.clone(), |value, name| value[*name].clone());
    for path in [&[][..], &["nitro"], &["nitro", "pcrs"], &["virtual"], &["virtual", "pcrs"]] {
        let place: Vec<&str> = path.iter().flat_map(|name| ["properties", name]).collect();
        let described = names(&at(&schema, &[&place[..], &["properties"]].concat()));
        assert_eq!(described, names(&at(&document, path)), "{path:?}");
    }
}

fn names(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}
