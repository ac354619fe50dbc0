//! Access tokens, as required by a registry's challenge, from its token server.
//!
//! Invariant: a password or refresh token is sent only to the registry's token server, and only over an allowed connection.
//! Source: Docker's token protocol (distribution, `docs/spec/auth/token` and `docs/spec/auth/oauth`).

use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::credentials::Login;
use super::error::RegistryError;
use super::response::{MAX_RESPONSE, Server};

/// The client's name for a token server; the protocol requires one but does not use it.
const CLIENT_ID: &str = "host-sleeve";

/// What a challenge requires.
pub(super) struct TokenRequest {
    /// The URL of the token server.
    pub(super) realm: String,
    /// The service that the token is for.
    pub(super) service: Option<String>,
    /// The scope of the token.
    pub(super) scope: String,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Fetches a token. Returns the value for an `Authorization` header.
pub(super) fn fetch(
    server: &Server,
    agent: &Agent,
    target: &TokenRequest,
    login: Option<&Login>,
) -> Result<String, RegistryError> {
    let response = match login {
        Some(Login::Identity(token)) => exchange(agent, target, token),
        login => request_token(agent, target, login.and_then(Login::header)),
    };
    let response = response.map_err(|source| server.network(source))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(server.denied(login.is_some())),
        _ => return Err(server.refused(response)),
    }
    let bytes = server.read(response.into_body(), MAX_RESPONSE)?;
    let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
    let token = answer.and_then(|answer| answer.token.or(answer.access_token));
    token
        .map(|token| format!("Bearer {token}"))
        .ok_or_else(|| server.protocol("its token server sent no token"))
}

/// Requests a token for the user in the header, or an anonymous one.
fn request_token(
    agent: &Agent,
    target: &TokenRequest,
    header: Option<String>,
) -> Result<Response<Body>, ureq::Error> {
    let mut request = agent.get(&target.realm).query("scope", &target.scope);
    if let Some(service) = &target.service {
        request = request.query("service", service);
    }
    if let Some(header) = header {
        request = request.header("Authorization", header);
    }
    request.call()
}

/// Exchanges a refresh token for an access token (RFC 6749, section 6), as supported by Azure's and Docker's token servers.
fn exchange(agent: &Agent, target: &TokenRequest, token: &str) -> Result<Response<Body>, ureq::Error> {
    let service = target.service.as_deref().unwrap_or_default();
    let form = [
        ("grant_type", "refresh_token"),
        ("service", service),
        ("client_id", CLIENT_ID),
        ("scope", &target.scope),
        ("refresh_token", token),
    ];
    agent.post(&target.realm).send_form(form)
}
