//! Bodies of requests: JSON with bytes in base64 and keys in PEM.
//!
//! Invariant: everything is bounded before it is used, and an unknown field is refused. Fields that a program chooses
//! never begin as a binding does, so that no verifier takes them for one. The formats are in `docs/attestation.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_binding::eventlog::DATA_LIMIT;
use cloister_binding::{KEY_LIMIT, NONCE_MAX, is_reserved};
use cloister_nsm::DATA_LIMIT as FIELD_LIMIT;
use serde::Deserialize;

use crate::exchange::{Fields, Request, Values};

/// Maximum length in bytes of the body of a request for a document: 2,900 bytes are all fields at their limits, in
/// base64 and PEM, and the rest is for JSON around them.
pub(crate) const MAX_DOCUMENT_BODY: usize = 4096;

/// Maximum length in bytes of the body of a request for evidence: 7,000 bytes are all fields at their limits.
pub(crate) const MAX_EVIDENCE_BODY: usize = 8192;

/// Maximum length in bytes of the body of a request to record an event: 1,500 bytes are the fields at their limits.
pub(crate) const MAX_EVENT_BODY: usize = 2048;

/// Maximum user data that evidence binds, in bytes. Larger data is bound by its digest, which the caller computes:
/// memory for the requests of all clients stays below a megabyte.
pub(crate) const MAX_BOUND_DATA: usize = 4096;

/// The body of a request for a document, as Enclaver's clients send it, and of a request for evidence.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    nonce: Option<String>,
    public_key: Option<String>,
    user_data: Option<String>,
}

/// The body of a request to record an event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    label: String,
    data: Option<String>,
}

/// A document with the fields that the caller chooses.
pub(crate) fn document(body: &[u8]) -> Result<Request, String> {
    let fields = fields(body)?;
    let user_data = bytes("user_data", fields.user_data, FIELD_LIMIT)?;
    let nonce = bytes("nonce", fields.nonce, FIELD_LIMIT)?;
    let public_key = fields.public_key.map(|text| public_key(&text)).transpose()?;
    for (name, value) in [("user_data", &user_data), ("nonce", &nonce), ("public_key", &public_key)] {
        unreserved(name, value.as_deref().unwrap_or_default())?;
    }
    Ok(Request::Attest(Fields { user_data, nonce, public_key }))
}

/// A document whose user data binds nonce, key, event log and the caller's data.
pub(crate) fn evidence(body: &[u8]) -> Result<Request, String> {
    let fields = fields(body)?;
    let user_data = bytes("user_data", fields.user_data, MAX_BOUND_DATA)?.unwrap_or_default();
    let nonce = bytes("nonce", fields.nonce, NONCE_MAX)?;
    let nonce = nonce.ok_or("nonce is missing: the party that requests the evidence must have drawn it")?;
    let public_key = fields.public_key.map(|text| public_key(&text)).transpose()?.unwrap_or_default();
    // These two are also fields of the document themselves.
    unreserved("nonce", &nonce)?;
    unreserved("public_key", &public_key)?;
    let values = Values { nonce, public_key, user_data };
    // Any head will do: what the log is when the module's turn comes is decided there.
    values.fields(&[0; 48]).map_err(|error| error.to_string())?;
    Ok(Request::Evidence(values))
}

/// An event of this service. Its label is checked when it is recorded.
pub(crate) fn event(body: &[u8], service: &str) -> Result<Request, String> {
    let Event { label, data } = serde_json::from_slice(body).map_err(|error| invalid(&error))?;
    let data = bytes("data", data, DATA_LIMIT)?.unwrap_or_default();
    Ok(Request::Extend { service: service.to_owned(), label, data })
}

/// Refuses a field of a document that begins as a binding.
pub(crate) fn unreserved(name: &str, value: &[u8]) -> Result<(), String> {
    if is_reserved(value) {
        return Err(format!("{name} begins with the bytes that are reserved for bindings"));
    }
    Ok(())
}

fn fields(body: &[u8]) -> Result<Document, String> {
    if body.is_empty() {
        return Ok(Document::default());
    }
    serde_json::from_slice(body).map_err(|error| invalid(&error))
}

fn invalid(error: &serde_json::Error) -> String {
    format!("the body is not a valid request: {error}")
}

fn bytes(name: &str, text: Option<String>, limit: usize) -> Result<Option<Vec<u8>>, String> {
    let Some(text) = text else { return Ok(None) };
    let bytes = STANDARD.decode(text).map_err(|error| format!("{name} is not valid base64: {error}"))?;
    within(name, bytes, limit).map(Some)
}

