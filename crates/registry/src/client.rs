//! Requests to one repository of one registry.
//!
//! Its law: nothing is sent unencrypted but to this host itself, every answer is bounded before it is read, and a password
//! goes no further than the registry and the place it names for tokens.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cloister_image::digest::Digest;
use cloister_image::oci::{Reference, media};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, ResponseExt};

use super::answer::Server;
use super::challenge::{self, Challenge};
use super::credentials::{Found, Login};
use super::fault::RegistryFault;
use super::pull::{Event, Pull};
use super::retry::Retry;
use super::route::{self, Route, Way};
use super::token::{self, Wanted};
use super::trust;

/// How long a name, a connection and the beginning of an answer may take; how long an answer may stand still.
const PATIENCE: Duration = Duration::from_secs(30);

/// Redirects in a row that are followed: storage behind a registry is one away, browsers stop at twenty.
const MAX_REDIRECTS: usize = 10;

/// How often a pause looks whether the pull is still wanted.
const ATTENTION: Duration = Duration::from_millis(100);

/// Every form of document that the image crate reads, one of which a registry is to send as it is.
const DOCUMENTS: [&str; 4] = [media::INDEX, media::MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST];

/// Talks to a registry.
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

/// How this client has signed in.
#[derive(Default)]
struct Session {
    /// The value of the `Authorization` header, once one was wanted. A token may be anybody's.
    authorization: Option<String>,
    /// Whether it is a user's.
    signed_in: bool,
    /// Why the store of all logins gave none.
    trouble: Option<RegistryFault>,
}

impl<'a> Client<'a> {
    pub(super) fn new(reference: &Reference, pull: &'a Pull<'a>) -> Result<Self, RegistryFault> {
        let route = Route::new(&reference.registry, &pull.access.plain_http);
        let scheme = if route.way == Way::Open { "http" } else { "https" };
        Ok(Self {
            pull,
            agent: agent(route.way, route.local)?,
            base: format!("{scheme}://{}/v2/{}", reference.registry, reference.repository),
            server: Server::new(&reference.registry),
            repository: reference.repository.clone(),
            route,
            session: Mutex::default(),
        })
    }

    /// The registry, for the faults of its answers.
    pub(super) const fn server(&self) -> &Server {
        &self.server
    }

    /// The registry's name.
    pub(super) fn name(&self) -> &str {
        self.server.name()
    }

    /// Where a manifest is.
    pub(super) fn manifest(&self, target: &str) -> String {
        format!("{}/manifests/{target}", self.base)
    }

