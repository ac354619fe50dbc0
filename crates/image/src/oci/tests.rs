//! Layouts and archives as tools write them, and as they should not be.

use serde_json::{Value, json};

use super::test_image::{Stored, TestImage, tar, write_blob, write_index};
use super::*;

fn image() -> TestImage {
    TestImage::default().layer(&tar(&[("a", "1")])).layer_as(&tar(&[("b", "2")]), Stored::Zstd)
}

fn open(place: &tempfile::TempDir) -> Result<Image, OciFault> {
    open_layout(place.path(), &Select::Only, Architecture::X86_64)
}

fn with(mut descriptor: Value, key: &str, value: Value) -> Value {
    descriptor[key] = value;
    descriptor
}

#[test]
fn a_layout_with_one_image_needs_no_name() {
    let place = tempfile::tempdir().unwrap();
    image().write_layout(place.path());
    let image = open(&place).unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.config.config.unwrap().cmd, ["/bin/app"]);
}

#[test]
fn of_several_machines_the_right_one_is_taken() {
    let place = tempfile::tempdir().unwrap();
    let platform = |arch: &str| json!({"os": "linux", "architecture": arch});
    let ours = with(image().write_blobs(place.path()), "platform", platform("amd64"));
    let arm = TestImage { architecture: "arm64", ..TestImage::default() }.write_blobs(place.path());
    let arm = with(arm, "platform", platform("arm64"));
    let unknown = json!({"os": "unknown", "architecture": "unknown"});
    let about = with(image().layer(&tar(&[])).write_blobs(place.path()), "platform", unknown);
    let inner = json!({"schemaVersion": 2, "manifests": [arm, about, ours]});
    let inner = write_blob(place.path(), media::INDEX, inner.to_string().as_bytes());
    write_index(place.path(), &[inner]);
    assert_eq!(open(&place).unwrap().layers.len(), 2);
    let arm = open_layout(place.path(), &Select::Only, Architecture::Aarch64).unwrap();
    assert_eq!(arm.layers.len(), 0);
}

#[test]
fn an_image_for_another_machine_is_refused_with_what_there_is() {
    let place = tempfile::tempdir().unwrap();
    TestImage { architecture: "s390x", ..TestImage::default() }.write_layout(place.path());
    let fault = open(&place).unwrap_err();
    assert_eq!(fault.to_string(), "it has no image for linux/amd64, only for `linux/s390x`");
}

#[test]
fn several_images_are_told_apart_by_name_or_digest() {
    let place = tempfile::tempdir().unwrap();
    let name = |name: &str| json!({"org.opencontainers.image.ref.name": name});
    let one = with(image().write_blobs(place.path()), "annotations", name("one"));
    let two = with(TestImage::default().write_blobs(place.path()), "annotations", name("two"));
    write_index(place.path(), &[one, two.clone()]);
    assert!(matches!(open(&place), Err(OciFault::Ambiguous(images)) if images.len() == 2));
    let select = |select: Select| open_layout(place.path(), &select, Architecture::X86_64);
    assert_eq!(select(Select::Name("one".to_owned())).unwrap().layers.len(), 2);
    let digest: Digest = two["digest"].as_str().unwrap().parse().unwrap();
    assert_eq!(select(Select::Digest(digest)).unwrap().layers.len(), 0);
    let fault = select(Select::Name("three".to_owned())).unwrap_err();
    assert_eq!(fault.to_string(), "it has no image `three`, only `one`, `two`");
}

#[test]
fn one_image_under_two_names_is_one_image() {
    let place = tempfile::tempdir().unwrap();
    let descriptor = image().write_blobs(place.path());
    write_index(place.path(), &[descriptor.clone(), descriptor]);
    assert!(open(&place).is_ok());
}

#[test]
fn damaged_layouts_are_refused() {
    type Damage<'a> = Box<dyn Fn() + 'a>;
    let blob = |root: &std::path::Path, descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        root.join("blobs/sha256").join(digest)
    };
    let place = tempfile::tempdir().unwrap();
    let descriptor = image().write_blobs(place.path());
    let manifest = std::fs::read(blob(place.path(), &descriptor)).unwrap();
    let flipped: Vec<u8> = manifest.iter().map(|byte| if *byte == b'2' { b'3' } else { *byte }).collect();
    let cases: [(&str, Damage<'_>); 5] = [
        ("is missing", Box::new(|| std::fs::remove_file(blob(place.path(), &descriptor)).unwrap())),
        ("has the digest", Box::new(|| std::fs::write(blob(place.path(), &descriptor), &flipped).unwrap())),
        ("descriptor says", Box::new(|| std::fs::write(blob(place.path(), &descriptor), b"{}").unwrap())),
        ("oci-layout", Box::new(|| std::fs::remove_file(place.path().join("oci-layout")).unwrap())),
        (
            "is too large",
            Box::new(|| std::fs::write(place.path().join("index.json"), vec![b' '; 5 << 20]).unwrap()),
        ),
    ];
    for (expected, damage) in cases {
        image().write_layout(place.path());
        damage();
        let fault = open(&place).unwrap_err().to_string();
        assert!(fault.contains(expected), "{fault}");
    }
}

