//! What a backend needs to find again what it has made.
//!
//! Its law: it is on the disk before anything is made, so that nothing that was made is ever without a record. Only the backend
//! that it names reads its parts.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What was made, or is being made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handle {
    /// The backend that makes it.
    pub(crate) backend: String,
    /// Whether the backend has said that it is there. Until then some of it may be.
    pub(crate) created: bool,
    /// Where it is, as the backend has it.
    #[serde(flatten)]
    parts: Map<String, Value>,
}

impl Handle {
    /// The intent: the backend of this name is about to make something.
    pub(crate) fn creating(backend: &str) -> Self {
        Self { backend: backend.to_owned(), created: false, parts: Map::new() }
    }

    /// What the backend of this name has made. `parts` becomes a JSON object without `backend` and `created`.
    pub(crate) fn created(backend: &str, parts: &impl Serialize) -> Self {
        let parts = serde_json::to_value(parts).ok();
        let parts = parts.and_then(|parts| parts.as_object().cloned()).unwrap_or_default();
        Self { backend: backend.to_owned(), created: true, parts }
    }

    /// The parts, for the backend that wrote them.
    pub(crate) fn parts<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(Value::Object(self.parts.clone())).map_err(|error| {
            Error::host(format!("what the backend {} has recorded makes no sense", self.backend))
                .because(error)
                .hint("use the host-sleeve that launched it, or one that is newer")
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
    fn parts_that_another_backend_wrote_are_refused_with_what_to_do() {
        let error = Handle::creating("cloud").parts::<Parts>().unwrap_err();
        assert!(error.to_string().contains("the backend cloud"), "{error}");
        assert!(error.details().hint.as_deref().unwrap().contains("host-sleeve that launched it"));
    }
}
