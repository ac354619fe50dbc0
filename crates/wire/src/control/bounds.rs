//! Texts in a status, and how long they are once they are written.
//!
//! Its law: a length is counted as JSON has it, because that is what a frame bounds. A text is bounded where it comes in, once.

/// The longest error text kept for a service, in bytes of JSON: what failed, a path and the system's words.
pub const MAX_ERROR_TEXT: usize = 512;

/// `text` with a space for each control character, cut where its JSON would be longer than `limit` bytes.
#[must_use]
pub fn bounded(text: &str, limit: usize) -> String {
    let mut out = String::new();
    let mut left = limit;
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        // JSON has a backslash in front of these two, and writes all others as they are (RFC 8259, section 7).
        let length = c.len_utf8().saturating_add(usize::from(matches!(c, '"' | '\\')));
        let Some(rest) = left.checked_sub(length) else { break };
        left = rest;
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_is_as_long_as_its_json() {
        assert_eq!(bounded("a\nb\u{7f}\0", 9), "a b  ");
        assert_eq!(bounded(&"\u{1}".repeat(600), 256), " ".repeat(256));
        assert_eq!(bounded(&"\"".repeat(600), 256), "\"".repeat(128));
        assert_eq!(bounded("ééé", 5), "éé");
    }

    proptest! {
        #[test]
        fn no_text_is_longer_than_it_may_be(text: String, limit in 0usize..64) {
            let json = serde_json::to_string(&bounded(&text, limit)).unwrap();
            prop_assert!(json.len() <= limit + 2, "{}", json);
        }
    }
}
