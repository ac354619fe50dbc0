//! Maps with user-defined keys, such as the names of services.
//!
//! Invariant: the order of the file is kept, and every problem in it is reported.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::problem::Problems;
use super::read::{FromScalar, Read, Spanned, no_value, wrong_type};
use super::tree::{Entry, Node, Scalar, Value};

/// A map with user-defined keys, in the order of the file. A value that could not be read is `None`; its name still
/// counts as taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map<K, V>(pub(super) Vec<(Spanned<K>, Option<Spanned<V>>)>);

impl<K: FromScalar, V: Read> Read for Map<K, V> {
    fn expected() -> Cow<'static, str> {
        "a map by name".into()
    }

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            problems.push(wrong_type::<Self>(node));
            return None;
        };
        Some(Self(entries.iter().filter_map(|entry| read_entry(entry, problems)).collect()))
    }
}

/// A key and its value.
type Pair<K, V> = (Spanned<K>, Option<Spanned<V>>);

fn read_entry<K: FromScalar, V: Read>(entry: &Entry, problems: &mut Problems) -> Option<Pair<K, V>> {
    let scalar = Scalar { text: entry.key.clone(), plain: true };
    let key = Spanned::<K>::read(&Node { span: entry.key_span, value: Value::Scalar(scalar) }, problems);
    let value = if entry.value.value == Value::Null && !V::MAY_BE_EMPTY {
        problems.push(no_value::<V>(&entry.key, entry.key_span));
        None
    } else {
        Spanned::<V>::read(&entry.value, problems)
    };
    Some((key?, value))
}

impl<K: JsonSchema, V: JsonSchema + Read> JsonSchema for Map<K, V> {
    fn schema_name() -> Cow<'static, str> {
        format!("MapOf{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<K>();
        let values = generator.subschema_for::<V>();
        if V::MAY_BE_EMPTY {
            return json_schema!({
                "type": "object",
                "propertyNames": keys,
                "additionalProperties": { "oneOf": [values, { "type": "null" }] },
            });
        }
        json_schema!({ "type": "object", "propertyNames": keys, "additionalProperties": values })
    }
}
