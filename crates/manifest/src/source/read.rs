//! Converts the tree to typed values and collects the problems found.
//!
//! Invariant: reading continues after a problem, so that one run reports all of them. A value that could not be read is absent.
//!
//! `record` makes a struct, its reader and its JSON Schema from one declaration; `either` does the same for a value with a
//! short and a long form; `keywords` for a choice of keywords. The types of single scalars are in [`super::units`].

use std::borrow::Cow;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::hint;
use super::problem::{Kind, Problem, Problems, Span};
use super::tree::{Entry, Node, Scalar, Value};

/// A type that can be read from a node.
pub(super) trait Read: Sized {
    /// What is expected, in prose: "a duration such as `10s`".
    fn expected() -> Cow<'static, str>;

    /// Whether a key in a map may have this type without a value.
    const MAY_BE_EMPTY: bool = false;

    /// Reads it, or reports why it cannot.
    fn read(node: &Node, problems: &mut Problems) -> Option<Self>;
}

/// A type that is written as a scalar.
pub(super) trait FromScalar: Sized {
    /// What is expected, in prose.
    const EXPECTED: &'static str;

    /// Reads the text, or returns what is wrong with it.
    fn from_scalar(scalar: &Scalar) -> Result<Self, Invalid>;
}

/// Why a scalar is not valid.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Invalid {
    /// The reason; empty if stating the expected type is enough.
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl Invalid {
    pub(super) fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A value and its position in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Read> Read for Spanned<T> {
    fn expected() -> Cow<'static, str> {
        T::expected()
    }

    const MAY_BE_EMPTY: bool = T::MAY_BE_EMPTY;

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        T::read(node, problems).map(|value| Self { value, span: node.span })
    }
}

impl<T: FromScalar> Read for T {
    fn expected() -> Cow<'static, str> {
        Self::EXPECTED.into()
    }

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        let Value::Scalar(scalar) = &node.value else {
            problems.push(wrong_type::<Self>(node));
            return None;
        };
        match Self::from_scalar(scalar) {
            Ok(value) => Some(value),
            Err(invalid) => {
                let quote = if scalar.plain { "" } else { "\"" };
                let what = format!("`{quote}{}{quote}` is not {}", short(&scalar.text), Self::expected());
                problems.push(
                    Problem::new(Kind::BadValue, node.span, what)
                        .label(invalid.reason)
                        .maybe_hint(invalid.hint),
                );
                None
            }
        }
    }
}

impl<T: Read> Read for Vec<T> {
    fn expected() -> Cow<'static, str> {
        "a list".into()
    }

    fn read(node: &Node, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Value::List(items) => Some(items.iter().filter_map(|item| T::read(item, problems)).collect()),
            Value::Scalar(scalar) => {
                problems.push(wrong_type::<Self>(node).hint(hint::as_list(&scalar.text)));
                None
            }
            _ => {
                problems.push(wrong_type::<Self>(node));
                None
            }
        }
    }
}

/// The problem of a node that has another shape than expected.
pub(super) fn wrong_type<T: Read>(node: &Node) -> Problem {
    let what = format!("this must be {}, not {}", T::expected(), node.shape());
    Problem::new(Kind::WrongType, node.span, what)
}

/// The problem of a field without a value.
pub(super) fn no_value<T: Read>(name: &str, key: Span) -> Problem {
    let problem = Problem::new(Kind::WrongType, key, format!("`{}` has no value", short(name)));
    problem.label(format!("expected {}", T::expected())).hint("give it a value, or remove the line")
}

/// A text cut to fit into a sentence.
pub(super) fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        None => text.into(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or("")).into(),
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// The fields of a record, read from a map.
pub(super) struct Fields<'a> {
    /// What the record is, in prose: "a service".
    record: &'static str,
    span: Span,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// The fields of a map that should be `record`; unknown ones are problems.
    pub(super) fn of<T: Read>(
        node: &'a Node,
        record: &'static str,
        known: &'static [&'static str],
        problems: &mut Problems,
    ) -> Option<Self> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null if T::MAY_BE_EMPTY => &[],
            _ => {
                problems.push(wrong_type::<T>(node));
                return None;
            }
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            problems.push(unknown_field(entry, record, known));
        }
        Some(Self { record, span: node.span, entries })
    }

    /// A field that may be omitted.
    pub(super) fn optional<T: Read>(&self, name: &str, problems: &mut Problems) -> Option<Spanned<T>> {
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        if entry.value.value == Value::Null {
            problems.push(no_value::<T>(name, entry.key_span));
            return None;
        }
        Spanned::read(&entry.value, problems)
    }

    /// A field that must be present.
    pub(super) fn required<T: Read>(&self, name: &str, problems: &mut Problems) -> Option<Spanned<T>> {
        if !self.entries.iter().any(|entry| entry.key == name) {
            let what = format!("{} requires the field `{name}`", self.record);
            problems.push(
                Problem::new(Kind::MissingField, self.span, what)
                    .hint(format!("add `{name}:`, {}", T::expected())),
            );
            return None;
        }
        self.optional(name, problems)
    }
}

