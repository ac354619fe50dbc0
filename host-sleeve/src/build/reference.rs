//! References to container images, as given to `--image`.
//!
//! Invariant: the syntax is that of skopeo and podman, so that a reference that works there works here.

use std::path::{Path, PathBuf};

use cloister_image::build::Input;
use cloister_image::oci::{Reference, Select};

use crate::error::{Error, Result};

/// The accepted forms, for hints.
const FORMS: &str = "oci:DIR[:TAG], oci-archive:FILE[:NAME:TAG], docker-archive:FILE[:NAME:TAG], docker://HOST/NAME[:TAG|@DIGEST] or dir:DIR";

/// The source of a container image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file or directory on this host.
    Here(Input),
    /// A registry.
    Registry(Reference),
}

/// Parses a reference.
pub(super) fn parse(text: &str) -> Result<Origin> {
    if let Some(name) = text.strip_prefix("docker://") {
        let wrong = |error| Error::operator(format!("`{text}` is not an image reference")).because(error);
        return name.parse().map(Origin::Registry).map_err(wrong);
    }
    here(text).map(Origin::Here)
}

fn here(text: &str) -> Result<Input> {
    let unknown = || {
        Error::operator(format!("`{text}` is not an image reference")).hint(format!("--image takes {FORMS}"))
    };
    let (transport, rest) = text.split_once(':').filter(|(_, rest)| !rest.is_empty()).ok_or_else(unknown)?;
    match transport {
        "dir" => Ok(Input::Directory { path: PathBuf::from(rest) }),
        "oci" => {
            let (path, select) = split(rest);
            Ok(Input::Layout { path, select: select.map_or(Ok(Select::Only), selected)? })
        }
        "oci-archive" => {
            let (path, select) = split(rest);
            Ok(Input::OciArchive { path, select: select.map_or(Ok(Select::Only), selected)? })
        }
        "docker-archive" => {
            let (path, select) = split(rest);
            Ok(Input::DockerArchive { path, select: select.map_or(Ok(Select::Only), selected)? })
        }
        _ => Err(unknown()),
    }
}

/// Splits the path from the selection after it. A path that exists is used as it is, including colons.
fn split(rest: &str) -> (PathBuf, Option<&str>) {
    if Path::new(rest).exists() {
        return (PathBuf::from(rest), None);
    }
    match rest.find([':', '@']) {
        Some(at) => {
            let (path, select) = rest.split_at(at);
            (PathBuf::from(path), Some(select))
        }
        None => (PathBuf::from(rest), None),
    }
}

/// Parses `:name` or `@sha256:…`.
fn selected(select: &str) -> Result<Select> {
    if let Some(digest) = select.strip_prefix('@') {
        let wrong = |error| Error::operator("the image's digest is malformed").because(error);
        return digest.parse().map(Select::Digest).map_err(wrong);
    }
    Ok(Select::Name(select.trim_start_matches(':').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_parsed() {
        assert_eq!(here("dir:./root").unwrap(), Input::Directory { path: "./root".into() });
        assert_eq!(
            here("oci:./no-such-layout:stable").unwrap(),
            Input::Layout { path: "./no-such-layout".into(), select: Select::Name("stable".into()) }
        );
        assert_eq!(
            here("docker-archive:app.tar:web/nginx:1.27").unwrap(),
            Input::DockerArchive { path: "app.tar".into(), select: Select::Name("web/nginx:1.27".into()) }
        );
        assert_eq!(
            here("oci-archive:app.tar:docker.io/library/nginx:1.27").unwrap(),
            Input::OciArchive {
                path: "app.tar".into(),
                select: Select::Name("docker.io/library/nginx:1.27".into())
            }
        );
        assert_eq!(
            here("oci:./no-such-layout").unwrap(),
            Input::Layout { path: "./no-such-layout".into(), select: Select::Only }
        );
    }

    #[test]
    fn a_registry_reference_is_parsed() {
        let Origin::Registry(reference) = parse("docker://127.0.0.1:5000/web:1").unwrap() else {
            panic!("not a registry");
        };
        assert_eq!(reference.to_string(), "127.0.0.1:5000/web:1");
    }

    #[test]
    fn an_existing_path_may_contain_colons() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a:b");
        std::fs::create_dir(&path).unwrap();
        let Input::Layout { path: read, select } = here(&format!("oci:{}", path.display())).unwrap() else {
            panic!("not a layout");
        };
        assert_eq!((read, select), (path, Select::Only));
    }

    #[test]
    fn a_malformed_reference_is_refused_with_the_accepted_forms() {
        for text in ["", "nginx", "oci:", "ftp:x", "oci:./none@sha256:12", "docker://", "docker://A"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("nginx").unwrap_err().details().hint.as_deref().unwrap().contains("docker-archive:"));
    }
}