fn within(name: &str, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, String> {
    let length = bytes.len();
    if length > limit { Err(format!("{name} has {length} bytes, the limit is {limit}")) } else { Ok(bytes) }
}

/// The DER of a `SubjectPublicKeyInfo` in PEM (RFC 7468).
fn public_key(pem: &str) -> Result<Vec<u8>, String> {
    const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
    const END: &str = "-----END PUBLIC KEY-----";
    let inside = pem.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let text: String = inside
        .ok_or_else(|| format!("public_key is not PEM: expected {BEGIN}"))?
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .collect();
    let der = STANDARD.decode(text).map_err(|error| format!("public_key is not valid PEM: {error}"))?;
    within("public_key", der, KEY_LIMIT)
}

#[cfg(test)]
mod tests {
    use cloister_binding::eventlog::{LABEL_LIMIT, Log};
    use cloister_binding::{Bound, MAGIC};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NONCE: &[u8] = b"0123456789abcdef";

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    fn refused(body: &str) -> String {
        document(body.as_bytes()).unwrap_err()
    }

    fn bind(body: &serde_json::Value) -> Result<Request, String> {
        evidence(body.to_string().as_bytes())
    }

    #[test]
    fn fields_are_decoded_from_base64_and_pem() {
        let pem = r"-----BEGIN PUBLIC KEY-----\nAQID\nBA==\n-----END PUBLIC KEY-----\n";
        let body = format!(r#"{{"nonce":"BQY=","user_data":"Bw==","public_key":"{pem}"}}"#);
        let expected = Request::Attest(Fields {
            user_data: Some(vec![7]),
            nonce: Some(vec![5, 6]),
            public_key: Some(vec![1, 2, 3, 4]),
        });
        assert_eq!(document(body.as_bytes()).unwrap(), expected);
        let none = Request::Attest(Fields::default());
        assert_eq!(document(b"").unwrap(), none);
        assert_eq!(document(b"{}").unwrap(), none);
    }

    #[test]
    fn a_field_over_its_limit_is_refused() {
        let long = STANDARD.encode([0; FIELD_LIMIT + 1]);
        assert_eq!(refused(&format!(r#"{{"nonce":"{long}"}}"#)), "nonce has 513 bytes, the limit is 512");
        let longest = STANDARD.encode([0; FIELD_LIMIT]);
        assert!(document(format!(r#"{{"nonce":"{longest}"}}"#).as_bytes()).is_ok());
    }

    #[test]
    fn malformed_bodies_are_refused_with_the_reason() {
        assert!(refused("[").starts_with("the body is not a valid request"));
        assert!(refused(r#"{"nonse":"AA=="}"#).contains("unknown field `nonse`"));
        assert!(refused(r#"{"nonce":"!"}"#).starts_with("nonce is not valid base64"));
        assert!(refused(r#"{"public_key":"AA=="}"#).starts_with("public_key is not PEM"));
    }

    #[test]
    fn chosen_fields_that_begin_as_a_binding_are_refused() {
        let reserved = [&MAGIC[..], b" and more"].concat();
        for (name, value) in [
            ("user_data", STANDARD.encode(&reserved)),
            ("nonce", STANDARD.encode(MAGIC)),
            ("public_key", pem(&reserved)),
        ] {
            let why = document(json!({ name: value }).to_string().as_bytes()).unwrap_err();
            assert!(why.starts_with(&format!("{name} begins with the bytes that are reserved")), "{why}");
        }
        let nonce = STANDARD.encode(&reserved);
        assert!(bind(&json!({ "nonce": nonce })).unwrap_err().starts_with("nonce begins"));
        let key = json!({ "nonce": STANDARD.encode(NONCE), "public_key": pem(&reserved) });
        assert!(bind(&key).unwrap_err().starts_with("public_key begins"));
        let shorter = STANDARD.encode(&MAGIC[..15]);
        assert!(document(json!({ "user_data": shorter }).to_string().as_bytes()).is_ok());
    }

    #[test]
    fn evidence_binds_every_field_and_the_event_log() {
        let (nonce, user_data) = (STANDARD.encode(NONCE), STANDARD.encode("data"));
        let body = json!({ "nonce": nonce, "public_key": pem(b"key"), "user_data": user_data });
        let events = &Log::booted().head();
        let bound = Bound { nonce: NONCE, public_key: b"key", events, user_data: b"data" };
        let expected = Fields {
            user_data: Some(bound.report_data().unwrap().to_vec()),
            nonce: Some(NONCE.to_vec()),
            public_key: Some(b"key".to_vec()),
        };
        assert_eq!(values(bind(&body)).fields(events), Ok(expected));
        let alone = values(bind(&json!({ "nonce": STANDARD.encode(NONCE) }))).fields(events).unwrap();
        let bound = Bound { public_key: b"", user_data: b"", ..bound };
        let user_data = Some(bound.report_data().unwrap().to_vec());
        assert_eq!((alone.user_data, alone.public_key), (user_data, None));
    }

    fn values(request: Result<Request, String>) -> Values {
        let Ok(Request::Evidence(values)) = request else { panic!("{request:?}") };
        values
    }

    #[test]
    fn an_event_is_the_services_with_its_label_and_data() {
        let body = json!({ "label": "config", "data": STANDARD.encode("data") }).to_string();
        let expected =
            Request::Extend { service: "web".into(), label: "config".into(), data: b"data".to_vec() };
        assert_eq!(event(body.as_bytes(), "web"), Ok(expected));
        let refused = |body: serde_json::Value| event(body.to_string().as_bytes(), "web").unwrap_err();
        assert!(refused(json!({ "data": "" })).contains("missing field `label`"));
        let long = STANDARD.encode(vec![0; DATA_LIMIT + 1]);
        assert_eq!(refused(json!({ "label": "x", "data": long })), "data has 1025 bytes, the limit is 1024");
        assert!(refused(json!({ "label": "x", "service": "other" })).contains("unknown field `service`"));
        let longest =
            json!({ "label": "x".repeat(LABEL_LIMIT), "data": STANDARD.encode(vec![0; DATA_LIMIT]) });
        assert!(longest.to_string().len() < MAX_EVENT_BODY);
    }

    #[test]
    fn evidence_without_a_long_enough_nonce_is_refused() {
        assert!(bind(&json!({})).unwrap_err().starts_with("nonce is missing"));
        let nonce = |length| json!({ "nonce": STANDARD.encode(vec![0; length]) });
        assert_eq!(bind(&nonce(15)).unwrap_err(), "the nonce has 15 bytes, the limits are 16 and 64");
        assert_eq!(bind(&nonce(65)).unwrap_err(), "nonce has 65 bytes, the limit is 64");
        assert!(bind(&nonce(64)).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_a_body_contains_the_request_is_within_the_limits_and_not_reserved(
            user_data in proptest::option::of(any_field()),
            nonce in proptest::option::of(any_field()),
            key in proptest::option::of(any_field()),
        ) {
            let body = json!({
                "user_data": user_data.map(|bytes| STANDARD.encode(bytes)),
                "nonce": nonce.map(|bytes| STANDARD.encode(bytes)),
                "public_key": key.map(|bytes| pem(&bytes)),
            })
            .to_string();
            if let Ok(Request::Attest(Fields { user_data, nonce, public_key })) = document(body.as_bytes()) {
                let limits = [(user_data, FIELD_LIMIT), (nonce, FIELD_LIMIT), (public_key, KEY_LIMIT)];
                for (value, limit) in limits {
                    let value = value.unwrap_or_default();
                    prop_assert!(value.len() <= limit && !value.starts_with(&MAGIC));
                }
            }
            if let Ok(Request::Evidence(values)) = evidence(body.as_bytes()) {
                let fields = values.fields(&Log::booted().head()).unwrap();
                let (nonce, key) = (fields.nonce.unwrap(), fields.public_key.unwrap_or_default());
                prop_assert!(is_reserved(&fields.user_data.unwrap()) && nonce.len() >= 16);
                prop_assert!(!is_reserved(&nonce) && !is_reserved(&key));
            }
        }

        #[test]
        fn any_bytes_are_a_request_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop((document(&body), evidence(&body), event(&body, "web")));
        }
    }

    /// Bytes around the limits, some of which begin as a binding.
    fn any_field() -> impl Strategy<Value = Vec<u8>> {
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..1100))
            .prop_map(|(claims, bytes)| if claims { [&MAGIC[..], &bytes].concat() } else { bytes })
    }

    #[test]
    fn the_longest_fields_fit_into_the_limit_of_the_body() {
        let longest = |nonce, data| {
            json!({
                "nonce": STANDARD.encode(vec![0; nonce]),
                "public_key": pem(&[0; KEY_LIMIT]),
                "user_data": STANDARD.encode(vec![0; data]),
            })
            .to_string()
        };
        let body = longest(NONCE_MAX, MAX_BOUND_DATA);
        assert!(body.len() < MAX_EVIDENCE_BODY && evidence(body.as_bytes()).is_ok());
        let body = longest(FIELD_LIMIT, FIELD_LIMIT);
        assert!(body.len() < MAX_DOCUMENT_BODY && document(body.as_bytes()).is_ok());
        let over = longest(NONCE_MAX, MAX_BOUND_DATA + 1);
        assert!(evidence(over.as_bytes()).unwrap_err().starts_with("user_data has 4097"));
    }
}
