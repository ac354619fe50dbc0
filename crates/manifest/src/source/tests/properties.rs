//! Properties that hold for every input.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::image::{Arch, Image};
use super::super::{build, parse};
use super::build::{config, files};
use crate::Manifest;

/// Text that is often nearly a manifest: keywords of the format between YAML punctuation.
fn nearly() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "version",
        "1",
        "services",
        "service",
        "web",
        "db",
        "command",
        "ready",
        "tcp",
        "80",
        "http",
        "ingress",
        "port",
        "after",
        "restart",
        "on-failure",
        "live",
        "env",
        "files",
        "/etc/x",
        "10s",
        "64MiB",
        "true",
        "~",
        "\"",
        "'",
        "|",
        ": ",
        ":\n",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "&a ",
        "*a",
        "# ",
        "\t",
        "é",
        "---",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

fn read_or_refused(bytes: &[u8]) {
    let (config, files) = (config(), files());
    let image = Image { config: &config, root: &files, arch: Arch::X86_64 };
    match (build("x", bytes, &image), build("x", bytes, &image)) {
        (Ok(first), Ok(second)) => {
            assert_eq!(first, second);
            let json = first.manifest.to_json().unwrap();
            assert_eq!(Manifest::from_json(&json).unwrap(), first.manifest);
        }
        (Err(first), Err(second)) => {
            assert!(!first.problems().is_empty());
            assert_eq!(first.to_string(), second.to_string());
            assert!(first.to_json().is_object());
        }
        (first, second) => panic!("two results for one input: {first:?} and {second:?}"),
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_or_refused(&bytes);
    }

    #[test]
    fn text_close_to_a_manifest_is_read_or_refused(source in nearly()) {
        read_or_refused(source.as_bytes());
        read_or_refused(format!("version: 1\n{source}").as_bytes());
        read_or_refused(format!("version: 1\nservices:\n  web: {{{source}}}\n").as_bytes());
    }

    #[test]
    fn a_valid_manifest_with_one_byte_changed_is_read_or_refused(at in 0_usize..3000, byte in any::<u8>()) {
        let mut bytes = include_bytes!("../../../testdata/full.yaml").to_vec();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        read_or_refused(&bytes);
    }

    #[test]
    fn services_start_after_their_dependencies(edges in prop::collection::vec((0_usize..8, 0_usize..8), 0..20)) {
        let services = (0..8).map(|service| {
            let before = edges.iter().filter(|(from, to)| *from == service && to < from);
            let after: BTreeSet<_> = before.map(|(_, to)| format!("s{to}")).collect();
            let after: Vec<_> = after.into_iter().collect();
            format!("  s{service}: {{command: [x], after: [{}]}}\n", after.join(", "))
        });
        let source = format!("version: 1\nservices:\n{}", services.collect::<String>());
        let checked = parse("x", source.as_bytes()).unwrap();
        let order: Vec<_> = checked.services().map(str::to_owned).collect();
        let place = |name: &str| order.iter().position(|other| other == name).unwrap();
        for (from, to) in edges.iter().filter(|(from, to)| to < from) {
            let (first, second) = (place(&format!("s{to}")), place(&format!("s{from}")));
            prop_assert!(first < second);
        }
    }
}
