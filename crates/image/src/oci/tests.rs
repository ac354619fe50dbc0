//! Layouts and archives as tools write them, and malformed ones.

use serde_json::{Value, json};

use super::test_image::{Stored, TestImage, tar, write_blob, write_index};
use super::*;

fn image() -> TestImage {
    TestImage::default().layer(&tar(&[("a", "1")])).layer_as(&tar(&[("b", "2")]), Stored::Zstd)
}

fn open(place: &tempfile::TempDir) -> Result<Image, OciError> {
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
fn the_image_for_the_right_platform_is_selected() {
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
fn the_variant_that_runs_on_every_machine_is_selected() {
    let variant = |architecture: &str, variant: Option<&str>| match variant {
        Some(variant) => json!({"os": "linux", "architecture": architecture, "variant": variant}),
        None => json!({"os": "linux", "architecture": architecture}),
    };
    let index = |architecture, variants: &[Option<&str>]| {
        let place = tempfile::tempdir().unwrap();
        let descriptors: Vec<_> = variants
            .iter()
            .enumerate()
            .map(|(layers, name)| {
                let image = (0..layers).fold(TestImage::default(), |image, _| image.layer(&tar(&[])));
                let descriptor = TestImage { architecture, ..image }.write_blobs(place.path());
                with(descriptor, "platform", variant(architecture, *name))
            })
            .collect();
        write_index(place.path(), &descriptors);
        (place, descriptors)
    };
    for baseline in [None, Some(""), Some("v1")] {
        let (place, _) = index("amd64", &[Some("v3"), baseline, Some("v2")]);
        assert_eq!(open(&place).unwrap().layers.len(), 1, "{baseline:?}");
    }
    let (place, _) = index("arm64", &[Some("v9"), Some("v8")]);
    let arm = open_layout(place.path(), &Select::Only, Architecture::Aarch64).unwrap();
    assert_eq!(arm.layers.len(), 1);
    // Without a baseline variant, the error lists the others, and one can be selected by its digest.
    let (place, descriptors) = index("amd64", &[Some("v3"), Some("v2")]);
    let error = open(&place).unwrap_err().to_string();
    assert_eq!(error, "it has no image for linux/amd64; available: `linux/amd64/v3`, `linux/amd64/v2`");
    let digest = descriptors[1]["digest"].as_str().unwrap().parse().unwrap();
    let newer = open_layout(place.path(), &Select::Digest(digest), Architecture::X86_64).unwrap();
    assert_eq!(newer.layers.len(), 1);
}

/// The manifest of an artifact that is not an image, with a descriptor that does not state its type.
fn artifact(place: &tempfile::TempDir, config: &str, layer: &str, kind: Option<&str>) -> Value {
    let config = write_blob(place.path(), config, b"{}");
    let layer = write_blob(place.path(), layer, b"content");
    let mut manifest =
        json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": config, "layers": [layer]});
    if let Some(kind) = kind {
        manifest["artifactType"] = json!(kind);
    }
    write_blob(place.path(), media::MANIFEST, manifest.to_string().as_bytes())
}

#[test]
fn artifacts_beside_an_image_are_ignored() {
    let place = tempfile::tempdir().unwrap();
    let oci_config = "application/vnd.oci.image.config.v1+json";
    // An old cosign signature, an SBOM as in version 1.1 of the specification, an old ORAS artifact, and a missing one.
    let signature = artifact(&place, oci_config, "application/vnd.dev.cosign.simplesigning.v1+json", None);
    let sbom = artifact(&place, media::EMPTY, "application/spdx+json", Some("application/spdx+json"));
    let oras = artifact(
        &place,
        "application/vnd.unknown.config.v1+json",
        "application/vnd.oci.image.layer.v1.tar",
        None,
    );
    let unknown =
        json!({"mediaType": "application/vnd.example+json", "digest": Digest::of(b"nowhere"), "size": 7});
    let absent = json!({"mediaType": media::MANIFEST, "artifactType": "text/x", "digest": Digest::of(b"no"), "size": 7});
    let artifacts = [signature, sbom, oras, unknown, absent];
    let all: Vec<_> = artifacts.iter().cloned().chain([image().write_blobs(place.path())]).collect();
    write_index(place.path(), &all);
    assert_eq!(open(&place).unwrap().layers.len(), 2);
    // Some indexes give a runnable image the artifact type that the specification defines for it: its configuration's.
    let mut typed = image().write_blobs(place.path());
    typed["artifactType"] = oci_config.into();
    write_index(place.path(), &[typed]);
    assert_eq!(open(&place).unwrap().layers.len(), 2);

    write_index(place.path(), &artifacts);
    let error = open(&place).unwrap_err().to_string();
    assert!(
        error.starts_with("it has no container image, only artifacts: `application/vnd.dev.cosign"),
        "{error}"
    );
    assert!(
        error.contains("spdx") && error.contains("unknown.config") && error.contains("text/x"),
        "{error}"
    );
}

#[test]
fn an_image_for_another_platform_is_refused_and_its_platform_listed() {
    let place = tempfile::tempdir().unwrap();
    TestImage { architecture: "s390x", ..TestImage::default() }.write_layout(place.path());
    let error = open(&place).unwrap_err();
    assert_eq!(error.to_string(), "it has no image for linux/amd64; available: `linux/s390x`");
}

#[test]
fn several_images_are_distinguished_by_name_or_digest() {
    let place = tempfile::tempdir().unwrap();
    let name = |name: &str| json!({"org.opencontainers.image.ref.name": name});
    let one = with(image().write_blobs(place.path()), "annotations", name("one"));
    let two = with(TestImage::default().write_blobs(place.path()), "annotations", name("two"));
    write_index(place.path(), &[one, two.clone()]);
    assert!(matches!(open(&place), Err(OciError::Ambiguous(images)) if images.len() == 2));
    let select = |select: Select| open_layout(place.path(), &select, Architecture::X86_64);
    assert_eq!(select(Select::Name("one".to_owned())).unwrap().layers.len(), 2);
    let digest: Digest = two["digest"].as_str().unwrap().parse().unwrap();
    assert_eq!(select(Select::Digest(digest)).unwrap().layers.len(), 0);
    let error = select(Select::Name("three".to_owned())).unwrap_err();
    assert_eq!(error.to_string(), "it has no image `three`; available: `one`, `two`");
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
        ("descriptor states", Box::new(|| std::fs::write(blob(place.path(), &descriptor), b"{}").unwrap())),
        ("oci-layout", Box::new(|| std::fs::remove_file(place.path().join("oci-layout")).unwrap())),
        (
            "is too large",
            Box::new(|| std::fs::write(place.path().join("index.json"), vec![b' '; 5 << 20]).unwrap()),
        ),
    ];
    for (expected, damage) in cases {
        image().write_layout(place.path());
        damage();
        let error = open(&place).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_ambiguous_document_is_refused() {
    let both = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}).to_string();
    assert!(matches!(Document::parse(both.as_bytes(), media::INDEX), Err(OciError::AmbiguousDocument(_))));
    assert!(matches!(Document::parse(both.as_bytes(), media::MANIFEST), Err(OciError::AmbiguousDocument(_))));
    let index = json!({"schemaVersion": 2, "manifests": []}).to_string();
    assert!(matches!(
        Document::parse(index.as_bytes(), media::MANIFEST),
        Err(OciError::AmbiguousDocument(_))
    ));
    let mistyped = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "manifests": []}).to_string();
    assert!(matches!(
        Document::parse(mistyped.as_bytes(), media::INDEX),
        Err(OciError::AmbiguousDocument(_))
    ));
    let old = json!({"schemaVersion": 1, "fsLayers": []}).to_string();
    assert!(matches!(Document::parse(old.as_bytes(), media::DOCKER_MANIFEST), Err(OciError::MediaType(_))));
}

