//! Searches a stream for a text: readiness by a line of output.
//!
//! Invariant: the text is found wherever the stream is split, and fewer bytes than the text has are buffered between
//! pieces.

/// A search through bytes that arrive in pieces.
#[derive(Debug)]
pub(super) struct Needle {
    text: Vec<u8>,
    window: Vec<u8>,
}

impl Needle {
    /// A search for `text`. The empty text is found in any output.
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.as_bytes().to_vec(), window: Vec::new() }
    }

    /// Whether the text has been found, with `piece` following the earlier pieces.
    pub(super) fn push(&mut self, piece: &[u8]) -> bool {
        self.window.extend_from_slice(piece);
        let found = self.text.is_empty() || self.window.windows(self.text.len()).any(|w| w == self.text);
        let keep = self.text.len().saturating_sub(1);
        self.window.drain(..self.window.len().saturating_sub(keep));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_split_in_two_is_found() {
        let mut needle = Needle::new("listening on");
        assert!(!needle.push(b"server is liste"));
        assert!(needle.push(b"ning on port 80\n"));
    }

    proptest! {
        #[test]
        fn a_text_is_found_wherever_the_stream_is_split(before in "[a-c]{0,9}", after in "[a-c]{0,9}", cut in 1usize..5) {
            let stream = format!("{before}abcd{after}");
            let mut needle = Needle::new("abcd");
            let found = stream.as_bytes().chunks(cut).any(|piece| needle.push(piece));
            prop_assert!(found);
            let mut absent = Needle::new("abce");
            let found = stream.as_bytes().chunks(cut).any(|piece| absent.push(piece));
            prop_assert!(!found);
        }
    }
}
