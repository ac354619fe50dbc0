//! Requests to one repository of one registry.
//!
//! Invariant: nothing is sent unencrypted except to this host itself and to hosts that the user has named for it, every response
//! is bounded before it is read, and a password is sent only to the registry and to the token server that it names.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cloister_image::digest::Digest;
use cloister_image::oci::{Reference, media};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, ResponseExt};

use super::challenge::{self, Challenge};
use super::credentials::{Found, Login};
use super::error::RegistryError;
use super::pull::{Event, Pull};
use super::response::Server;
use super::retry::Retry;
use super::route::{self, Route, Scheme};
use super::token::{self, TokenRequest};
use super::trust;

/// Time limit for resolving a name, for connecting, for the response's header, and for each read of the response.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Maximum number of consecutive redirects: storage behind a registry takes one, browsers stop at twenty.
const MAX_REDIRECTS: usize = 10;

/// How often it is checked during a pause whether the pull was cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// The document types that the image crate reads, which the registry is to send without conversion.
const DOCUMENTS: [&str; 4] = [media::INDEX, media::MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST];

/// A client of one repository of a registry.
pub(super) struct Client<'a> {
    pull: &'a Pull<'a>,
    agent: Agent,
    server: Server,
    /// `https://host/v2/name`.
    base: String,
    repository: String,
    route: Route,
    session: Mutex<Session>,
}

/// How this client has authenticated.
#[derive(Default)]
struct Session {
    /// The value of the `Authorization` header, once one was required. A token may be an anonymous one.
    authorization: Option<String>,
    /// Whether it belongs to a user.
    signed_in: bool,
    /// Why the credential store for all registries returned no login.
    helper_error: Option<RegistryError>,
}

impl<'a> Client<'a> {
    pub(super) fn new(reference: &Reference, pull: &'a Pull<'a>) -> Result<Self, RegistryError> {
        let route = Route::new(&reference.registry, &pull.access.plain_http);
        let scheme = if route.scheme == Scheme::Http { "http" } else { "https" };
        Ok(Self {
            pull,
            agent: agent(route.scheme, route.local)?,
            base: format!("{scheme}://{}/v2/{}", reference.registry, reference.repository),
            server: Server::new(&reference.registry),
            repository: reference.repository.clone(),
            route,
            session: Mutex::default(),
        })
    }

    /// The registry, for errors in its responses.
    pub(super) const fn server(&self) -> &Server {
        &self.server
    }

    /// The registry's name.
    pub(super) fn name(&self) -> &str {
        self.server.name()
    }

    /// The URL of a manifest.
    pub(super) fn manifest(&self, target: &str) -> String {
        format!("{}/manifests/{target}", self.base)
    }