#[test]
fn the_nesting_of_indexes_is_limited() {
    let place = tempfile::tempdir().unwrap();
    let mut descriptor = image().write_blobs(place.path());
    for _ in 0..10 {
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        descriptor = write_blob(place.path(), media::INDEX, index.to_string().as_bytes());
    }
    write_index(place.path(), &[descriptor]);
    assert!(matches!(open(&place), Err(OciError::Limit(_))));
}

#[test]
fn unsupported_layers_and_a_wrong_number_of_layers_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let config =
        write_blob(place.path(), "application/vnd.oci.image.config.v1+json", &image().config_bytes());
    let manifest = |layers: Value| {
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let descriptor = write_blob(place.path(), media::MANIFEST, manifest.to_string().as_bytes());
        write_index(place.path(), &[descriptor]);
        open(&place).unwrap_err()
    };
    assert!(matches!(manifest(json!([])), OciError::LayerCount { layers: 0, diff_ids: 2 }));
    let layer = |media_type: &str| write_blob(place.path(), media_type, b"x");
    let sound = "application/vnd.oci.image.layer.v1.tar";
    for wrong in ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "text/plain"] {
        assert!(matches!(manifest(json!([layer(wrong), layer(sound)])), OciError::MediaType(_)), "{wrong}");
    }
    let encrypted = "application/vnd.oci.image.layer.v1.tar+encrypted";
    assert!(matches!(manifest(json!([layer(encrypted), layer(encrypted)])), OciError::MediaType(_)));
    assert!(matches!(manifest(json!([layer("text/plain"), layer("text/plain")])), OciError::Artifact(_)));
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

