//! The published document, and what responses really contain.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cloister_nsm::Pcr;

use super::*;
use crate::events::Events;
use crate::exchange::{Evidence, Reply};
use crate::resource::response;
use crate::resource::tests::whole;

#[test]
fn the_published_document_matches_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let made = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os("CLOISTER_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(published, made, "docs/openapi.json differs; CLOISTER_BLESS=1 rewrites it");
}

/// The fields of a response, and those that the document requires and describes.
fn compared(schema: &str, reply: Reply) -> (BTreeSet<String>, BTreeSet<String>) {
    let body: Value = serde_json::from_slice(&whole(response(reply, "virtual", false).1)).unwrap();
    let schema = &document()["components"]["schemas"][schema];
    let described: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let required = schema["required"].as_array().unwrap();
    assert!(required.iter().all(|name| described.contains(name.as_str().unwrap())));
    (body.as_object().unwrap().keys().cloned().collect(), described)
}

#[test]
fn responses_have_the_fields_that_are_described() {
    let events = Events::open(tempfile::tempfile().unwrap().into(), 1).unwrap();
    let register = (2, Pcr { locked: true, value: vec![1; 48] });
    for (schema, reply) in [
        (
            "Evidence",
            Reply::Evidence(Evidence { document: vec![1], certificates: vec![2], events: events.snapshot() }),
        ),
        ("Measurements", Reply::Registers(vec![register])),
        ("Recorded", Reply::Recorded { position: 1, head: [1; 48] }),
    ] {
        let (found, described) = compared(schema, reply);
        assert_eq!(found, described, "{schema}");
    }
}

#[test]
fn every_resource_is_in_the_documentation() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/attestation.md")).unwrap();
    for path in Resource::ALL.map(Resource::path).into_iter().chain(Public::ALL.map(Public::path)) {
        assert!(text.contains(path), "docs/attestation.md does not contain {path}");
    }
}
