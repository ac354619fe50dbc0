//! Suggestions for misspelled names.
//!
//! Invariant: a suggestion is made only when it is close; a wrong hint is worse than none.

/// The candidate closest to `word`, if one is close enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let expected = plain(word);
    // One typo per four letters, at least one: "prots" is "ports", "web" is not "db".
    let limit = (expected.len() / 4).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (closeness(&expected, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min_by_key(|(distance, candidate)| (*distance, *candidate))
        .map(|(_, candidate)| candidate)
}

/// "did you mean `…`?" for the nearest candidate.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// `a`, `b` or `c`, as in prose.
pub(super) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The distance of two words; a word that starts with the other counts as nearly the same if the other is long enough.
fn closeness(expected: &[char], candidate: &[char]) -> usize {
    if expected.len() >= 4 && candidate.starts_with(expected) {
        return usize::from(expected != candidate);
    }
    distance(expected, candidate)
}

/// "write it as a list: `[…]`" for a command written as one string, split where a shell would split it.
pub(super) fn as_list(text: &str) -> String {
    let words: Vec<_> = shell_words(text).iter().map(|word| flow_scalar(word)).collect();
    format!("write it as a list: `[{}]`", words.join(", "))
}

/// Splits at spaces; quotes keep words together and are removed.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in text.chars() {
        match (character, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// A word as an element of a YAML flow list.
fn flow_scalar(word: &str) -> String {
    let safe =
        |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '=' | ';' | ' ' | '+' | '$');
    if !word.is_empty() && word.chars().all(safe) && word != "-" && word.trim() == word {
        return word.to_owned();
    }
    format!("{word:?}")
}

/// A word without the differences that carry no meaning: case and separators.
fn plain(word: &str) -> Vec<char> {
    word.chars()
        .take(MAX_LENGTH)
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Longer words are compared by their first characters: no name of ours is longer, and the work stays bounded.
const MAX_LENGTH: usize = 64;

/// Edits between two words, a swap of neighbours counting as one (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i.saturating_add(1)];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX);
            let changed = at(&above, j).saturating_add(usize::from(x != y));
            let removed = at(&above, j.saturating_add(1)).saturating_add(1);
            let added = at(&row, j).saturating_add(1);
            let mut best = changed.min(removed).min(added);
            let swapped =
                i > 0 && j > 0 && a.get(i.wrapping_sub(1)) == Some(y) && b.get(j.wrapping_sub(1)) == Some(x);
            if swapped {
                best = best.min(at(&before, j.wrapping_sub(1)).saturating_add(1));
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_recognized() {
        let fields = ["command", "env", "ready", "restart", "stop_signal"];
        for (word, meant) in [
            ("comand", Some("command")),
            ("reday", Some("ready")),
            ("stop-signal", Some("stop_signal")),
            ("stopSignal", Some("stop_signal")),
            ("evn", Some("env")),
            ("stop_sig", Some("stop_signal")),
            ("volumes", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, fields), meant, "{word}");
        }
    }

    #[test]
    fn a_line_becomes_a_list() {
        for (line, list) in [
            ("nginx", "[nginx]"),
            ("nginx -g 'daemon off;'", "[nginx, -g, daemon off;]"),
            ("sh -c \"echo 'a  b'\"", "[sh, -c, \"echo 'a  b'\"]"),
            ("a '' [b]", "[a, \"\", \"[b]\"]"),
        ] {
            assert_eq!(as_list(line), format!("write it as a list: `{list}`"));
        }
    }

    #[test]
    fn distance_is_optimal_string_alignment() {
        for (a, b, edits) in
            [("", "", 0), ("a", "", 1), ("ab", "ba", 1), ("kitten", "sitting", 3), ("abc", "abc", 0)]
        {
            assert_eq!(distance(&plain(a), &plain(b)), edits, "{a} {b}");
        }
    }
}
