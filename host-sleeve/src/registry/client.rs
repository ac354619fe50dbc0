//! Requests to one repository of one registry.
//!
//! Its law: nothing is sent unencrypted but to this host itself, every answer is bounded before it is read, and a password
//! goes no further than the registry and the place it names for tokens.

use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloister_image::digest::Digest;
use cloister_image::oci::{Reference, media};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body};

use super::challenge::{self, Challenge};
use super::credentials;
use super::fault::RegistryFault;
use super::trust;

/// How long a name, a connection and the beginning of an answer may take; how long an answer may stand still.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest answer with a token or an error, in bytes. Tokens have some kilobytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Every form of document that the image crate reads, one of which a registry is to send as it is.
const DOCUMENTS: [&str; 4] = [media::INDEX, media::MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST];

/// Talks to a registry.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    registry: String,
    /// `https://host/v2/name`.
    base: String,
    repository: String,
    /// Whether the registry is this host, which is talked to without encryption.
    local: bool,
    /// The value of the `Authorization` header, once one was wanted.
    authorization: Mutex<Option<String>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    message: String,
}

impl Client {
    pub(super) fn new(reference: &Reference) -> Result<Self, RegistryFault> {
        let local = is_local(&reference.registry);
        let scheme = if local { "http" } else { "https" };
        Ok(Self {
            agent: agent(local)?,
            base: format!("{scheme}://{}/v2/{}", reference.registry, reference.repository),
            registry: reference.registry.clone(),
            repository: reference.repository.clone(),
            local,
            authorization: Mutex::new(None),
        })
    }

    /// The registry's name.
    pub(super) fn name(&self) -> &str {
        &self.registry
    }

    /// Where a manifest is.
    pub(super) fn manifest(&self, target: &str) -> String {
        format!("{}/manifests/{target}", self.base)
    }

    /// Where a blob is.
    pub(super) fn blob(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.base)
    }

    /// A document of at most `limit` bytes.
    pub(super) fn document(&self, place: &str, limit: u64) -> Result<Vec<u8>, RegistryFault> {
        let response = self.get(place, 0)?;
        self.read(response.into_body(), limit)
    }

    /// The answer to a request for all bytes from `from`. Its status says whether it begins there: 206, or at the
    /// beginning: 200.
    pub(super) fn get(&self, place: &str, from: u64) -> Result<Response<Body>, RegistryFault> {
        let first = self.send(place, from)?;
        let response = match first.status() {
            StatusCode::UNAUTHORIZED => {
                self.authorize(&first)?;
                self.send(place, from)?
            }
            _ => first,
        };
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err(self.refused(response)),
        }
    }

    /// The fault of a connection that broke while an answer came.
    pub(super) fn broken(&self, source: std::io::Error) -> RegistryFault {
        RegistryFault::Broken { registry: self.registry.clone(), source }
    }

    fn send(&self, place: &str, from: u64) -> Result<Response<Body>, RegistryFault> {
        let mut request = self.agent.get(place);
        for document in DOCUMENTS {
            request = request.header("Accept", document);
        }
        // Layers are stored compressed; a second compression on the way would hide their length.
        request = request.header("Accept-Encoding", "identity");
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        if let Some(authorization) = self.authorization() {
            request = request.header("Authorization", authorization);
        }
        request.call().map_err(|source| self.network(source))
    }

    fn authorization(&self) -> Option<String> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets what the registry wants to see.
    fn authorize(&self, refused: &Response<Body>) -> Result<(), RegistryFault> {
        let headers = refused.headers().get_all("www-authenticate").iter();
        let challenge = headers.filter_map(|value| value.to_str().ok()).find_map(challenge::parse);
        let authorization = match challenge {
            None => return Err(self.protocol("it refuses without saying what it wants")),
            Some(Challenge::Basic) => {
                let credentials = credentials::find(&self.registry)?;
                credentials.ok_or_else(|| self.denied(false))?.basic()
            }
            Some(Challenge::Bearer { realm, service, scope }) => self.token(&realm, service, scope)?,
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        Ok(())
    }

    fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<String, RegistryFault> {
        let agent = match way_to(realm, self.local) {
            Some(Way::Encrypted) if self.local => agent(false)?,
            Some(Way::Encrypted | Way::Open) => self.agent.clone(),
            None => return Err(self.protocol("it sends for a token to a place without encryption")),
        };
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let mut request = agent.get(realm).query("scope", scope);
        if let Some(service) = service {
            request = request.query("service", service);
        }
        let credentials = credentials::find(&self.registry)?;
        if let Some(credentials) = &credentials {
            request = request.header("Authorization", credentials.basic());
        }
        let response = request.call().map_err(|source| self.network(source))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.denied(credentials.is_some()));
            }
            _ => return Err(self.refused(response)),
        }
        let bytes = self.read(response.into_body(), MAX_ANSWER)?;
        let token: Option<Token> = serde_json::from_slice(&bytes).ok();
        let token = token.and_then(|answer| answer.token.or(answer.access_token));
        token.map(|token| format!("Bearer {token}")).ok_or_else(|| self.protocol("its answer holds no token"))
    }

    fn read(&self, body: Body, limit: u64) -> Result<Vec<u8>, RegistryFault> {
        let mut bytes = Vec::new();
        let mut reader = body.into_reader().take(limit.saturating_add(1));
        reader.read_to_end(&mut bytes).map_err(|source| self.broken(source))?;
        match u64::try_from(bytes.len()) {
            Ok(length) if length <= limit => Ok(bytes),
            _ => Err(RegistryFault::TooLong { limit }),
        }
    }

    fn refused(&self, response: Response<Body>) -> RegistryFault {
        let registry = self.registry.clone();
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND => RegistryFault::Missing { registry },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(self.authorization().is_some()),
            StatusCode::TOO_MANY_REQUESTS => RegistryFault::TooMany { registry },
            _ => {
                let message = self.complaint(response.into_body());
                RegistryFault::Status { registry, status: status.as_u16(), message }
            }
        }
    }

    /// What a registry says about an error, if it says it as the specification has it.
    fn complaint(&self, body: Body) -> String {
        let bytes = self.read(body, MAX_ANSWER).unwrap_or_default();
        let complaint: Complaint = serde_json::from_slice(&bytes).unwrap_or_default();
        complaint.errors.first().map(|reason| reason.message.chars().take(200).collect()).unwrap_or_default()
    }

    fn denied(&self, known: bool) -> RegistryFault {
        RegistryFault::Denied { registry: self.registry.clone(), known }
    }

    fn network(&self, source: ureq::Error) -> RegistryFault {
        RegistryFault::Network { registry: self.registry.clone(), source }
    }

    fn protocol(&self, what: &'static str) -> RegistryFault {
        RegistryFault::Protocol { registry: self.registry.clone(), what }
    }
}

