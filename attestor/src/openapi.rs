//! The description of both interfaces, generated from the tables by which requests are served. Built for tests only: one of
//! them compares it with `docs/openapi.json`.
//!
//! Invariant: a path, method, limit or operation in it is the one that the code uses, and the fields of responses are compared with real
//! ones. `scripts/openapi-check` validates it.

use cloister_binding::eventlog::DATA_LIMIT as EVENT_DATA_LIMIT;
use cloister_binding::{KEY_LIMIT, NONCE_MAX, NONCE_MIN};
use cloister_nsm::{DATA_LIMIT as FIELD_LIMIT, RANDOM_LIMIT};
use serde_json::{Map, Value, json};

use crate::remote::Public;
use crate::request::MAX_BOUND_DATA;
use crate::resource::Resource;

/// Where the local interface is: the host of the URL is ignored.
const LOCAL: &str = "http://attestor";

/// The whole document.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    for public in Public::ALL {
        let item = json!({ "get": public_operation(public) });
        drop(paths.insert(public.path().to_owned(), item));
    }
    for resource in Resource::ALL {
        let method = resource.method().as_str().to_lowercase();
        let servers = json!([{
            "url": LOCAL,
            "description": "Inside the enclave, at the abstract Unix address cloister/attestation; the host of the URL is ignored."
        }]);
        let mut item = Map::from_iter([("servers".to_owned(), servers)]);
        drop(item.insert(method, local_operation(resource)));
        drop(paths.insert(resource.path().to_owned(), Value::Object(item)));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Evidence of a Cloister enclave",
            "version": "1",
            "summary": "The attestation server, and the interface for programs inside.",
            "description": "The paths below /.well-known/ are served over TLS 1.3 at the manifest's port for attestation, to anyone. The \
                            paths below /v1/ are for services that the manifest lists. There is one request per connection.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "servers": [{
            "url": "https://{host}:{port}",
            "description": "The attestation server. Its certificate carries evidence in place of a certification authority's signature.",
            "variables": { "host": { "default": "localhost" }, "port": { "default": "443" } }
        }],
        "paths": paths,
        "components": { "schemas": schemas(), "responses": responses() }
    })
}

fn public_operation(public: Public) -> Value {
    let (id, summary, ok) = match public {
        Public::Evidence => (
            "getEvidence",
            "Evidence that binds a nonce, the key of the connection's certificate and the event log",
            evidence(),
        ),
        Public::Log => ("getEventLog", "The event log", bytes("The event log (docs/evidence.md).", None)),
        Public::Measurements => {
            ("getMeasurements", "The registers of the security module, without proof", body("Measurements"))
        }
        Public::Certificate => (
            "getCertificate",
            "The certificate that is presented now",
            json!({
                "description": "One certificate in PEM.",
                "content": { "application/pem-certificate-chain": { "schema": { "type": "string" } } }
            }),
        ),
        Public::Health => ("getHealth", "Whether the server serves", body("Status")),
        Public::Ready => {
            ("getReady", "Whether evidence could be requested: the security module answers", body("Status"))
        }
    };
    let statuses: &[u16] = match public {
        Public::Evidence | Public::Ready => &[400, 404, 405, 431, 500, 502, 503, 504],
        Public::Health => &[400, 404, 405, 431, 503],
        Public::Log => &[400, 404, 405, 431, 503, 504],
        Public::Certificate => &[400, 404, 405, 431, 500, 503],
        Public::Measurements => &[400, 404, 405, 431, 501, 502, 503, 504],
    };
    let mut operation = operation(id, summary, ok, statuses);
    if public == Public::Evidence {
        operation["parameters"] = json!([{
            "name": "nonce",
            "in": "query",
            "required": true,
            "description": format!("{NONCE_MIN} to {NONCE_MAX} bytes in base64url, drawn by the client."),
            "schema": { "type": "string", "minLength": base64_length(NONCE_MIN, false), "maxLength": base64_length(NONCE_MAX, true) }
        }]);
    }
    operation
}

