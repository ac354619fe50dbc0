//! What `docker login` and `podman login` have left for a registry.
//!
//! Its law: a password is read when a registry asks for one, goes to that registry and the place it names for tokens, and
//! is shown to nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::fault::RegistryFault;

/// Docker Hub's name in these files; it is older than its present host.
const HUB: &str = "https://index.docker.io/v1/";
/// Docker Hub's host.
const HUB_HOST: &str = "registry-1.docker.io";

/// The longest file that is read, in bytes: one has some lines for each registry.
const MAX_FILE: u64 = 1 << 20;

/// The user name that marks an identity token instead of a password (`docker-credential-helpers`).
const IDENTITY: &str = "<token>";

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The value of an `Authorization` header.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// What is known for a registry, in the first file that knows it.
pub(super) fn find(registry: &str) -> Result<Option<Credentials>, RegistryFault> {
    for path in files() {
        if let Some(found) = find_in(&path, registry)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Where to look, in the order of `containers-auth.json(5)`: what was named, podman's, Docker's.
fn files() -> Vec<PathBuf> {
    let place = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = place("DOCKER_CONFIG").or_else(|| place("HOME").map(|home| home.join(".docker")));
    let all = [
        place("REGISTRY_AUTH_FILE"),
        place("XDG_RUNTIME_DIR").map(|path| path.join("containers/auth.json")),
        docker.map(|path| path.join("config.json")),
    ];
    all.into_iter().flatten().collect()
}

fn find_in(path: &Path, registry: &str) -> Result<Option<Credentials>, RegistryFault> {
    let fault = |what| RegistryFault::File { path: path.to_owned(), what };
    let Ok(metadata) = path.metadata() else { return Ok(None) };
    if metadata.len() > MAX_FILE {
        return Err(fault("it is longer than a megabyte"));
    }
    let bytes = std::fs::read(path).map_err(|_| fault("it cannot be read"))?;
    let config: Config = serde_json::from_slice(&bytes).map_err(|_| fault("it is not Docker's JSON"))?;
    let key = if registry == HUB_HOST { HUB } else { registry };
    if let Some(helper) = config.cred_helpers.get(key) {
        return ask(helper, key).map(Some);
    }
    let known = config.auths.get(key).or_else(|| config.auths.get(&format!("https://{key}")));
    match (known.map(|entry| entry.auth.as_deref()), &config.creds_store) {
        (Some(Some(auth)), _) if !auth.is_empty() => {
            decode(auth).map(Some).ok_or_else(|| fault("an auth is not base64"))
        }
        // With a store, Docker leaves an entry without a password.
        (Some(_), Some(store)) => ask(store, key).map(Some),
        _ => Ok(None),
    }
}

fn decode(auth: &str) -> Option<Credentials> {
    let text = String::from_utf8(BASE64_STANDARD.decode(auth).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credentials { user: user.to_owned(), password: password.to_owned() })
}

/// Asks a helper program, by its protocol: the registry on its standard input, JSON on its standard output.
fn ask(helper: &str, registry: &str) -> Result<Credentials, RegistryFault> {
    let fault = |why: String| RegistryFault::Helper { helper: helper.to_owned(), why };
    // The name is part of a program's name, not a path.
    if helper.contains('/') {
        return Err(fault("its name has a slash in it".to_owned()));
    }
    let run = || {
        let mut command = Command::new(format!("docker-credential-{helper}"));
        let mut child = command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(registry.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| fault(error.to_string()))?;
    if !output.status.success() {
        return Err(fault(String::from_utf8_lossy(&output.stdout).trim().chars().take(200).collect()));
    }
    let answer: Helped =
        serde_json::from_slice(&output.stdout).map_err(|_| fault("its answer is no JSON".to_owned()))?;
    if answer.username == IDENTITY {
        return Err(fault("it has an identity token, which takes another protocol".to_owned()));
    }
    Ok(Credentials { user: answer.username, password: answer.secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_text(text: &str, registry: &str) -> Result<Option<Credentials>, RegistryFault> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        find_in(file.path(), registry)
    }

    #[test]
    fn a_password_is_found_for_its_registry_alone() {
        // me:secret
        let text = r#"{"auths": {"ghcr.io": {"auth": "bWU6c2VjcmV0"}, "https://index.docker.io/v1/": {"auth": "aHViOng="}}}"#;
        let found = find_text(text, "ghcr.io").unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.password.as_str()), ("me", "secret"));
        assert_eq!(found.basic(), "Basic bWU6c2VjcmV0");
        assert_eq!(find_text(text, HUB_HOST).unwrap().unwrap().user, "hub");
        assert_eq!(find_text(text, "other.io").unwrap(), None);
        assert!(!format!("{found:?}").contains("secret"));
    }

    #[test]
    fn files_that_are_broken_or_missing_are_told_apart() {
        assert_eq!(find_in(Path::new("/no/such/file"), "x").unwrap(), None);
        assert!(find_text("no json", "x").is_err());
        assert!(find_text(r#"{"auths": {"x": {"auth": "*"}}}"#, "x").is_err());
    }

    #[test]
    fn a_helper_that_is_not_there_is_named() {
        let text = r#"{"credHelpers": {"x": "no-such-helper", "y": "../evil"}}"#;
        assert!(find_text(text, "x").unwrap_err().to_string().contains("no-such-helper"));
        assert!(find_text(text, "y").unwrap_err().to_string().contains("slash"));
    }
}
