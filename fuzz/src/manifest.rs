//! The manifest: the YAML source, and the JSON that the enclave reads.

use std::io;

use cloister_manifest::Manifest;
use cloister_manifest::source::{Arch, Entry, EntryKind, Image, ImageConfig, Rootfs, build};

/// Text that may be a manifest, resolved against an image with a few files.
pub fn source(data: &[u8]) {
    let config = ImageConfig { cmd: vec!["app".to_owned()], ..ImageConfig::default() };
    let image = Image { config: &config, root: &Small, arch: Arch::X86_64 };
    match build("cloister.yaml", data, &image) {
        Ok(resolved) => {
            let manifest = &resolved.manifest;
            let json = manifest.to_json().expect("a manifest can be written");
            let again = Manifest::from_json(&json).expect("a written manifest can be read");
            assert_eq!(again, *manifest);
            let twice = build("cloister.yaml", data, &image).expect("the same text is valid again");
            assert_eq!(twice, resolved);
        }
        Err(report) => {
            assert!(!report.problems().is_empty(), "refused without a problem");
            let shown = report.to_string();
            assert!(!shown.contains('\u{1b}'), "a terminal control character is shown");
            assert!(report.to_json().is_object());
        }
    }
}

/// The measured manifest.
pub fn model(data: &[u8]) {
    if let Ok(manifest) = Manifest::from_json(data) {
        let json = manifest.to_json().expect("a manifest that was read can be written");
        assert_eq!(Manifest::from_json(&json).expect("a written manifest can be read"), manifest);
    }
}

/// An image with a program, an interpreter, two users, and a link loop.
struct Small;

impl Rootfs for Small {
    fn entry(&self, path: &str) -> Option<Entry> {
        let (kind, mode) = match path {
            "" | "etc" | "bin" | "usr" | "srv" => (EntryKind::Directory, 0o755),
            "etc/passwd" | "etc/group" | "srv/text" => (EntryKind::File, 0o644),
            "bin/app" | "bin/sh" => (EntryKind::File, 0o755),
            "usr/bin" => (EntryKind::Link("../bin".to_owned()), 0o777),
            "loop" => (EntryKind::Link("/loop".to_owned()), 0o777),
            _ => return None,
        };
        Some(Entry { kind, mode, uid: 0, gid: 0 })
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let content: &[u8] = match path {
            "etc/passwd" => b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n",
            "etc/group" => b"root:x:0:\nweb:x:33:\nssl:x:40:web\n",
            "bin/app" => b"#!/bin/sh\n",
            "bin/sh" => b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0",
            _ => b"",
        };
        Ok(content.get(..limit.min(content.len())).unwrap_or_default().to_vec())
    }

    fn capabilities(&self, path: &str) -> Option<Vec<u8>> {
        // `setcap cap_net_bind_service=+ep`.
        (path == "bin/sh").then(|| [&[1, 0, 0, 2, 0, 4, 0, 0], [0; 12].as_slice()].concat())
    }
}