    /// Where a blob is.
    pub(super) fn blob(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.base)
    }

    /// A document of at most `limit` bytes. What fails in passing is asked for again.
    pub(super) fn document(&self, place: &str, limit: u64) -> Result<Vec<u8>, RegistryFault> {
        let mut retry = self.pull.retry;
        loop {
            let answer =
                self.get(place, 0).and_then(|response| self.server.read(response.into_body(), limit));
            match answer {
                Ok(bytes) => return Ok(bytes),
                Err(fault) => self.wait(&mut retry, fault)?,
            }
        }
    }

    /// The answer to a request for all bytes from `from`. Its status says whether it begins there: 206, or at the
    /// beginning: 200.
    pub(super) fn get(&self, place: &str, from: u64) -> Result<Response<Body>, RegistryFault> {
        let (first, end) = self.send(place, from)?;
        let response = match first.status() {
            // What another server asks for, to which a redirect led, is none of the registry's words.
            StatusCode::UNAUTHORIZED if route::same_server(place, &end) => {
                self.authorize(&first)?;
                self.send(place, from)?.0
            }
            _ => first,
        };
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err(self.refused(response)),
        }
    }

    /// Tries of something, none made yet.
    pub(super) fn retry(&self) -> Retry {
        self.pull.retry
    }

    /// Waits until another try makes sense, or gives the fault back.
    pub(super) fn wait(&self, retry: &mut Retry, fault: RegistryFault) -> Result<(), RegistryFault> {
        let Some(pause) = retry.pause(&fault) else { return Err(fault) };
        (self.pull.tell)(Event::Waiting(pause, fault.to_string()));
        let end = Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.pull.still_wanted()?;
            std::thread::park_timeout(left.min(ATTENTION));
        }
        Ok(())
    }

    /// One request, and those that it is redirected to. The HTTP client follows redirects between encrypted places itself;
    /// from a place without encryption each step is checked here. The answer comes with the place that gave it.
    fn send(&self, place: &str, from: u64) -> Result<(Response<Body>, String), RegistryFault> {
        let mut response = self.request(&self.agent, place, from, self.session().authorization.clone())?;
        if self.route.way == Way::Encrypted {
            let end = response.get_uri().to_string();
            return Ok((response, end));
        }
        let mut current = place.to_owned();
        for _ in 0..MAX_REDIRECTS {
            if !response.status().is_redirection() {
                return Ok((response, current));
            }
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let Some(location) = location else { return Ok((response, current)) };
            let next = route::resolve(&current, location);
            let next = next.ok_or_else(|| self.server.protocol("it redirects to no place"))?;
            let way = self.route.way_to(&next);
            let way =
                way.ok_or_else(|| self.server.protocol("it redirects to another host without encryption"))?;
            let agent = self.agent_for(way)?;
            let authorization = self.session().authorization.clone();
            let authorization = authorization.filter(|_| route::same_server(place, &next));
            response = self.request(&agent, &next, from, authorization)?;
            current = next;
        }
        Err(self.server.protocol("it redirects more than ten times"))
    }

    fn request(
        &self,
        agent: &Agent,
        place: &str,
        from: u64,
        authorization: Option<String>,
    ) -> Result<Response<Body>, RegistryFault> {
        let mut request = agent.get(place);
        for document in DOCUMENTS {
            request = request.header("Accept", document);
        }
        // Layers are stored compressed; a second compression on the way would hide their length.
        request = request.header("Accept-Encoding", "identity");
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        request.call().map_err(|source| self.server.network(source))
    }

    /// What makes requests by this way.
    fn agent_for(&self, way: Way) -> Result<Agent, RegistryFault> {
        if way == self.route.way { Ok(self.agent.clone()) } else { agent(way, false) }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets what the registry wants to see.
    fn authorize(&self, refused: &Response<Body>) -> Result<(), RegistryFault> {
        let headers = refused.headers().get_all("www-authenticate").iter();
        let challenge = headers.filter_map(|value| value.to_str().ok()).find_map(challenge::parse);
        let challenge =
            challenge.ok_or_else(|| self.server.protocol("it refuses without saying what it wants"))?;
        let Found { login, trouble } = (self.pull.login)(self.server.name(), &self.repository)?;
        let authorization = match challenge {
            Challenge::Basic => {
                let header = login.as_ref().and_then(Login::header);
                header.ok_or_else(|| self.server.denied(false))
            }
            Challenge::Bearer { realm, service, scope } => {
                let way = self.route.way_to(&realm);
                let way = way
                    .ok_or_else(|| self.server.protocol("its token server is reached without encryption"))?;
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
                match &login {
                    Some(access @ Login::Access(_)) => {
                        access.header().ok_or_else(|| self.server.denied(false))
                    }
                    login => {
                        let wanted = Wanted { realm, service, scope };
                        token::fetch(&self.server, &self.agent_for(way)?, &wanted, login.as_ref())
                    }
                }
            }
        };
        // The helper's reason explains the refusal better than the refusal does.
        let (authorization, trouble) = match (authorization, trouble) {
            (Err(RegistryFault::Denied { known: false, .. }), Some(trouble)) => return Err(trouble),
            (authorization, trouble) => (authorization?, trouble),
        };
        *self.session() = Session { authorization: Some(authorization), signed_in: login.is_some(), trouble };
        Ok(())
    }

    /// The fault of an answer that is no success.
    fn refused(&self, response: Response<Body>) -> RegistryFault {
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.not_allowed(),
            _ => self.server.refused(response),
        }
    }

    /// The fault of a refusal: the helper's reason where nobody is signed in for want of it.
    fn not_allowed(&self) -> RegistryFault {
        let mut session = self.session();
        let denied = self.server.denied(session.signed_in);
        session.trouble.take().filter(|_| !session.signed_in).unwrap_or(denied)
    }
}

/// Makes requests by one way. This host is not reached by a proxy.
fn agent(way: Way, local: bool) -> Result<Agent, RegistryFault> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("host-sleeve/", env!("CARGO_PKG_VERSION")))
        .redirect_auth_headers(RedirectAuthHeaders::Never)
        .timeout_resolve(Some(PATIENCE))
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE));
    let config = match way {
        Way::Open if local => config.max_redirects(0).proxy(None).build(),
        Way::Open => config.max_redirects(0).build(),
        Way::Encrypted => config.https_only(true).tls_config(trust::config()?).build(),
    };
    Ok(config.new_agent())
}
