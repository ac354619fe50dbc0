//! The resources of the local interface, and what the responses of both interfaces look like.
//!
//! Invariant: a resource has one method and one operation of the manifest. The formats are in
//! `docs/attestation.md`.

use std::iter;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_http::Content;
use cloister_nsm::Pcr;
use cloister_sys::platform::Platform;
use cloister_wire::attestor::Operation;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::events::Snapshot;
use crate::exchange::{Evidence, Reply, Request};
use crate::request;

/// A problem with a request: the status of the response, and its text.
pub(crate) type Refusal = (StatusCode, String);

/// The content type of a document (RFC 8949).
const CBOR: HeaderValue = HeaderValue::from_static("application/cbor");

/// The content type of random bytes.
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The content type of a certificate (RFC 8555, section 9.1).
pub(crate) const PEM: HeaderValue = HeaderValue::from_static("application/pem-certificate-chain");

/// Bytes of the event log that are encoded at once: 4 KiB of base64.
const PIECE: usize = 3072;

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
    /// `GET /v1/eventlog`: the event log.
    Log,
    /// `POST /v1/extend`: record an event.
    Extend,
    /// `POST /v1/lock`: record nothing more.
    Lock,
    /// `GET /v1/measurements`: the registers of the security module, without proof.
    Measurements,
}

impl Resource {
    /// All of them, in the order of the documentation.
    pub(crate) const ALL: [Self; 7] = [
        Self::Evidence,
        Self::Attestation,
        Self::Random,
        Self::Log,
        Self::Measurements,
        Self::Extend,
        Self::Lock,
    ];

    /// Its path.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Evidence => "/v1/evidence",
            Self::Attestation => "/v1/attestation",
            Self::Random => "/v1/random",
            Self::Log => "/v1/eventlog",
            Self::Measurements => "/v1/measurements",
            Self::Extend => "/v1/extend",
            Self::Lock => "/v1/lock",
        }
    }

    /// The method that it is requested with.
    pub(crate) const fn method(self) -> Method {
        match self {
            Self::Evidence | Self::Attestation | Self::Extend | Self::Lock => Method::POST,
            Self::Random | Self::Log | Self::Measurements => Method::GET,
        }
    }

    /// The resource at this path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.path() == path)
    }

    /// The resource of a request.
    ///
    /// # Errors
    /// An unknown path, or another method than the resource's.
    pub(crate) fn of(method: &Method, path: &str) -> Result<Self, Refusal> {
        let resource = Self::at(path).ok_or_else(|| unknown(&Self::ALL.map(Self::path)))?;
        requested_with(path, method, &resource.method())?;
        Ok(resource)
    }

    /// What the manifest must allow.
    pub(crate) const fn operation(self) -> Operation {
        match self {
            Self::Evidence | Self::Attestation | Self::Log | Self::Measurements => Operation::Evidence,
            Self::Random => Operation::Random,
            Self::Extend => Operation::Extend,
            Self::Lock => Operation::Lock,
        }
    }

    /// Maximum length of the request's body in bytes.
    pub(crate) const fn max_body(self) -> usize {
        match self {
            Self::Evidence => request::MAX_EVIDENCE_BODY,
            Self::Attestation => request::MAX_DOCUMENT_BODY,
            Self::Extend => request::MAX_EVENT_BODY,
            Self::Random | Self::Log | Self::Measurements | Self::Lock => 0,
        }
    }

    /// The request to the security module.
    ///
    /// # Errors
    /// If the body is not valid.
    pub(crate) fn request(self, body: &[u8], service: &str) -> Result<Request, Refusal> {
        let request = match self {
            Self::Evidence => request::evidence(body),
            Self::Attestation => request::document(body),
            Self::Random => Ok(Request::Random),
            Self::Log => Ok(Request::Log),
            Self::Measurements => Ok(Request::Registers),
            Self::Extend => request::event(body, service),
            Self::Lock => Ok(Request::Lock { service: service.to_owned() }),
        };
        request.map_err(|why| (StatusCode::BAD_REQUEST, why))
    }
}