fn local_operation(resource: Resource) -> Value {
    let (id, summary, ok) = match resource {
        Resource::Evidence => {
            ("requestEvidence", "Evidence that binds a nonce, a key, the event log and user data", evidence())
        }
        Resource::Attestation => (
            "requestAttestation",
            "A document with fields of the caller's choice, as Enclaver's clients request it",
            json!({ "description": "The document.", "content": { "application/cbor": binary(None) } }),
        ),
        Resource::Random => (
            "getRandom",
            "Random bytes of the security module",
            bytes("As many as it returns at once.", Some(RANDOM_LIMIT)),
        ),
        Resource::Log => {
            ("getLocalEventLog", "The event log", bytes("The event log (docs/evidence.md).", None))
        }
        Resource::Measurements => (
            "getLocalMeasurements",
            "The registers of the security module, without proof",
            body("Measurements"),
        ),
        Resource::Extend => ("extend", "Record an event", body("Recorded")),
        Resource::Lock => ("lock", "End the recording", body("Recorded")),
    };
    let statuses: &[u16] = match resource {
        Resource::Log => &[400, 403, 404, 405, 413, 431, 503, 504],
        Resource::Evidence => &[400, 403, 404, 405, 413, 431, 502, 503, 504],
        Resource::Attestation | Resource::Random | Resource::Measurements => {
            &[400, 403, 404, 405, 413, 431, 501, 502, 503, 504]
        }
        Resource::Extend | Resource::Lock => &[400, 403, 404, 405, 409, 413, 431, 502, 503, 504, 507],
    };
    let mut operation = operation(id, summary, ok, statuses);
    operation["x-cloister-operation"] =
        serde_json::to_value(resource.operation()).expect("an operation is a word");
    let schema = match resource {
        Resource::Evidence => "EvidenceRequest",
        Resource::Attestation => "AttestationRequest",
        Resource::Extend => "Event",
        Resource::Random | Resource::Log | Resource::Measurements | Resource::Lock => return operation,
    };
    operation["requestBody"] = json!({
        "required": resource != Resource::Attestation,
        "description": format!("At most {} bytes.", resource.max_body()),
        "content": { "application/json": { "schema": reference("schemas", schema) } }
    });
    operation
}

