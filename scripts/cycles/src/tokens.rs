//! Rust source as tokens, each with its line.
//!
//! Invariant: comments and the contents of literals are not tokens, so that a path mentioned there is not a use.

/// One token: a word or a punctuation mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its text; `::` is one token, any other punctuation mark is one character, and a literal is `"`.
    pub(crate) text: String,
    /// Its line, from 1.
    pub(crate) line: usize,
}

/// The tokens of a source file.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut reader = Reader { rest: source, line: 1, found: Vec::new() };
    while reader.step() {}
    reader.found
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    found: Vec<Token>,
}

impl Reader<'_> {
    /// Reads the next token or skips whitespace and comments. Returns false at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else {
            return false;
        };
        let word = word_length(self.rest);
        if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.skip(comment_length(self.rest));
        } else if let Some(length) = literal_length(self.rest) {
            self.take("\"", length);
        } else if word > 0 {
            let text = self.rest.get(..word).unwrap_or_default();
            self.take(text.strip_prefix("r#").unwrap_or(text), word);
        } else if self.rest.starts_with("::") {
            self.take("::", 2);
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            self.take(&first.to_string(), first.len_utf8());
        }
        true
    }

    fn take(&mut self, text: &str, length: usize) {
        self.found.push(Token { text: text.to_owned(), line: self.line });
        self.skip(length);
    }

    fn skip(&mut self, length: usize) {
        let (passed, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the identifier, number or keyword at the start, including the `r#` of a raw identifier.
fn word_length(text: &str) -> usize {
    let bare = text.strip_prefix("r#").filter(|bare| bare.starts_with(is_word)).unwrap_or(text);
    let length = bare.find(|c| !is_word(c)).unwrap_or(bare.len());
    if length == 0 { 0 } else { text.len() - bare.len() + length }
}

/// Length of a comment between `/*` and `*/`, which may contain others.
fn comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth = depth.saturating_sub(1);
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the string, byte string or character literal at the start. A lifetime is not a literal.
fn literal_length(text: &str) -> Option<usize> {
    let bare = text.strip_prefix(['b', 'c']).unwrap_or(text);
    let prefix = text.len() - bare.len();
    if let Some(raw) = bare.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(content) = raw.get(hashes..).and_then(|rest| rest.strip_prefix('"')) {
            let end = format!("\"{}", "#".repeat(hashes));
            let length = content.find(&end).map_or(content.len(), |at| at + end.len());
            return Some(prefix + 1 + hashes + 1 + length);
        }
    }
    let quote = bare.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let content = bare.get(1..)?;
    let mut characters = content.char_indices();
    if quote == '\'' {
        let (_, first) = characters.next()?;
        let second = content.get(first.len_utf8()..)?;
        if first != '\\' {
            return second.starts_with('\'').then_some(prefix + 2 + first.len_utf8());
        }
        characters = content.char_indices();
    }
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            c if c == quote => return Some(prefix + 1 + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn paths_are_split_into_tokens() {
        assert_eq!(
            texts("use crate::a::{B, r#type};"),
            "use crate :: a :: { B , type } ;".split(' ').collect::<Vec<_>>()
        );
    }

    #[test]
    fn comments_and_literals_contain_no_tokens() {
        let source = "// crate::a\n/* crate::b /* c */ d */ x \"crate::\\\"e\" r#\"crate::\"f\"# b'\\'' '\\\\' 'g' 'h\n";
        assert_eq!(texts(source), ["x", "\"", "\"", "\"", "\"", "\"", "'", "h"]);
    }

    #[test]
    fn a_token_knows_its_line() {
        let lines: Vec<usize> = tokens("a\n/* \n */ b \"\n\" c").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 3, 4]);
    }
}
