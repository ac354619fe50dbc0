//! Package URLs.
//!
//! Invariant: any byte that is not a letter, a digit or one of `-._~` is escaped as `%XX`, so that no name can change
//! the structure of a URL.

/// `pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIERS`; empty qualifiers are left out.
pub(super) fn of(
    kind: &str,
    namespace: &[&str],
    name: &str,
    version: &str,
    qualifiers: &[(&str, &str)],
) -> String {
    let mut purl = format!("pkg:{kind}");
    for part in namespace.iter().chain([&name]) {
        purl = purl + "/" + &escaped(part);
    }
    if !version.is_empty() {
        purl = purl + "@" + &escaped(version);
    }
    let mut mark = "?";
    for (key, value) in qualifiers.iter().filter(|(_, value)| !value.is_empty()) {
        purl = purl + mark + key + "=" + &escaped(value);
        mark = "&";
    }
    purl
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |out, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            out + char::from(byte).encode_utf8(&mut [0; 4])
        }
        _ => out + &format!("%{byte:02X}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_changes_the_structure_of_the_url() {
        let purl =
            of("deb", &["debian"], "g++", "1:2.0~rc1", &[("arch", "amd64"), ("distro", ""), ("x", "a/b")]);
        assert_eq!(purl, "pkg:deb/debian/g%2B%2B@1%3A2.0~rc1?arch=amd64&x=a%2Fb");
        assert_eq!(of("npm", &["@types"], "a?b", "", &[]), "pkg:npm/%40types/a%3Fb");
    }
}
