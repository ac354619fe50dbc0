//! A build that is repeated from its record, and an explanation of the differences between two images.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::guest::no_guest;
use crate::lab::{Finished, path_str};
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// A build from a record.
pub(super) const FROM: Scenario = Scenario {
    name: "a_build_from_its_record_is_identical_or_reports_the_differences",
    host: from_record,
    guest: no_guest,
};

/// The contents of a record.
pub(super) const RECORD: Scenario = Scenario {
    name: "a_build_record_names_every_input_down_to_the_kernel_source",
    host: record,
    guest: no_guest,
};

/// The comparison of two images.
pub(super) const DIFF: Scenario =
    Scenario { name: "diff_explains_two_images_file_by_file", host: diff, guest: no_guest };

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE]}}}";

/// Builds `root` to `output`, from a record if one is given.
fn build(lab: &Lab, root: &Path, manifest: &Path, output: &str, from: &[&str]) -> Result<Finished, Failure> {
    let (image, output) = (format!("dir:{}", root.display()), lab.folder().join(output));
    let args = ["build", "--image", &image, "--manifest", path_str(manifest)?, "-o", path_str(&output)?];
    lab.sleeve(&[&args, from].concat()).finish()
}

/// One part of an image, by its title.
fn part(image: &Path, title: &str) -> Result<Vec<u8>, Failure> {
    let blob = |digest: &Value| {
        let digest = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).unwrap_or_default();
        fs::read(image.join("blobs/sha256").join(digest))
    };
    let index: Value = serde_json::from_slice(&fs::read(image.join("index.json"))?)?;
    let manifest: Value =
        serde_json::from_slice(&blob(index.pointer("/manifests/0/digest").unwrap_or(&Value::Null))?)?;
    let titled = |layer: &&Value| {
        layer.pointer("/annotations/org.opencontainers.image.title").and_then(Value::as_str) == Some(title)
    };
    let layers = manifest.get("layers").and_then(Value::as_array).into_iter().flatten();
    let layer = layers
        .into_iter()
        .find(titled)
        .ok_or_else(|| Failure::failed(format_args!("missing part {title}")))?;
    Ok(blob(layer.get("digest").unwrap_or(&Value::Null))?)
}

fn from_record(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    let manifest = lab.manifest(MANIFEST)?;
    build(lab, &root, &manifest, "first", &[])?.expect_code(0)?;
    let first = lab.folder().join("first");
    let record = lab.folder().join("build.json");
    fs::write(&record, part(&first, "build.json")?)?;
    // From the image and from the record alone, to the same bytes.
    for (output, from) in [("second", &first), ("third", &record)] {
        build(lab, &root, &manifest, output, &["--from", path_str(from)?])?.expect_code(0)?;
        let other = lab.folder().join(output);
        expect_eq(
            &fs::read(other.join("index.json"))?,
            &fs::read(first.join("index.json"))?,
            "the image's index",
        )?;
    }
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    let left = ["second/index.json", "second.measurements.json"].map(|name| lab.folder().join(name));
    let before: Vec<Vec<u8>> = left.iter().map(fs::read).collect::<Result<_, _>>()?;
    let changed = build(lab, &root, &manifest, "second", &["--from", path_str(&record)?])?;
    changed.expect_code(125)?;
    let after: Vec<Vec<u8>> = left.iter().map(fs::read).collect::<Result<_, _>>()?;
    expect(before == after, "a build with a different result replaced the existing image")?;
    expect_in(&changed.stderr, "differs from the record", "the error")?;
    expect_in(&changed.stderr, "application.tree: ", "what differs")?;
    expect_in(&changed.stderr, "outputs.app.ramdisk.digest: ", "what differs")?;
    let none = build(lab, &root, &manifest, "fifth", &["--from", path_str(&manifest)?])?;
    none.expect_code(125)?;
    expect_in(&none.stderr, "is not a build record", "the error")
}

fn record(lab: &mut Lab) -> Outcome {
    let image = lab.image(MANIFEST)?;
    let record: Value = serde_json::from_slice(&part(&image, "build.json")?)?;
    expect_at(&record, "/version", 1)?;
    expect_at(&record, "/application/kind", "directory")?;
    for field in ["/application/tree", "/os/record", "/manifest_source"] {
        let digest = record.pointer(field).and_then(Value::as_str).unwrap_or_default();
        expect(digest.starts_with("sha256:"), format_args!("{field} is not a digest: {record}"))?;
    }
    let os: Value = serde_json::from_slice(&part(&image, "os.json")?)?;
    for field in [
        "/kernel/source/package",
        "/kernel/source/sha256",
        "/kernel/compiler",
        "/rustc",
        "/cargo_lock_sha256",
    ] {
        let found = os.pointer(field).and_then(Value::as_str).unwrap_or_default();
        expect(!found.is_empty(), format_args!("the record of the operating system lacks {field}: {os}"))?;
    }
    Ok(())
}

fn diff(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    fs::write(root.join("etc/old"), "")?;
    let manifest = lab.manifest(MANIFEST)?;
    build(lab, &root, &manifest, "first", &[])?.expect_code(0)?;
    let first = lab.folder().join("first");
    let same = lab.sleeve(&["diff", path_str(&first)?, path_str(&first)?]).finish()?;
    same.expect_code(0)?;
    expect_eq(&same.stdout.as_str(), &"", "the output for equal images")?;
    fs::remove_file(root.join("etc/old"))?;
    fs::write(root.join("etc/new"), "")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::set_permissions(root.join("etc/passwd"), fs::Permissions::from_mode(0o600))?;
    let manifest = lab.manifest("{version: 1, services: {web: {command: [PROBE, more]}}}")?;
    build(lab, &root, &manifest, "second", &[])?.expect_code(0)?;
    let second = lab.folder().join("second");
    let found = lab.sleeve(&["diff", path_str(&first)?, path_str(&second)?]).finish()?;
    found.expect_code(1)?;
    for line in [
        "part app.ramdisk changed",
        "part manifest.json changed",
        "file /etc/old: removed",
        "file /etc/new: added",
        "file /etc/group: content",
        "file /etc/passwd: mode",
        "manifest.json services",
    ] {
        expect_in(&found.stdout, line, "what differs")?;
    }
    for unchanged in ["kernel", "os.ramdisk", "os.json", "/probe:"] {
        expect(
            !found.stdout.contains(&format!("part {unchanged} ")),
            format_args!("{unchanged} is the same"),
        )?;
    }
    let json = lab.sleeve(&["diff", path_str(&first)?, path_str(&second)?, "--json"]).finish()?.json()?;
    expect(json.get("files").is_some_and(Value::is_array), "the JSON output lists files")
}
