//! The attestation server: what anyone may request over HTTPS.
//!
//! Invariant: evidence always binds the key of the connection's certificate and a nonce of the client. A client chooses nothing
//! else, and nothing in a request reaches the security module but the nonce. The resources are in `docs/attestation.md`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use cloister_binding::{NONCE_MAX, NONCE_MIN};
use cloister_http::{Content, converse};
use cloister_net::{Gate, Stream};
use cloister_wire::attestor::MAX_REMOTE_CLIENTS;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request as Http, Response, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use crate::client::{CLIENT_TIME, failed, refusal, refuse};
use crate::exchange::{Request, Values};
use crate::request::unreserved;
use crate::resource::{self, Refusal, requested_with, unknown, wants_document};
use crate::tls::Tls;
use crate::turns::Party;

/// base64url, with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A resource, below a path for such things (RFC 8615). All are requested with `GET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Public {
    /// Evidence that binds a nonce and the key of the connection.
    Evidence,
    /// The event log.
    Log,
    /// The registers of the security module, without proof.
    Measurements,
    /// The certificate that is presented now.
    Certificate,
    /// That the server serves.
    Health,
    /// That the certificate has evidence, so the security module has answered just now.
    Ready,
}

impl Public {
    /// All of them, in the order of the documentation.
    pub(crate) const ALL: [Self; 6] =
        [Self::Evidence, Self::Log, Self::Measurements, Self::Certificate, Self::Health, Self::Ready];

    /// Its path.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Evidence => "/.well-known/cloister/evidence",
            Self::Log => "/.well-known/cloister/eventlog",
            Self::Measurements => "/.well-known/cloister/measurements",
            Self::Certificate => "/.well-known/cloister/certificate",
            Self::Health => "/.well-known/cloister/health",
            Self::Ready => "/.well-known/cloister/ready",
        }
    }
}

/// The server. Its clients come from the terminator.
pub(crate) struct Remote {
    tls: Arc<Tls>,
    gate: Gate,
}

impl Remote {
    pub(crate) fn new(tls: Arc<Tls>) -> Arc<Self> {
        Arc::new(Self { tls, gate: Gate::new(MAX_REMOTE_CLIENTS) })
    }

    /// Serves a client in its own task, if a place is free. The terminator passes on no more than there are places, but those of its
    /// predecessor may still be occupied.
    pub(crate) async fn admit(self: &Arc<Self>, socket: OwnedFd) {
        // A socket that cannot be registered is closed.
        let Ok(stream) = Stream::local(socket) else { return };
        let Some(pass) = self.gate.try_enter() else {
            let why = format!("too many clients: at most {MAX_REMOTE_CLIENTS} are served at once");
            return refuse(&stream, "503 Service Unavailable", &why).await;
        };
        let remote = Arc::clone(self);
        drop(tokio::spawn(async move {
            let answer = |request: Http<Incoming>| {
                let remote = Arc::clone(&remote);
                async move {
                    let response = remote.respond(&request).await;
                    let mut response =
                        response.unwrap_or_else(|(status, why)| refusal(status, &why, &Method::GET));
                    // A cache between client and enclave must not answer in its place.
                    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                    response
                }
            };
            // A client that disconnects early or exceeds the limit has no one to report it to.
            drop(timeout(CLIENT_TIME, converse(stream, answer)).await);
            drop(pass);
        }));
    }

    async fn respond(&self, request: &Http<Incoming>) -> Result<Response<Content>, Refusal> {
        let path = request.uri().path();
        let found = Public::ALL.into_iter().find(|public| public.path() == path);
        let public = found.ok_or_else(|| unknown(&Public::ALL.map(Public::path)))?;
        requested_with(path, request.method(), &Method::GET)?;
        let wanted = match public {
            Public::Evidence => {
                let nonce = nonce(request.uri().query().unwrap_or_default())?;
                let public_key = self.tls.public_key().map_err(|error| error.refusal())?;
                Request::Evidence(Values { nonce, public_key, user_data: Vec::new() })
            }
            Public::Log => Request::Log,
            Public::Measurements => Request::Registers,
            Public::Certificate => {
                let (der, _) = self.tls.certificate().await.map_err(|error| error.refusal())?;
                return Ok(typed(resource::PEM, Content::from(pem(&der))));
            }
            Public::Health => return Ok(status("serving")),
            Public::Ready => {
                self.tls.ready().await?;
                return Ok(status("ready"));
            }
        };
        let reply = self.tls.module().request(Party::Remote, wanted).await.map_err(|error| failed(&error))?;
        let raw = wants_document(request.headers());
        let (kind, content) = resource::response(reply, self.tls.module().platform(), raw);
        Ok(typed(kind, content))
    }
}

/// A response of the form `{"status": "word"}`.
fn status(word: &str) -> Response<Content> {
    typed(resource::JSON, Content::from(json!({ "status": word }).to_string()))
}

fn typed(kind: HeaderValue, content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The nonce of a query `nonce=`, in base64url (RFC 4648, section 5).
fn nonce(query: &str) -> Result<Vec<u8>, Refusal> {
    let refuse = |why: String| (StatusCode::BAD_REQUEST, why);
    let text = query.split('&').find_map(|part| part.strip_prefix("nonce="));
    let text = text.ok_or_else(|| {
        refuse(
            "the query has no nonce: draw one, and request evidence?nonce= with it in base64url".to_owned(),
        )
    })?;
    // Libraries encode the padding in a query.
    let text = text.replace("%3D", "=").replace("%3d", "=");
    let bytes =
        BASE64.decode(text).map_err(|error| refuse(format!("the nonce is not valid base64url: {error}")))?;
    // It is also a field of the document itself.
    unreserved("nonce", &bytes).map_err(refuse)?;
    if !(NONCE_MIN..=NONCE_MAX).contains(&bytes.len()) {
        let length = bytes.len();
        return Err(refuse(format!(
            "the nonce has {length} bytes, the limits are {NONCE_MIN} and {NONCE_MAX}"
        )));
    }
    Ok(bytes)
}

/// A certificate in PEM, from its DER in base64 (RFC 7468: lines of 64 characters).
fn pem(base64: &str) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in base64.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests;
