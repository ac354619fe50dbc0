//! One connection of a program inside: a request, and its response.
//!
//! Invariant: an operation that the supervisor did not allow is refused before the body is read. A client that is slow
//! or idle is disconnected after [`CLIENT_TIME`].

use std::time::Duration;

use cloister_http::{BodyError, Content, body, converse};
use cloister_net::Stream;
use cloister_net::identity::Identity;
use cloister_sys::tsm::TsmError;
use cloister_wire::attestor::Operation;
use cloister_wire::causes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use crate::events::Unrecorded;
use crate::exchange::{ModuleError, ReportError};
use crate::module::Module;
use crate::resource::{JSON, Refusal, Resource, response, wants_document};
use crate::turns::Party;

/// Time limit for a connection of a program inside or of a client outside: sending the request, the security module, and reading the response.
pub(crate) const CLIENT_TIME: Duration = Duration::from_secs(20);

/// What remains of the request of a client that is refused is read for so long, and so many bytes of it: the longest
/// request with its head.
const DISCARD_TIME: Duration = Duration::from_secs(1);
const MAX_DISCARDED: usize = 16 * 1024;

/// Why a process is refused that is in no service.
const NO_SERVICE: &str =
    "this process is not part of a service, and only services may use the security module";

/// A client, as the supervisor describes it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Its service.
    pub(crate) service: Identity,
    /// What it may request.
    pub(crate) allowed: Vec<Operation>,
}

/// Serves one client.
pub(crate) async fn serve(stream: Stream, client: Client, module: Module) {
    let answer = |request: Request<Incoming>| {
        let (client, module) = (client.clone(), module.clone());
        async move {
            let allowed = Resource::at(request.uri().path()).map_or(Method::GET, Resource::method);
            let response = respond(request, &client, &module).await;
            response.unwrap_or_else(|(status, why)| refusal(status, &why, &allowed))
        }
    };
    // A client that disconnects early or exceeds the limit has no one to report it to.
    drop(timeout(CLIENT_TIME, converse(stream, answer)).await);
}

/// Refuses a client whose service has too many connections, without reading its request.
pub(crate) async fn refuse_excess(stream: Stream, limit: usize) {
    let why = format!("too many connections of this service: at most {limit} are served at once");
    refuse(&stream, "503 Service Unavailable", &why).await;
}

/// Refuses a client that the manifest allows nothing. Its request is discarded, not interpreted.
pub(crate) async fn refuse_unlisted(stream: Stream, identity: &Identity) {
    refuse(&stream, "403 Forbidden", &nothing_allowed(identity)).await;
    // If unread bytes were left, the client would get an error in place of the end.
    drop(stream.end_sending());
    drop(timeout(DISCARD_TIME, discard(&stream)).await);
}

pub(crate) async fn refuse(stream: &Stream, status: &str, why: &str) {
    let body = json!({ "error": why }).to_string();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // The buffer of a new connection is empty and takes all of it at once, or the client has disconnected.
    drop(timeout(Duration::ZERO, stream.send_all(response.as_bytes())).await);
}

/// Reads at most [`MAX_DISCARDED`] bytes, until the client disconnects.
async fn discard(stream: &Stream) {
    let (mut piece, mut left) = ([0; 512], MAX_DISCARDED);
    while left > 0
        && let Ok(count @ 1..) = stream.recv(&mut piece).await
    {
        left = left.saturating_sub(count);
    }
}

fn nothing_allowed(identity: &Identity) -> String {
    identity.service().map_or_else(
        || NO_SERVICE.to_owned(),
        |name| {
            format!(
                "the manifest allows service {name} nothing here; list what it needs (evidence, random, extend, lock) in \
                 attestation.services.{name}"
            )
        },
    )
}

async fn respond(
    request: Request<Incoming>,
    client: &Client,
    module: &Module,
) -> Result<Response<Content>, Refusal> {
    let resource = Resource::of(request.method(), request.uri().path())?;
    if !client.allowed.contains(&resource.operation()) {
        return Err((StatusCode::FORBIDDEN, forbidden(client, resource.operation())));
    }
    let (limit, raw) = (resource.max_body(), wants_document(request.headers()));
    let bytes = body(request.into_body(), limit).await.map_err(|error| match error {
        BodyError::TooLong => {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than the limit of {limit} bytes"))
        }
        BodyError::Broken => (StatusCode::BAD_REQUEST, "the body is incomplete".to_owned()),
    })?;
    let service = client.service.service().unwrap_or_default();
    let (request, party) = (resource.request(&bytes, service)?, Party::Service(service.to_owned()));
    let reply = module.request(party, request).await.map_err(|error| failed(&error))?;
    let (kind, content) = response(reply, module.platform(), raw);
    let mut response = Response::new(content);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// Why an operation is refused, with what the manifest would need.
fn forbidden(client: &Client, operation: Operation) -> String {
    let word = match operation {
        Operation::Evidence => "evidence",
        Operation::Random => "random",
        Operation::Extend => "extend",
        Operation::Lock => "lock",
    };
    client.service.service().map_or_else(
        || NO_SERVICE.to_owned(),
        |name| {
            let add = format!("add `{word}` to attestation.services.{name}");
            format!("the manifest does not allow this to service {name}; {add}")
        },
    )
}

/// The status and the text of a failed request.
pub(crate) fn failed(error: &ModuleError) -> Refusal {
    let status = match error {
        ModuleError::Values(_) | ModuleError::Unrecorded(Unrecorded::Event(_)) => StatusCode::BAD_REQUEST,
        ModuleError::Unrecorded(Unrecorded::Locked(_)) => StatusCode::CONFLICT,
        ModuleError::Unrecorded(Unrecorded::Full(..) | Unrecorded::Memory(_)) => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        ModuleError::Unavailable(_)
        | ModuleError::Busy(_)
        | ModuleError::Report(ReportError::Tsm(TsmError::Busy | TsmError::WouldBlock)) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ModuleError::TimedOut(_) | ModuleError::Report(ReportError::Tsm(TsmError::TimedOut)) => {
            StatusCode::GATEWAY_TIMEOUT
        }
        ModuleError::Nsm(_) | ModuleError::Report(_) => StatusCode::BAD_GATEWAY,
        ModuleError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
    };
    (status, causes::line(error))
}

/// A response of the form `{"error": "why"}`. The method is the one that the resource is requested with.
pub(crate) fn refusal(status: StatusCode, why: &str, method: &Method) -> Response<Content> {
    let mut response = Response::new(Content::from(json!({ "error": why }).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if status == StatusCode::METHOD_NOT_ALLOWED
        && let Ok(allowed) = HeaderValue::from_str(method.as_str())
    {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}
