//! Where an application comes from, as an operator writes it.
//!
//! Its law: the words are skopeo's, and mean here what they mean there.
//!
//! | text | what |
//! |---|---|
//! | `oci:DIR`, `oci:DIR:NAME`, `oci:DIR@sha256:…` | an OCI image layout |
//! | `docker-archive:FILE`, `docker-archive:FILE:NAME:TAG` | what `docker save` and `podman save` write |
//! | `docker://HOST/NAME:TAG`, `docker://HOST/NAME@sha256:…` | a registry |
//! | `dir:DIR` | a root file system |

use std::path::PathBuf;
use std::str::FromStr;

use crate::build::Input;
use crate::oci::{Reference, ReferenceFault, Select};

/// What an operator named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Something on this host.
    Local(Input),
    /// Something in a registry, to be fetched first.
    Registry(Reference),
}

/// Words that name no source. The operator must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    /// None of the forms.
    #[error("`{0}` is none of oci:DIR, docker-archive:FILE, docker://HOST/NAME, dir:DIR")]
    Form(String),
    /// A form with nothing after it.
    #[error("`{0}` names no path")]
    NoPath(String),
    /// A digest that is none.
    #[error("what follows the `@` in `{0}` is no sha256 digest")]
    Digest(String),
    /// No name of an image in a registry.
    #[error("the registry's part cannot be understood")]
    Reference(#[from] ReferenceFault),
}

impl FromStr for Source {
    type Err = SourceFault;

    fn from_str(text: &str) -> Result<Self, SourceFault> {
        if let Some(reference) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(reference.parse()?));
        }
        let input = match text.split_once(':') {
            Some((_, "")) => return Err(SourceFault::NoPath(text.to_owned())),
            Some(("oci", rest)) => {
                let (path, select) = selected(rest, text)?;
                Input::Layout { path, select }
            }
            Some(("docker-archive", rest)) => {
                let (path, select) = selected(rest, text)?;
                Input::DockerArchive { path, select }
            }
            Some(("dir", path)) => Input::Directory { path: PathBuf::from(path) },
            _ => return Err(SourceFault::Form(text.chars().take(300).collect())),
        };
        Ok(Self::Local(input))
    }
}

/// A path, and which image in it: everything after its first colon, or a digest after an `@`.
fn selected(rest: &str, whole: &str) -> Result<(PathBuf, Select), SourceFault> {
    let (path, select) = match (rest.rsplit_once("@sha256:"), rest.split_once(':')) {
        (Some((path, hex)), _) => {
            let digest = crate::digest::Digest::from_hex(hex);
            (path, Select::Digest(digest.map_err(|_| SourceFault::Digest(whole.to_owned()))?))
        }
        (None, Some((path, name))) => (path, Select::Name(name.to_owned())),
        (None, None) => (rest, Select::Only),
    };
    if path.is_empty() {
        Err(SourceFault::NoPath(whole.to_owned()))
    } else {
        Ok((PathBuf::from(path), select))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn every_form_is_read() {
        let layout = |path: &str, select| Source::Local(Input::Layout { path: path.into(), select });
        let archive = |path: &str, select| Source::Local(Input::DockerArchive { path: path.into(), select });
        let name = |name: &str| Select::Name(name.to_owned());
        let digest = Digest::of(b"");
        let cases = [
            ("oci:./layout".to_owned(), layout("./layout", Select::Only)),
            ("oci:./layout:v1".to_owned(), layout("./layout", name("v1"))),
            (format!("oci:./layout@{digest}"), layout("./layout", Select::Digest(digest))),
            ("docker-archive:a.tar".to_owned(), archive("a.tar", Select::Only)),
            ("docker-archive:a.tar:app:1".to_owned(), archive("a.tar", name("app:1"))),
            ("dir:/a:b".to_owned(), Source::Local(Input::Directory { path: "/a:b".into() })),
            ("docker://h.x/a:1".to_owned(), Source::Registry("h.x/a:1".parse().unwrap())),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for text in [
            "",
            "./layout",
            "oci:",
            "oci::v1",
            "oci:x@sha256:12",
            "tarball:x",
            "docker://",
            "docker://A",
            "dir:",
        ] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }
}