fn open_bytes(bytes: &[u8], select: &Select) -> Result<Image, OciError> {
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
fn compressed_and_plain_archives_are_read_and_shared_layers_are_found() {
    let (layer, config, name) = saved();
    let manifest = json!([{"Config": name, "RepoTags": ["app:1"], "Layers": ["x/layer.tar", "y/layer.tar"]}]);
    let members: [(&str, &[u8]); 2] = [(&name, &config), ("x/layer.tar", &layer)];
    let bytes = archive(&members, &[("y/layer.tar", "../x/layer.tar")], &manifest);
    for stored in [Stored::Plain, Stored::Gzip, Stored::Zstd] {
        let image = open_bytes(&test_image::pack(&bytes, stored), &Select::Only).unwrap();
        assert_eq!(image.config_digest, Digest::of(&config));
        assert!(image.layers.iter().all(|found| found.blob.bytes().unwrap() == layer), "{stored:?}");
    }
    for name in ["app:1", "docker.io/library/app:1"] {
        assert!(open_bytes(&bytes, &Select::Name(name.to_owned())).is_ok(), "{name}");
    }
    assert!(matches!(open_bytes(&bytes, &Select::Name("app:2".to_owned())), Err(OciError::Name { .. })));
}

#[test]
fn incomplete_and_forged_archives_are_refused() {
    let (layer, config, name) = saved();
    let two = json!([{"Config": name, "RepoTags": null, "Layers": ["x", "x"]}]);
    let forged = name.replace(['0', '1', '2', '3'], "4");
    let other = json!([{"Config": forged, "RepoTags": null, "Layers": ["x", "x"]}]);
    let one = json!([{"Config": name, "RepoTags": null, "Layers": ["x"]}]);
    let cases: [(Vec<u8>, &str); 6] = [
        (archive(&[(&name, &config)], &[], &two), "`x` is missing"),
        (archive(&[("x", &layer)], &[], &two), "is missing"),
        (archive(&[("x", &layer), (&forged, &config)], &[], &other), "has the digest"),
        (archive(&[("x", &layer), (&name, &config)], &[], &one), "1 layers, but 2 diff IDs"),
        (archive(&[(&name, &config)], &[("x", "x")], &two), "`x` is missing"),
        (tar(&[("a", "b")]), "it has no manifest.json"),
    ];
    for (bytes, expected) in cases {
        let error = open_bytes(&bytes, &Select::Only).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(matches!(open_bytes(b"no tar", &Select::Only), Err(OciError::Unpack(_))));
}

/// A layout as an archive, with its members in directory order, as tar writes them.
fn layout_archive(layout: &std::path::Path) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    builder.append_dir_all(".", layout).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_layout_in_an_archive_is_read_as_a_layout() {
    let place = tempfile::tempdir().unwrap();
    let names = |whole: &str| json!({"io.containerd.image.name": whole, "org.opencontainers.image.ref.name": "latest"});
    let one = with(image().write_blobs(place.path()), "annotations", names("docker.io/library/one:latest"));
    let two =
        with(TestImage::default().write_blobs(place.path()), "annotations", names("localhost/two:latest"));
    write_index(place.path(), &[one, two]);
    let bytes = layout_archive(place.path());
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("app.tar");
    let limits = crate::limits::Limits::default();
    for stored in [Stored::Plain, Stored::Gzip] {
        std::fs::write(&path, test_image::pack(&bytes, stored)).unwrap();
        let open = |name: &str| {
            let select = Select::Name(name.to_owned());
            open_oci_archive(&path, &select, Architecture::X86_64, file.path(), &limits)
        };
        for (name, layers) in [("one", 2), ("docker.io/library/one:latest", 2), ("two:latest", 0)] {
            let image = open(name).unwrap();
            assert_eq!(image.layers.len(), layers, "{name}");
            assert!(image.manifest.is_some());
        }
        assert!(matches!(open("latest"), Err(OciError::Ambiguous(_))));
        let error = open("three").unwrap_err().to_string();
        assert!(
            error.contains("available: `docker.io/library/one:latest`, `localhost/two:latest`"),
            "{error}"
        );
    }
    // `docker load` accepts it as well.
    std::fs::write(&path, &bytes).unwrap();
    let select = Select::Name("one".to_owned());
    let image = open_docker_archive(&path, &select, Architecture::X86_64, file.path(), &limits).unwrap();
    assert_eq!(image.layers.len(), 2);
    std::fs::write(&path, tar(&[("a", "b")])).unwrap();
    let error =
        open_oci_archive(&path, &Select::Only, Architecture::X86_64, file.path(), &limits).unwrap_err();
    assert_eq!(error.to_string(), "it is not a valid oci-archive: it has no oci-layout");
}
