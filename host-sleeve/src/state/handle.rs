//! What a backend needs to find what it has created.
//!
//! Invariant: it is on the disk before anything is created, so that nothing created is ever without a record. Only the backend
//! that it names interprets its parts.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A reference to what a backend has created or is creating.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "the fields of a handle")]
pub(crate) struct Handle {
    /// The backend's name.
    pub(crate) backend: String,
    /// Whether creation is complete. Until then parts of it may exist.
    pub(crate) created: bool,
    /// The backend's own data.
    #[serde(flatten)]
    parts: Map<String, Value>,
}

impl Handle {
    /// The intent: the backend of this name is about to create something.
    pub(crate) fn creating(backend: &str) -> Self {
        Self { backend: backend.to_owned(), created: false, parts: Map::new() }
    }

    /// What the backend of this name has created. `parts` must serialize to a JSON object without `backend` and `created`.
    pub(crate) fn created(backend: &str, parts: &impl Serialize) -> Self {
        let parts = serde_json::to_value(parts).ok();
        let parts = parts.and_then(|parts| parts.as_object().cloned()).unwrap_or_default();
        Self { backend: backend.to_owned(), created: true, parts }
    }

    /// What it states, on one line, for people who must find what it names without this program.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The parts, for the backend that wrote them.
    pub(crate) fn parts<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(Value::Object(self.parts.clone())).map_err(|error| {
            Error::host(format!("cannot interpret the handle recorded by the backend {}", self.backend))
                .because(error)
                .hint("use the host-sleeve that launched it, or a newer one")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Parts {
        instance: String,
    }

    #[test]
    fn a_handle_is_tagged_with_its_backend_and_read_back_by_it() {
        let handle = Handle::created("cloud", &Parts { instance: "i-1".to_owned() });
        let text = serde_json::to_string(&handle).unwrap();
        assert_eq!(text, r#"{"backend":"cloud","created":true,"instance":"i-1"}"#);
        let again: Handle = serde_json::from_str(&text).unwrap();
        assert_eq!(again.parts::<Parts>().unwrap(), Parts { instance: "i-1".to_owned() });
    }

    #[test]
    fn parts_written_by_another_backend_are_refused_with_a_hint() {
        let error = Handle::creating("cloud").parts::<Parts>().unwrap_err();
        assert!(error.to_string().contains("the backend cloud"), "{error}");
        assert!(error.details().hint.as_deref().unwrap().contains("host-sleeve that launched it"));
    }
}
