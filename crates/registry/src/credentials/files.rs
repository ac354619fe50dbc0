//! The files that contain logins, and which of their entries belongs to a repository.
//!
//! Invariant: the lookup is the one that docker and podman document, so that every user who can pull with them can pull here. A
//! file named by the user must exist; a missing file at a default location is ignored.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::GeneralPurposeConfig;
use base64::engine::{DecodePaddingMode, GeneralPurpose};
use serde::Deserialize;

use super::super::error::RegistryError;
use super::helper;
use super::login::{Found, Login};

/// Docker Hub's key, which docker writes and passes to helpers; it is older than Hub's current host names.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Docker Hub's host names; the first one is the one that requests are sent to.
const HUB_NAMES: [&str; 3] = ["registry-1.docker.io", "docker.io", "index.docker.io"];

/// Maximum size of a file in bytes: it has a few lines for each registry.
const MAX_FILE: u64 = 1 << 20;

/// Paths that old clients appended to a registry's host: the version of its API, not a namespace.
const API_PATHS: [&str; 2] = ["v1", "v2"];

/// Docker's encoding of `user:password`; some tools leave out the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One source of logins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether the user named it.
        named: bool,
        /// Whether it is `~/.dockercfg`: entries at the top level, keys with paths.
        legacy: bool,
    },
    /// The value of `DOCKER_AUTH_CONFIG`, which Docker reads like its file.
    Variable(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

/// One entry. Docker writes the member names in lower case.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// The sources, in order: only the file named by the user, if any; else podman's files and then Docker's (`containers-auth.json(5)`).
pub(super) fn sources(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Vec<Source>, RegistryError> {
    let place = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let file = |path: PathBuf| Source::File { path, named: false, legacy: false };
    if let Some(path) = place("REGISTRY_AUTH_FILE") {
        return Ok(vec![Source::File { path, named: true, legacy: false }]);
    }
    let home = place("HOME");
    let in_home = |part: &str| home.as_ref().map(|home| home.join(part));
    let runtime = place("XDG_RUNTIME_DIR").map(|path| path.join("containers/auth.json"));
    let runtime = runtime.unwrap_or_else(|| {
        let uid = rustix::process::getuid().as_raw();
        PathBuf::from(format!("/run/containers/{uid}/auth.json"))
    });
    let settings = place("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
    let docker = place("DOCKER_CONFIG").or_else(|| in_home(".docker"));
    let text = variable("DOCKER_AUTH_CONFIG").filter(|value| !value.is_empty()).map(|value| {
        let error = || RegistryError::File { path: "DOCKER_AUTH_CONFIG".into(), what: "it is not UTF-8" };
        value.into_string().map(Source::Variable).map_err(|_| error())
    });
    let mut all = vec![file(runtime)];
    all.extend(settings.map(|path| file(path.join("containers/auth.json"))));
    all.extend(text.transpose()?);
    all.extend(docker.map(|path| file(path.join("config.json"))));
    all.extend(in_home(".dockercfg").map(|path| Source::File { path, named: false, legacy: true }));
    Ok(all)
}

impl Source {
    /// The login that this source has for a repository.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Found, RegistryError> {
        let Some(config) = self.read()? else { return Ok(Found::default()) };
        let names = names(registry);
        let asked = if is_hub(registry) { HUB_KEY } else { registry };
        let helper = names.iter().copied().chain([asked]).find_map(|name| config.cred_helpers.get(name));
        if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
            return Ok(Found { login: helper::query(helper, asked)?, helper_error: None });
        }
        let entry = exact(&config.auths, &names, repository).or_else(|| self.loose(&config.auths, &names));
        if let Some(login) = entry.map(Entry::login).transpose().map_err(|what| self.error(what))?.flatten() {
            return Ok(Found { login: Some(login), helper_error: None });
        }
        // With a credential store, Docker's entry has no password, or there is no entry (Amazon ECR's helper).
        match config.creds_store.filter(|store| !store.is_empty()).map(|store| helper::query(&store, asked)) {
            None => Ok(Found::default()),
            Some(Ok(login)) => Ok(Found { login, helper_error: None }),
            Some(Err(error)) => Ok(Found { login: None, helper_error: Some(error) }),
        }
    }

    fn read(&self) -> Result<Option<Config>, RegistryError> {
        let (bytes, legacy) = match self {
            Self::Variable(text) => (text.clone().into_bytes(), false),
            Self::File { path, named, legacy } => match path.metadata() {
                Err(_) if !named => return Ok(None),
                Err(_) => return Err(self.error("no such file")),
                Ok(metadata) if metadata.len() > MAX_FILE => {
                    return Err(self.error("it is longer than a megabyte"));
                }
                Ok(_) => (std::fs::read(path).map_err(|_| self.error("it cannot be read"))?, *legacy),
            },
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let config = if legacy {
            serde_json::from_slice(&bytes).map(|auths| Config { auths, ..Config::default() })
        } else {
            serde_json::from_slice(&bytes)
        };
        config.map(Some).map_err(|_| self.error("it is not JSON in Docker's format"))
    }

    /// An entry whose key identifies the registry in another form: with a scheme, with the path of an API version, by another of
    /// Docker Hub's names.
    fn loose<'a>(&self, auths: &'a BTreeMap<String, Entry>, names: &[&str]) -> Option<&'a Entry> {
        let legacy = matches!(self, Self::File { legacy: true, .. });
        let matches = |key: &str| host_of(key, legacy).is_some_and(|host| names.contains(&host));
        auths.iter().find(|(key, _)| matches(key)).map(|(_, entry)| entry)
    }

    fn error(&self, what: &'static str) -> RegistryError {
        let path = match self {
            Self::File { path, .. } => path.clone(),
            Self::Variable(_) => Path::new("DOCKER_AUTH_CONFIG").to_owned(),
        };
        RegistryError::File { path, what }
    }
}

