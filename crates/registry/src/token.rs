//! Access tokens: what a registry's challenge asks for, from the place it names.
//!
//! Its law: a password or refresh token goes to the registry's token server alone, and only by an allowed way. Source:
//! Docker's token protocol (distribution, `docs/spec/auth/token` and `docs/spec/auth/oauth`).

use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::answer::{MAX_ANSWER, Server};
use super::credentials::Login;
use super::fault::RegistryFault;

/// How we name ourselves to a token server; it wants a name, and does nothing else with it.
const CLIENT_ID: &str = "host-sleeve";

/// What a challenge asks for.
pub(super) struct Wanted {
    /// Where tokens are given.
    pub(super) realm: String,
    /// For whom.
    pub(super) service: Option<String>,
    /// For what.
    pub(super) scope: String,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The value of an `Authorization` header.
pub(super) fn fetch(
    server: &Server,
    agent: &Agent,
    wanted: &Wanted,
    login: Option<&Login>,
) -> Result<String, RegistryFault> {
    let response = match login {
        Some(Login::Identity(token)) => exchange(agent, wanted, token),
        login => ask(agent, wanted, login.and_then(Login::header)),
    };
    let response = response.map_err(|source| server.network(source))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(server.denied(login.is_some())),
        _ => return Err(server.refused(response)),
    }
    let bytes = server.read(response.into_body(), MAX_ANSWER)?;
    let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
    let token = answer.and_then(|answer| answer.token.or(answer.access_token));
    token.map(|token| format!("Bearer {token}")).ok_or_else(|| server.protocol("its answer holds no token"))
}

/// A token for whoever the header names, or for anybody.
fn ask(agent: &Agent, wanted: &Wanted, header: Option<String>) -> Result<Response<Body>, ureq::Error> {
    let mut request = agent.get(&wanted.realm).query("scope", &wanted.scope);
    if let Some(service) = &wanted.service {
        request = request.query("service", service);
    }
    if let Some(header) = header {
        request = request.header("Authorization", header);
    }
    request.call()
}

/// A token for a refresh token (RFC 6749, section 6), as Azure's and Docker's token servers have it.
fn exchange(agent: &Agent, wanted: &Wanted, token: &str) -> Result<Response<Body>, ureq::Error> {
    let service = wanted.service.as_deref().unwrap_or_default();
    let form = [
        ("grant_type", "refresh_token"),
        ("service", service),
        ("client_id", CLIENT_ID),
        ("scope", &wanted.scope),
        ("refresh_token", token),
    ];
    agent.post(&wanted.realm).send_form(form)
}
