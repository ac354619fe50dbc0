//! The JSON Schema of the manifest, generated from the types that read it.
//!
//! Invariant: an editor offers exactly what the reader accepts, and every published field has a description.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use serde_json::Value;

use super::document::Document;

/// The schema's identifier; it does not imply a location.
const ID: &str = "urn:cloister:manifest:1";

/// The schema, JSON Schema draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Document>();
    RecursiveTransform(tidy).transform(&mut schema);
    schema.insert("title".to_owned(), "Cloister manifest".into());
    schema.insert("$id".to_owned(), ID.into());
    schema.to_value()
}

fn tidy(schema: &mut Schema) {
    without_null(schema);
    // Line breaks of doc comments are only source formatting.
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

/// A field that may be omitted may still not be null.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(choices)) = object.get_mut("anyOf") else { return };
    choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}