impl Entry {
    /// The login of this entry, if it has one.
    fn login(&self) -> Result<Option<Login>, &'static str> {
        let full = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = full(&self.identitytoken) {
            return Ok(Some(Login::Identity(token)));
        }
        if let Some(token) = full(&self.registrytoken) {
            return Ok(Some(Login::Access(token)));
        }
        if let Some(auth) = full(&self.auth) {
            let (user, password) =
                decode(&auth).ok_or("an `auth` value is not the base64 encoding of user:password")?;
            return Ok(Some(Login::Password { user, password }));
        }
        let pair = full(&self.username).zip(full(&self.password));
        Ok(pair.map(|(user, password)| Login::Password { user, password }))
    }
}

/// Docker pads passwords with NUL bytes on some systems, and strips them here.
fn decode(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_matches('\0').to_owned()))
}

/// The names of one registry.
fn names(registry: &str) -> Vec<&str> {
    if is_hub(registry) { HUB_NAMES.to_vec() } else { vec![registry] }
}

fn is_hub(registry: &str) -> bool {
    HUB_NAMES.contains(&registry)
}

/// The entry with the longest key that is the repository or a namespace above it, down to the registry itself.
fn exact<'a>(auths: &'a BTreeMap<String, Entry>, names: &[&str], repository: &str) -> Option<&'a Entry> {
    let ends = repository.match_indices('/').map(|(at, _)| at).chain([repository.len()]).collect::<Vec<_>>();
    let spaces = ends.iter().rev().filter_map(|end| repository.get(..*end));
    let keys = spaces.flat_map(|space| names.iter().map(move |name| format!("{name}/{space}")));
    let plain = names.iter().map(|name| (*name).to_owned());
    keys.chain(plain).find_map(|key| auths.get(&key))
}

/// The host, if a key refers to all of it. A path without a scheme is a namespace, unless it is an API version or the file
/// is from before there were namespaces.
fn host_of(key: &str, legacy: bool) -> Option<&str> {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = bare.unwrap_or(key).split_once('/').unwrap_or((bare.unwrap_or(key), ""));
    let path = path.trim_end_matches('/');
    (bare.is_some() || legacy || path.is_empty() || API_PATHS.contains(&path)).then_some(host)
}