#[test]
fn a_document_that_could_be_two_things_is_refused() {
    let both = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}).to_string();
    assert!(matches!(Document::parse(both.as_bytes(), media::INDEX), Err(OciFault::Ambivalent(_))));
    assert!(matches!(Document::parse(both.as_bytes(), media::MANIFEST), Err(OciFault::Ambivalent(_))));
    let index = json!({"schemaVersion": 2, "manifests": []}).to_string();
    assert!(matches!(Document::parse(index.as_bytes(), media::MANIFEST), Err(OciFault::Ambivalent(_))));
    let lies = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "manifests": []}).to_string();
    assert!(matches!(Document::parse(lies.as_bytes(), media::INDEX), Err(OciFault::Ambivalent(_))));
    let old = json!({"schemaVersion": 1, "fsLayers": []}).to_string();
    assert!(matches!(Document::parse(old.as_bytes(), media::DOCKER_MANIFEST), Err(OciFault::MediaType(_))));
}

#[test]
fn indexes_in_indexes_end_somewhere() {
    let place = tempfile::tempdir().unwrap();
    let mut descriptor = image().write_blobs(place.path());
    for _ in 0..10 {
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        descriptor = write_blob(place.path(), media::INDEX, index.to_string().as_bytes());
    }
    write_index(place.path(), &[descriptor]);
    assert!(matches!(open(&place), Err(OciFault::Limit(_))));
}

#[test]
fn a_layer_that_is_none_and_a_wrong_number_of_them_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let config =
        write_blob(place.path(), "application/vnd.oci.image.config.v1+json", &image().config_bytes());
    let manifest = |layers: Value| {
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let descriptor = write_blob(place.path(), media::MANIFEST, manifest.to_string().as_bytes());
        write_index(place.path(), &[descriptor]);
        open(&place).unwrap_err()
    };
    assert!(matches!(manifest(json!([])), OciFault::LayerCount { layers: 0, diff_ids: 2 }));
    let layer = |media_type: &str| write_blob(place.path(), media_type, b"x");
    for wrong in ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "text/plain"] {
        assert!(matches!(manifest(json!([layer(wrong), layer(wrong)])), OciFault::MediaType(_)), "{wrong}");
    }
}

/// An archive with `manifest.json` last, as Docker writes it.
fn archive(members: &[(&str, &[u8])], links: &[(&str, &str)], manifest: &Value) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(bytes.len().try_into().unwrap());
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    for (name, bytes) in members {
        add(name, bytes);
    }
    add("manifest.json", manifest.to_string().as_bytes());
    for (name, target) in links {
        let mut header = ::tar::Header::new_ustar();
        header.set_entry_type(::tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }
    builder.into_inner().unwrap()
}

fn open_bytes(bytes: &[u8], select: &Select) -> Result<Image, OciFault> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("app.tar");
    std::fs::write(&path, bytes).unwrap();
    let limits = crate::limits::Limits::default();
    open_docker_archive(&path, select, Architecture::X86_64, place.path(), &limits)
}

fn saved() -> (Vec<u8>, Vec<u8>, String) {
    let layer = tar(&[("a", "1")]);
    let config =
        TestImage::default().layer_as(&layer, Stored::Plain).layer_as(&layer, Stored::Plain).config_bytes();
    let name = format!("{}.json", Digest::of(&config).hex());
    (layer, config, name)
}

#[test]
fn an_archive_is_read_compressed_or_not_and_shared_layers_are_found() {
    let (layer, config, name) = saved();
    let manifest = json!([{"Config": name, "RepoTags": ["app:1"], "Layers": ["x/layer.tar", "y/layer.tar"]}]);
    let members: [(&str, &[u8]); 2] = [(&name, &config), ("x/layer.tar", &layer)];
    let bytes = archive(&members, &[("y/layer.tar", "../x/layer.tar")], &manifest);
    for stored in [Stored::Plain, Stored::Gzip, Stored::Zstd] {
        let image = open_bytes(&test_image::pack(&bytes, stored), &Select::Only).unwrap();
        assert_eq!(image.config_digest, Digest::of(&config));
        assert!(image.layers.iter().all(|found| found.blob.bytes().unwrap() == layer), "{stored:?}");
    }
    assert!(open_bytes(&bytes, &Select::Name("app:1".to_owned())).is_ok());
    assert!(matches!(open_bytes(&bytes, &Select::Name("app:2".to_owned())), Err(OciFault::Name { .. })));
}

#[test]
fn archives_that_lack_or_fake_something_are_refused() {
    let (layer, config, name) = saved();
    let two = json!([{"Config": name, "RepoTags": null, "Layers": ["x", "x"]}]);
    let forged = name.replace(['0', '1', '2', '3'], "4");
    let other = json!([{"Config": forged, "RepoTags": null, "Layers": ["x", "x"]}]);
    let one = json!([{"Config": name, "RepoTags": null, "Layers": ["x"]}]);
    let cases: [(Vec<u8>, &str); 6] = [
        (archive(&[(&name, &config)], &[], &two), "`x` is missing"),
        (archive(&[("x", &layer)], &[], &two), "is missing"),
        (archive(&[("x", &layer), (&forged, &config)], &[], &other), "has the digest"),
        (archive(&[("x", &layer), (&name, &config)], &[], &one), "1 layers and 2 diff IDs"),
        (archive(&[(&name, &config)], &[("x", "x")], &two), "`x` is missing"),
        (tar(&[("a", "b")]), "it has no manifest.json"),
    ];
    for (bytes, expected) in cases {
        let fault = open_bytes(&bytes, &Select::Only).unwrap_err().to_string();
        assert!(fault.contains(expected), "{fault}");
    }
    assert!(matches!(open_bytes(b"no tar", &Select::Only), Err(OciFault::Unpack(_))));
}
