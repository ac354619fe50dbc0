//! The resources of the local interface: what each needs, and what its response looks like.
//!
//! Invariant: a resource has one method, one operation of the manifest and one content type. The formats are in
//! `docs/attestation.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_binding::eventlog::Log;
use cloister_wire::attestor::Operation;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::exchange::Request;
use crate::request;

/// A problem with a request: the status of the response, and its text.
pub(crate) type Refusal = (StatusCode, String);

/// The content type of a document (RFC 8949).
const CBOR: HeaderValue = HeaderValue::from_static("application/cbor");

/// The content type of random bytes.
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The content type of evidence, and of errors.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A resource of the local interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// `POST /v1/evidence`: a document that binds a nonce, a key, the event log and user data, and what a verifier
    /// needs with it.
    Evidence,
    /// `POST /v1/attestation`: a document with fields that the caller chooses.
    Attestation,
    /// `GET /v1/random`: random bytes of the security module.
    Random,
}

impl Resource {
    /// The resource of a request.
    ///
    /// # Errors
    /// An unknown path, or another method than the resource's.
    pub(crate) fn of(method: &Method, path: &str) -> Result<Self, Refusal> {
        let (resource, expected) = match path {
            "/v1/evidence" => (Self::Evidence, Method::POST),
            "/v1/attestation" => (Self::Attestation, Method::POST),
            "/v1/random" => (Self::Random, Method::GET),
            _ => {
                let why = "the resources are /v1/evidence, /v1/attestation and /v1/random";
                return Err((StatusCode::NOT_FOUND, why.to_owned()));
            }
        };
        if *method == expected {
            Ok(resource)
        } else {
            Err((StatusCode::METHOD_NOT_ALLOWED, format!("{path} is requested with {expected}")))
        }
    }

    /// What the manifest must allow.
    pub(crate) const fn operation(self) -> Operation {
        match self {
            Self::Evidence | Self::Attestation => Operation::Evidence,
            Self::Random => Operation::Random,
        }
    }

    /// Maximum length of the request's body in bytes.
    pub(crate) const fn max_body(self) -> usize {
        match self {
            Self::Evidence => request::MAX_EVIDENCE_BODY,
            Self::Attestation => request::MAX_DOCUMENT_BODY,
            Self::Random => 0,
        }
    }

    /// The request to the security module.
    ///
    /// # Errors
    /// If the body is not valid.
    pub(crate) fn request(self, body: &[u8]) -> Result<Request, Refusal> {
        let request = match self {
            Self::Evidence => request::evidence(body, &log()),
            Self::Attestation => request::document(body),
            Self::Random => Ok(Request::Random),
        };
        request.map_err(|why| (StatusCode::BAD_REQUEST, why))
    }

    /// The content type and the body of the response, from what the security module of this platform returned.
    pub(crate) fn response(self, bytes: Vec<u8>, platform: &str) -> (HeaderValue, Vec<u8>) {
        match self {
            Self::Evidence => {
                let (document, events) = (STANDARD.encode(bytes), STANDARD.encode(log().encode()));
                let evidence = json!({ "platform": platform, "document": document, "events": events });
                (JSON, evidence.to_string().into_bytes())
            }
            Self::Attestation => (CBOR, bytes),
            Self::Random => (BYTES, bytes),
        }
    }
}

/// The event log. One event is extended, the end of the boot: by init, on the platform `virtual` by
/// [`Sleeve`](crate::sleeve::Sleeve). Nothing extends another yet.
fn log() -> Log {
    Log::booted()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_one_method_each() {
        assert_eq!(Resource::of(&Method::POST, "/v1/evidence"), Ok(Resource::Evidence));
        assert_eq!(Resource::of(&Method::POST, "/v1/attestation"), Ok(Resource::Attestation));
        assert_eq!(Resource::of(&Method::GET, "/v1/random"), Ok(Resource::Random));
        let (status, text) = Resource::of(&Method::GET, "/v1/attestation").unwrap_err();
        assert_eq!(
            (status, text.as_str()),
            (StatusCode::METHOD_NOT_ALLOWED, "/v1/attestation is requested with POST")
        );
        assert_eq!(Resource::of(&Method::GET, "/").unwrap_err().0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn evidence_contains_the_document_and_the_event_log() {
        let (kind, body) = Resource::Evidence.response(b"document".to_vec(), "nitro");
        assert_eq!(kind, "application/json");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["platform"], "nitro");
        assert_eq!(body["document"], STANDARD.encode("document"));
        let events = STANDARD.decode(body["events"].as_str().unwrap()).unwrap();
        assert_eq!(Log::parse(&events), Ok(Log::booted()));
    }
}
