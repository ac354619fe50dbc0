//! Texts in a status, and how long they are once they are written.
//!
//! Its law: a length is counted as JSON has it, because that is what a frame bounds. A status always fits a frame: it loses
//! the ends of its texts before it loses its reader.

use super::{Exit, State, Status};

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

impl Status {
    /// Cuts its texts, the longest first, until its JSON has at most `limit` bytes, or no text is left.
    pub fn fit(&mut self, limit: usize) {
        let mut longest = MAX_ERROR_TEXT;
        while longest > 0 && serde_json::to_vec(self).is_ok_and(|json| json.len() > limit) {
            longest /= 2;
            for text in self.texts() {
                *text = bounded(text, longest);
            }
        }
    }

    /// Everything in it that is for people and has no length of its own.
    fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let state = match &mut self.state {
            State::Degraded { why } | State::Stopping { why } => Some(why),
            State::Fatal { error, .. } => Some(error),
            _ => None,
        };
        let services = self.services.iter_mut().chain(&mut self.servants).flat_map(|service| {
            let error = match &mut service.last_exit {
                Some(Exit::NotStarted { error }) => Some(error),
                _ => None,
            };
            service.text.iter_mut().chain(service.waits_for.iter_mut()).chain(error)
        });
        state.into_iter().chain(services)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{FromGuest, IngressCounters, Phase, ServiceStatus};
    use crate::frame::{HOST_LIMIT, encode};
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

    #[test]
    fn sixty_services_with_the_worst_texts_fit_a_frame() {
        let service = |n: usize| ServiceStatus {
            name: format!("{n:0>63}"),
            phase: Phase::BackingOff,
            pid: Some(u32::MAX),
            since_ms: u64::MAX,
            restarts: u32::MAX,
            last_exit: Some(Exit::NotStarted { error: "\u{1}".repeat(MAX_ERROR_TEXT) }),
            text: Some("\"\\".repeat(2048)),
            waits_for: Some("\"\\".repeat(2048)),
        };
        let mut status = Status {
            seq: u64::MAX,
            state: State::Degraded { why: "\u{1}".repeat(64 * 1024) },
            platform: "virtual".into(),
            uptime_ms: u64::MAX,
            supervisor_restarts: u32::MAX,
            boot: Vec::new(),
            services: (0..60).map(service).collect(),
            servants: (0..2).map(service).collect(),
            ingress: IngressCounters::default(),
            registers: Vec::new(),
        };
        assert!(encode(&FromGuest::Status(status.clone()), HOST_LIMIT).is_err());
        status.fit(HOST_LIMIT - 1024);
        assert!(encode(&FromGuest::Status(status.clone()), HOST_LIMIT).is_ok());
        assert_eq!(status.services.len(), 60);
        assert!(status.services.iter().all(|s| s.text.as_ref().is_some_and(|text| text.len() >= 64)));
    }
}
