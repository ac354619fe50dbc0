//! Headers sent by container registries.

use cloister_registry::challenge::{self, Challenge};

/// A `WWW-Authenticate` header. A parsed header, written again with everything quoted, must parse to the same value.
pub fn challenge(bytes: &[u8]) {
    let Ok(header) = std::str::from_utf8(bytes) else { return };
    let Some(read) = challenge::parse(header) else { return };
    if let Challenge::Bearer { realm, service, scope } = &read {
        let names = [("realm", Some(realm)), ("service", service.as_ref()), ("scope", scope.as_ref())];
        let parameters: Vec<String> =
            names.iter().filter_map(|(name, value)| Some(format!("{name}={}", quoted((*value)?)))).collect();
        let again = format!("Bearer {}", parameters.join(","));
        assert_eq!(challenge::parse(&again).as_ref(), Some(&read), "{again:?} of {header:?}");
    }
}

/// A quoted string of RFC 9110, 5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#))
}