    /// The URL of a blob.
    pub(super) fn blob(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.base)
    }

    /// Fetches a document of at most `limit` bytes. Temporary errors are retried.
    pub(super) fn document(&self, url: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let mut retry = self.pull.retry;
        loop {
            let answer = self.get(url, 0).and_then(|response| self.server.read(response.into_body(), limit));
            match answer {
                Ok(bytes) => return Ok(bytes),
                Err(error) => self.wait(&mut retry, error)?,
            }
        }
    }

    /// Requests all bytes from `from`. The response begins there if its status is 206, or at the beginning if it is 200.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<Response<Body>, RegistryError> {
        let (first, end) = self.send(url, from)?;
        let response = match first.status() {
            // A challenge from another server, to which a redirect led, is not the registry's.
            StatusCode::UNAUTHORIZED if route::same_server(url, &end) => {
                self.authorize(&first)?;
                self.send(url, from)?.0
            }
            _ => first,
        };
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err(self.refused(response)),
        }
    }

    /// A new retry counter.
    pub(super) fn retry(&self) -> Retry {
        self.pull.retry
    }

    /// Waits before the next attempt, or returns the error if there should be none.
    pub(super) fn wait(&self, retry: &mut Retry, error: RegistryError) -> Result<(), RegistryError> {
        let Some(pause) = retry.pause(&error) else { return Err(error) };
        (self.pull.report)(Event::Waiting(pause, error.to_string()));
        let end = Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.pull.check_cancelled()?;
            std::thread::park_timeout(left.min(CANCEL_INTERVAL));
        }
        Ok(())
    }

    /// Sends one request and follows redirects. Between encrypted URLs the HTTP client follows them itself; from an unencrypted
    /// one each step is checked here. Returns the response and the URL that it came from.
    fn send(&self, url: &str, from: u64) -> Result<(Response<Body>, String), RegistryError> {
        let mut response = self.request(&self.agent, url, from, self.session().authorization.clone())?;
        if self.route.scheme == Scheme::Https {
            let end = response.get_uri().to_string();
            return Ok((response, end));
        }
        let mut current = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            if !response.status().is_redirection() {
                return Ok((response, current));
            }
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let Some(location) = location else { return Ok((response, current)) };
            let next = route::resolve(&current, location);
            let next = next.ok_or_else(|| self.server.protocol("a redirect has no valid target"))?;
            let scheme = self.route.scheme_for(&next);
            let scheme = scheme
                .ok_or_else(|| self.server.protocol("it redirects to another host without encryption"))?;
            let agent = self.agent_for(scheme)?;
            let authorization = self.session().authorization.clone();
            let authorization = authorization.filter(|_| route::same_server(url, &next));
            response = self.request(&agent, &next, from, authorization)?;
            current = next;
        }
        Err(self.server.protocol("it redirects more than ten times"))
    }

    fn request(
        &self,
        agent: &Agent,
        url: &str,
        from: u64,
        authorization: Option<String>,
    ) -> Result<Response<Body>, RegistryError> {
        let mut request = agent.get(url);
        for document in DOCUMENTS {
            request = request.header("Accept", document);
        }
        // Layers are stored compressed; a second compression for the transfer would hide their length.
        request = request.header("Accept-Encoding", "identity");
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        request.call().map_err(|source| self.server.network(source))
    }

    /// The HTTP client for this kind of connection.
    fn agent_for(&self, scheme: Scheme) -> Result<Agent, RegistryError> {
        if scheme == self.route.scheme { Ok(self.agent.clone()) } else { agent(scheme, false) }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Obtains the authorization that the registry requires.
    fn authorize(&self, refused: &Response<Body>) -> Result<(), RegistryError> {
        let headers = refused.headers().get_all("www-authenticate").iter();
        let challenge = headers.filter_map(|value| value.to_str().ok()).find_map(challenge::parse);
        let challenge = challenge.ok_or_else(|| {
            self.server.protocol("it requires authentication but sent no supported challenge")
        })?;
        let Found { login, helper_error } = (self.pull.login)(self.server.name(), &self.repository)?;
        let authorization = match challenge {
            Challenge::Basic => {
                let header = login.as_ref().and_then(Login::header);
                header.ok_or_else(|| self.server.denied(false))
            }
            Challenge::Bearer { realm, service, scope } => {
                let scheme = self.route.scheme_for(&realm);
                let scheme = scheme.ok_or_else(|| {
                    self.server.protocol("its token server would be reached without encryption")
                })?;
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
                match &login {
                    Some(access @ Login::Access(_)) => {
                        access.header().ok_or_else(|| self.server.denied(false))
                    }
                    login => {
                        let target = TokenRequest { realm, service, scope };
                        token::fetch(&self.server, &self.agent_for(scheme)?, &target, login.as_ref())
                    }
                }
            }
        };
        // The helper's error explains the refusal better than the refusal itself.
        let (authorization, helper_error) = match (authorization, helper_error) {
            (Err(RegistryError::Denied { known: false, .. }), Some(helper_error)) => {
                return Err(helper_error);
            }
            (authorization, helper_error) => (authorization?, helper_error),
        };
        *self.session() =
            Session { authorization: Some(authorization), signed_in: login.is_some(), helper_error };
        Ok(())
    }

    /// The error for an unsuccessful response.
    fn refused(&self, response: Response<Body>) -> RegistryError {
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.not_allowed(),
            _ => self.server.refused(response),
        }
    }

    /// The error for denied access: the helper's error if that is why no user is signed in.
    fn not_allowed(&self) -> RegistryError {
        let mut session = self.session();
        let denied = self.server.denied(session.signed_in);
        session.helper_error.take().filter(|_| !session.signed_in).unwrap_or(denied)
    }
}

/// An HTTP client for one kind of connection. No proxy is used for this host.
fn agent(scheme: Scheme, local: bool) -> Result<Agent, RegistryError> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("host-sleeve/", env!("CARGO_PKG_VERSION")))
        .redirect_auth_headers(RedirectAuthHeaders::Never)
        .timeout_resolve(Some(TIME_LIMIT))
        .timeout_connect(Some(TIME_LIMIT))
        .timeout_recv_response(Some(TIME_LIMIT))
        .timeout_per_read(Some(TIME_LIMIT));
    let config = match scheme {
        Scheme::Http if local => config.max_redirects(0).proxy(None).build(),
        Scheme::Http => config.max_redirects(0).build(),
        Scheme::Https => config.https_only(true).tls_config(trust::config()?).build(),
    };
    Ok(config.new_agent())
}