fn unknown_field(entry: &Entry, record: &str, known: &[&str]) -> Problem {
    let problem = Problem::new(
        Kind::UnknownField,
        entry.key_span,
        format!("unknown field `{}` in {record}", short(&entry.key)),
    );
    let hint = super::foreign::advice(&entry.key, known)
        .map(str::to_owned)
        .or_else(|| hint::did_you_mean(&entry.key, known.iter().copied()))
        .unwrap_or_else(|| format!("the fields are {}", known.join(", ")));
    problem.hint(hint)
}

/// Declares a record: its struct, its reader and its schema. Each field is an `Option<Spanned<_>>`; a missing field that is
/// marked `required` is a problem, and has `#[schemars(required)]` so that the schema requires it too.
macro_rules! record {
    ($(#[$meta:meta])* struct $name:ident: $what:literal, may_be_empty = $empty:literal {
        $($(#[$field_meta:meta])* $mode:ident $field:ident: $type:ty,)*
    }) => {
        #[derive(Clone, Debug, Default, PartialEq, Eq, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        $(#[$meta])*
        pub(super) struct $name {
            $($(#[$field_meta])* pub(super) $field: Option<$crate::source::read::Spanned<$type>>,)*
        }

        impl $crate::source::read::Read for $name {
            fn expected() -> std::borrow::Cow<'static, str> {
                concat!("a map (", $what, ")").into()
            }

            const MAY_BE_EMPTY: bool = $empty;

            fn read(
                node: &$crate::source::tree::Node,
                problems: &mut $crate::source::problem::Problems,
            ) -> Option<Self> {
                const KNOWN: &[&str] = &[$(stringify!($field)),*];
                let fields = $crate::source::read::Fields::of::<Self>(node, $what, KNOWN, problems)?;
                Some(Self { $($field: fields.$mode(stringify!($field), problems),)* })
            }
        }
    };
}

/// Declares a value with two forms: a short one for any node but a map, and a long one for a map.
macro_rules! either {
    ($(#[$meta:meta])* enum $name:ident: $what:literal {
        $(#[$short_meta:meta])* $short:ident($short_type:ty),
        $(#[$long_meta:meta])* $long:ident($long_type:ty),
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, schemars::JsonSchema)]
        #[schemars(untagged)]
        pub(super) enum $name {
            $(#[$short_meta])* $short($short_type),
            $(#[$long_meta])* $long($long_type),
        }

        impl $crate::source::read::Read for $name {
            fn expected() -> std::borrow::Cow<'static, str> {
                $what.into()
            }

            fn read(
                node: &$crate::source::tree::Node,
                problems: &mut $crate::source::problem::Problems,
            ) -> Option<Self> {
                match &node.value {
                    $crate::source::tree::Value::Map(_) => <$long_type as $crate::source::read::Read>::read(node, problems).map(Self::$long),
                    _ => <$short_type as $crate::source::read::Read>::read(node, problems).map(Self::$short),
                }
            }
        }
    };
}

/// Lets a type be read from a choice of keywords.
macro_rules! keywords {
    ($type:ty: $what:literal { $($keyword:literal => $value:expr,)+ }) => {
        impl $crate::source::read::FromScalar for $type {
            const EXPECTED: &'static str = $what;

            fn from_scalar(
                scalar: &$crate::source::tree::Scalar,
            ) -> Result<Self, $crate::source::read::Invalid> {
                match scalar.text.as_str() {
                    $($keyword => Ok($value),)+
                    other => Err($crate::source::read::Invalid {
                        reason: format!("expected {}", $crate::source::hint::one_of([$($keyword),+])),
                        hint: $crate::source::hint::did_you_mean(other, [$($keyword),+]),
                    }),
                }
            }
        }
    };
}

pub(super) use {either, keywords, record};
