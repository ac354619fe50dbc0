//! Authentication challenges of registries (`WWW-Authenticate`, RFC 9110, 11.6.1).
//!
//! Invariant: of several challenges the first supported one is used; unsupported or malformed ones are ignored.

/// The authentication that is required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The URL of the token server.
        realm: String,
        /// The service that the token is for.
        service: Option<String>,
        /// The scope of the token.
        scope: Option<String>,
    },
}

/// Parses one header.
#[must_use]
pub fn parse(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let parameters = parameters(rest)?;
    let find = |name: &str| {
        let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    Some(Challenge::Bearer { realm: find("realm")?, service: find("service"), scope: find("scope") })
}

/// `key="value", key=value, …`
fn parameters(text: &str) -> Option<Vec<(String, String)>> {
    let mut parameters = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
            quoted_string(quoted)?
        } else {
            let (value, after) = after.split_at(after.find(',').unwrap_or(after.len()));
            (value.trim().to_owned(), after)
        };
        parameters.push((key.trim().to_owned(), value));
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Some(parameters)
}

/// The text between the quotes, and the rest after them.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quoted_values_are_unquoted_exactly(realm in "\\PC{0,40}", scope in "\\PC{0,40}", blank in " {0,3}") {
            let quoted = |text: &str| text.replace('\\', r"\\").replace('"', r#"\""#);
            let header =
                format!(r#"Bearer realm="{}"{blank},{blank}scope="{}""#, quoted(&realm), quoted(&scope));
            let expected = Challenge::Bearer { realm, service: None, scope: Some(scope) };
            prop_assert_eq!(parse(&header), Some(expected));
        }

        #[test]
        fn any_header_is_a_challenge_or_ignored(text in r#"(bearer |basic )?[a-z=", \\é]{0,60}"#) {
            if let Some(Challenge::Bearer { realm, .. }) = parse(&text) {
                let bare: String = text.chars().filter(|character| *character != '\\').collect();
                let realm: String = realm.chars().filter(|character| *character != '\\').collect();
                prop_assert!(bare.contains(&realm), "{realm:?} of {text:?}");
            }
        }
    }

    #[test]
    fn challenges_of_real_registries_are_parsed() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".to_owned(),
            service: Some("registry.docker.io".to_owned()),
            scope: Some("repository:library/nginx:pull,push".to_owned()),
        };
        assert_eq!(parse(hub), Some(expected));
        assert_eq!(parse(r#"Basic realm="Registry Realm""#), Some(Challenge::Basic));
        let bare = Challenge::Bearer { realm: "https://x/t".to_owned(), service: None, scope: None };
        assert_eq!(parse("bearer realm=https://x/t"), Some(bare));
    }

    #[test]
    fn a_malformed_challenge_is_ignored() {
        for text in
            ["", "Digest x=1", "Bearer", r#"Bearer realm="open"#, r#"Bearer service="x""#, "Bearer ==,=\"\\"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