/// Makes requests: unencrypted to this host, where it is `local`, else encrypted.
fn agent(local: bool) -> Result<Agent, RegistryFault> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("host-sleeve/", env!("CARGO_PKG_VERSION")))
        .redirect_auth_headers(RedirectAuthHeaders::Never)
        .timeout_resolve(Some(PATIENCE))
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE));
    let config = if local {
        // Nothing on this host has a reason to send us elsewhere.
        config.max_redirects(0).proxy(None).build()
    } else {
        config.https_only(true).tls_config(trust::config()?).build()
    };
    Ok(config.new_agent())
}

/// How a place for tokens is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Encrypted,
}

/// The way to the place that a registry names for tokens, if a password may go there. It is read as the agent reads it.
fn way_to(realm: &str, registry_is_local: bool) -> Option<Way> {
    let place: Uri = realm.parse().ok()?;
    match place.scheme_str()? {
        "https" => Some(Way::Encrypted),
        "http" if registry_is_local && is_local(place.host()?) => Some(Way::Open),
        _ => None,
    }
}

/// Whether a registry is this host, by a name or number that no other host can have.
fn is_local(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_talked_to_without_encryption() {
        for local in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(is_local(local), "{local}");
        }
        for other in ["localhost.example.com", "127.0.0.1.nip.io", "10.0.0.1:5000", "[::2]", "ghcr.io", ""] {
            assert!(!is_local(other), "{other}");
        }
    }

    #[test]
    fn a_password_goes_open_to_this_host_alone() {
        for local in ["http://localhost/token", "http://127.0.0.1:5001/t?x", "http://[::1]:5001/t"] {
            assert_eq!(way_to(local, true), Some(Way::Open), "{local}");
            assert_eq!(way_to(local, false), None, "{local}");
        }
        for other in ["http://auth.example.com/token", "http://localhost@192.0.2.1/", "http://[::2]/", "/t"] {
            assert_eq!(way_to(other, true), None, "{other}");
        }
        assert_eq!(way_to("https://auth.example.com/token", true), Some(Way::Encrypted));
    }
}