/// The refusal of a path that is none of these.
pub(crate) fn unknown(paths: &[&str]) -> Refusal {
    (StatusCode::NOT_FOUND, format!("the resources are {}", paths.join(", ")))
}

/// Refuses another method than the one that a resource is requested with.
pub(crate) fn requested_with(path: &str, method: &Method, expected: &Method) -> Result<(), Refusal> {
    if method == expected {
        Ok(())
    } else {
        Err((StatusCode::METHOD_NOT_ALLOWED, format!("{path} is requested with {expected}")))
    }
}

/// Whether a client requests the document alone: it accepts that (`application/cbor`, or `application/cose`, the type of RFC 9052) and
/// does not mention JSON.
pub(crate) fn wants_document(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds: Vec<_> = values
        .flat_map(|value| value.split(','))
        .map(|accepted| accepted.split(';').next().unwrap_or_default().trim())
        .collect();
    kinds.iter().any(|kind| ["application/cbor", "application/cose"].contains(kind))
        && !kinds.contains(&"application/json")
}

/// The content type and the body of the response, from what a request to the module of this platform resulted in.
///
/// `raw`: evidence is the document alone, without what a verifier needs with it.
pub(crate) fn response(reply: Reply, platform: &str, raw: bool) -> (HeaderValue, Content) {
    match reply {
        Reply::Evidence(evidence) if raw => (document_type(platform), Content::from(evidence.document)),
        Reply::Evidence(Evidence { document, certificates, events }) => {
            let certificates = match certificates.as_slice() {
                [] => String::new(),
                table => format!(r#""certificates":"{}","#, STANDARD.encode(table)),
            };
            let before = format!(r#"{{{certificates}"document":"{}","events":""#, STANDARD.encode(document));
            let after = format!(r#"","platform":"{platform}"}}"#);
            (JSON, surrounded(before, events, after))
        }
        Reply::Document(bytes) => (CBOR, Content::from(bytes)),
        Reply::Random(bytes) => (BYTES, Content::from(bytes)),
        Reply::Log(log) => {
            let length = u64::try_from(log.len()).unwrap_or(u64::MAX);
            (BYTES, Content::pieces(length, pieces(log)))
        }
        Reply::Registers(registers) => (JSON, Content::from(measurements(&registers, platform).to_string())),
        Reply::Recorded { position, head } => {
            let recorded = json!({ "position": position, "head": STANDARD.encode(head) });
            (JSON, Content::from(recorded.to_string()))
        }
    }
}

/// Registers as a build's `measurements.json` has them: `pcr0` and so on, in hexadecimal digits.
fn measurements(registers: &[(u16, Pcr)], platform: &str) -> Value {
    let digits = |text: String, byte: &u8| text + &format!("{byte:02x}");
    let values: Map<String, Value> = registers
        .iter()
        .map(|(index, pcr)| (format!("pcr{index}"), pcr.value.iter().fold(String::new(), digits).into()))
        .collect();
    let locked: Vec<_> = registers.iter().filter(|(_, pcr)| pcr.locked).map(|(index, _)| index).collect();
    json!({ "platform": platform, "registers": values, "locked": locked })
}

/// The content type of what a platform signs: documents of security modules are CBOR, reports have no type of their own.
fn document_type(platform: &str) -> HeaderValue {
    if [Platform::Tdx, Platform::Snp].iter().any(|one| one.name() == platform) { BYTES } else { CBOR }
}

/// A log in base64, between two texts. It is encoded while it is sent: however many clients read slowly, it is in memory once.
fn surrounded(before: String, log: Snapshot, after: String) -> Content {
    let encoded = log.len().div_ceil(3).saturating_mul(4);
    let length = before.len().saturating_add(encoded).saturating_add(after.len());
    let encoded = pieces(log).map(|piece| STANDARD.encode(piece).into_bytes());
    let all = iter::once(before.into_bytes()).chain(encoded).chain(iter::once(after.into_bytes()));
    Content::pieces(u64::try_from(length).unwrap_or(u64::MAX), all)
}

/// A log in pieces whose lengths are multiples of three, the last one excepted: their base64 is that of the whole.
fn pieces(log: Snapshot) -> impl Iterator<Item = Vec<u8>> + Send + 'static {
    (0..log.len()).step_by(PIECE).map(move |position| log.piece(position, PIECE))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use cloister_binding::eventlog::Log;
    use hyper::body::Body as _;

    use super::*;
    use crate::events::Events;

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
    fn the_document_alone_is_sent_only_to_those_who_accept_it() {
        let wants = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            wants_document(&headers)
        };
        for accept in ["application/cbor", "text/html, application/cose; q=0.5", "application/cbor;v=1"] {
            assert!(wants(accept), "{accept}");
        }
        for accept in [
            "*/*",
            "application/json",
            "application/json, application/cbor;q=0.1",
            "application/cbor-seq",
            "",
        ] {
            assert!(!wants(accept), "{accept}");
        }
        assert!(!wants_document(&HeaderMap::new()));
    }

    #[test]
    fn measurements_have_the_names_of_the_prediction() {
        let registers = vec![
            (0, Pcr { locked: true, value: vec![0xab; 48] }),
            (17, Pcr { locked: false, value: vec![0; 48] }),
        ];
        let (_, content) = response(Reply::Registers(registers), "virtual", false);
        let body: Value = serde_json::from_slice(&whole(content)).unwrap();
        assert_eq!(body["registers"]["pcr0"], "ab".repeat(48));
        assert_eq!((&body["locked"], &body["platform"]), (&json!([0]), &json!("virtual")));
    }

    /// All of a response, as a client reads it.
    pub(crate) fn whole(mut content: Content) -> Vec<u8> {
        let length = content.size_hint().exact().unwrap();
        let mut bytes = Vec::new();
        let mut waiting = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut content).poll_frame(&mut waiting) {
            bytes.extend(frame.into_data().unwrap());
        }
        assert_eq!(u64::try_from(bytes.len()), Ok(length));
        assert!(content.is_end_stream());
        bytes
    }

    #[test]
    fn evidence_contains_the_document_and_the_event_log() {
        let mut events = Events::open(tempfile::tempfile().unwrap().into(), 1).unwrap();
        for length in 0..100 {
            events.record("web", "x", &vec![1; length]).unwrap();
        }
        let evidence = |certificates: &[u8]| {
            Reply::Evidence(Evidence {
                document: b"document".to_vec(),
                certificates: certificates.to_vec(),
                events: events.snapshot(),
            })
        };
        let (kind, content) = response(evidence(&[]), "nitro", false);
        assert_eq!(kind, "application/json");
        let body: Value = serde_json::from_slice(&whole(content)).unwrap();
        assert_eq!((body["platform"].as_str(), body.get("certificates")), (Some("nitro"), None));
        assert_eq!(body["document"], STANDARD.encode("document"));
        let log = STANDARD.decode(body["events"].as_str().unwrap()).unwrap();
        assert_eq!(Log::parse(&log).unwrap().digests(), events.digests());
        assert_eq!(whole(response(Reply::Log(events.snapshot()), "nitro", false).1), log);
        let body: serde_json::Value =
            serde_json::from_slice(&whole(response(evidence(b"table"), "snp", false).1)).unwrap();
        assert_eq!(body["certificates"], STANDARD.encode("table"));
        assert_eq!(body["document"], STANDARD.encode("document"));
        for (platform, kind) in [("nitro", CBOR), ("virtual", CBOR), ("snp", BYTES), ("tdx", BYTES)] {
            let (found, content) = response(evidence(b"table"), platform, true);
            assert_eq!((found, whole(content)), (kind, b"document".to_vec()), "{platform}");
        }
    }
}
