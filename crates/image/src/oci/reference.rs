//! Image names in registries: `HOST[:PORT]/NAME[:TAG][@DIGEST]`.
//!
//! Invariant: a name that docker accepts refers to the same image as in docker. Names become part of URLs, so their
//! characters are checked here, once.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// Maximum length of a name in registries (OCI distribution specification, "Pulling manifests").
const MAX_NAME: usize = 255;
/// Maximum length of a tag.
const MAX_TAG: usize = 128;

/// Docker Hub's host for requests.
const HUB: &str = "registry-1.docker.io";
/// Its names: the first two are docker's own, the others are its hosts in documents and in other tools' output.
const HUB_NAMES: [&str; 4] = ["docker.io", "index.docker.io", HUB, "registry.hub.docker.com"];

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `host` or `host:port`.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// The tag, `latest` if neither a tag nor a digest was given.
    pub tag: Option<String>,
    /// The digest, which takes precedence over the tag.
    pub digest: Option<Digest>,
}

/// A text that is not an image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image name: {why}")]
pub struct ReferenceError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Reference {
    /// The last part of the URL of the manifest: the digest, or the tag.
    #[must_use]
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = |why| ReferenceError { text: text.chars().take(300).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| error("its digest is not a SHA-256 digest"))?))
            }
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let (registry, repository) = split_registry(path);
        check_registry(&registry).map_err(error)?;
        check_repository(&repository).map_err(error)?;
        if let Some(tag) = &tag {
            check_tag(tag).map_err(error)?;
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry, repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// The first part is a registry if it looks like a host: it has a dot or a port, or is `localhost`. Any other name is
/// on Docker Hub.
fn split_registry(path: &str) -> (String, String) {
    match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':', '[']) || host == "localhost" => {
            if HUB_NAMES.contains(&host) { hub(rest) } else { (host.to_owned(), rest.to_owned()) }
        }
        _ => hub(path),
    }
}

fn hub(path: &str) -> (String, String) {
    let repository = if path.contains('/') { path.to_owned() } else { format!("library/{path}") };
    (HUB.to_owned(), repository)
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if registry.is_empty() || !registry.chars().all(valid) {
        Err("its registry is not a host name")
    } else {
        Ok(())
    }
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.len() > MAX_NAME {
        return Err("it is longer than 255 bytes");
    }
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = |part: &str| {
        part.starts_with(edge)
            && part.ends_with(edge)
            && part.chars().all(|c| edge(c) || matches!(c, '.' | '_' | '-'))
    };
    if repository.split('/').all(valid) {
        Ok(())
    } else {
        Err("its components may contain only lower-case letters, digits, `.`, `_` and `-`")
    }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let valid = tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'));
    if valid && tag.len() <= MAX_TAG {
        Ok(())
    } else {
        Err("its tag may contain only letters, digits, `_`, `.` and `-`, at most 128")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_interpreted_as_in_docker() {
        let digest = Digest::of(b"");
        let cases = [
            ("nginx", "registry-1.docker.io/library/nginx:latest".to_owned()),
            ("me/app:1", "registry-1.docker.io/me/app:1".to_owned()),
            ("docker.io/nginx:1", "registry-1.docker.io/library/nginx:1".to_owned()),
            ("registry-1.docker.io/nginx:1", "registry-1.docker.io/library/nginx:1".to_owned()),
            ("registry.hub.docker.com/me/app:1", "registry-1.docker.io/me/app:1".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b:x".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            (&format!("ghcr.io/a/b@{digest}"), format!("ghcr.io/a/b@{digest}")),
            (&format!("ghcr.io/a/b:1@{digest}"), format!("ghcr.io/a/b:1@{digest}")),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn names_that_could_change_a_url_are_refused() {
        let cases = [
            "",
            "a/../b",
            "UPPER",
            "a b",
            "h.x/a?b",
            "h.x/a:t/../x",
            "h.x/a@sha256:1",
            "u:p@h.x/a",
            "h.x//a",
            "a:",
            "h.x/",
        ];
        for text in cases {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