fn operation(id: &str, summary: &str, ok: Value, statuses: &[u16]) -> Value {
    let mut responses = Map::from_iter([("200".to_owned(), ok)]);
    for status in statuses {
        drop(responses.insert(status.to_string(), reference("responses", &format!("Error{status}"))));
    }
    json!({ "operationId": id, "summary": summary, "responses": responses })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// A response whose body is JSON of this schema.
fn body(schema: &str) -> Value {
    json!({
        "description": "The request was performed.",
        "content": { "application/json": { "schema": reference("schemas", schema) } }
    })
}

fn evidence() -> Value {
    json!({
        "description": "The evidence. With `Accept: application/cbor`, the document alone; tdx and snp: as octets.",
        "content": {
            "application/json": { "schema": reference("schemas", "Evidence") },
            "application/cbor": binary(None),
            "application/octet-stream": binary(None)
        }
    })
}

fn bytes(description: &str, limit: Option<usize>) -> Value {
    json!({ "description": description, "content": { "application/octet-stream": binary(limit) } })
}

/// Bytes as they are: the format describes them by an empty schema, or by their number.
fn binary(limit: Option<usize>) -> Value {
    limit.map_or_else(|| json!({}), |limit| json!({ "schema": { "maxLength": limit } }))
}

/// The schema of bytes in base64.
fn base64(description: &str, least: usize, most: usize) -> Value {
    json!({
        "type": "string",
        "contentEncoding": "base64",
        "description": format!("{description} {least} to {most} bytes in base64."),
        "minLength": base64_length(least, true),
        "maxLength": base64_length(most, true)
    })
}

/// Characters of so many bytes in base64, with or without `=`.
fn base64_length(bytes: usize, padded: bool) -> usize {
    if padded { bytes.div_ceil(3) * 4 } else { (bytes * 4).div_ceil(3) }
}

fn schemas() -> Value {
    let record = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false });
    let any = |description: &str| json!({ "type": "string", "contentEncoding": "base64", "description": description });
    let key = json!({
        "type": "string",
        "description": format!("A PUBLIC KEY in PEM (RFC 7468), of at most {KEY_LIMIT} bytes in DER.")
    });
    let request = |nonce_limits: (usize, usize), data: usize| {
        json!({
            "nonce": base64("Drawn by the party that requests the evidence.", nonce_limits.0, nonce_limits.1),
            "public_key": key,
            "user_data": base64("Anything.", 0, data)
        })
    };
    let platform = json!({ "enum": ["nitro", "tdx", "snp", "virtual"] });
    json!({
        "EvidenceRequest": record(&["nonce"], request((NONCE_MIN, NONCE_MAX), MAX_BOUND_DATA)),
        "AttestationRequest": record(&[], request((0, FIELD_LIMIT), FIELD_LIMIT)),
        "Event": record(&["label"], json!({
            "label": { "type": "string", "pattern": "^[a-z0-9.-]{1,40}$", "description": "What the event is." },
            "data": base64("Of more, record the digest.", 0, EVENT_DATA_LIMIT)
        })),
        "Evidence": record(&["platform", "document", "events"], json!({
            "platform": platform,
            "document": any("What the platform signed."),
            "certificates": any("snp: the certificate table that the host passes along. Nothing in it is authentic before it is verified."),
            "events": any("The event log whose head the evidence binds (docs/evidence.md).")
        })),
        "Measurements": record(&["platform", "registers", "locked"], json!({
            "platform": platform,
            "registers": {
                "type": "object",
                "description": "As in a build's measurements.json, in hexadecimal digits.",
                "propertyNames": { "pattern": "^pcr[0-9]{1,2}$" },
                "additionalProperties": { "type": "string", "pattern": "^([0-9a-f]{2})+$" }
            },
            "locked": {
                "type": "array",
                "description": "The numbers of those that are not extended any more.",
                "items": { "type": "integer", "minimum": 0 }
            }
        })),
        "Recorded": record(&["position", "head"], json!({
            "position": { "type": "integer", "minimum": 0, "description": "The event's position in the log; the end of the boot is 0." },
            "head": base64("The head of the log with it.", 48, 48)
        })),
        "Status": record(&["status"], json!({ "status": { "enum": ["serving", "ready"] } })),
        "Error": record(&["error"], json!({ "error": { "type": "string", "description": "Why the request was not performed." } }))
    })
}

fn responses() -> Value {
    let meanings = [
        (
            400,
            "A field is missing, malformed or outside its limits; without a body: the HTTP itself is malformed.",
        ),
        (403, "The manifest does not allow the operation to this service."),
        (404, "There is no such resource."),
        (405, "The resource is requested with another method."),
        (409, "A service has ended the recording."),
        (413, "The body is too long."),
        (431, "The head of the request is too long."),
        (500, "The certificate could not be made."),
        (501, "The platform does not have it; the text has the alternative."),
        (502, "The security module refused the request, or failed."),
        (503, "Too many connections or requests, or the security module cannot be used yet."),
        (504, "The security module did not respond in time."),
        (507, "The service has used its part of the event log."),
    ];
    let error = json!({ "application/json": { "schema": reference("schemas", "Error") } });
    meanings
        .into_iter()
        .map(|(status, meaning)| {
            // The HTTP library itself answers a head that is too long, without a body.
            let described = if status == 431 {
                json!({ "description": meaning })
            } else {
                json!({ "description": meaning, "content": error })
            };
            (format!("Error{status}"), described)
        })
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests;
