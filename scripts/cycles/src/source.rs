//! The declarations, imports and paths in one file.
//!
//! Invariant: code under `#[cfg(test)]` is ignored; tests may use everything.

use crate::tokens::{Token, tokens};

/// A path as written, and its location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    /// Its segments; a glob import ends with `*`.
    pub(crate) path: Vec<String>,
    /// Its line.
    pub(crate) line: usize,
    /// The inline modules around it.
    pub(crate) inside: Vec<String>,
}

/// A name introduced by `use`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// The name in this file.
    pub(crate) name: String,
    /// The imported path.
    pub(crate) of: Mention,
    /// Whether it is re-exported.
    pub(crate) public: bool,
}

/// One file.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The modules in their own files.
    pub(crate) modules: Vec<String>,
    /// The inline modules, as paths relative to the file.
    pub(crate) inline: Vec<Vec<String>>,
    /// The names that it defines.
    pub(crate) defines: Vec<String>,
    /// The names that it imports.
    pub(crate) imports: Vec<Import>,
    /// Every other path.
    pub(crate) mentions: Vec<Mention>,
}

/// The keywords that are followed by the name of the item that they define.
const DEFINING: [&str; 8] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static"];

/// Reads a file.
pub(crate) fn read(text: &str) -> Source {
    let mut reader =
        Reader { tokens: tokens(text), at: 0, inside: Vec::new(), depth: 0, found: Source::default() };
    while reader.step() {}
    reader.found
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    /// The enclosing inline modules, and the brace depth at which each started.
    inside: Vec<(String, usize)>,
    depth: usize,
    found: Source,
}

impl Reader {
    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text.as_str())
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |token| token.line)
    }

    fn step(&mut self) -> bool {
        match self.text(0) {
            "" => return false,
            "#" if self.is_for_tests() => self.skip_item(),
            "{" => {
                self.depth += 1;
                self.at += 1;
            }
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                self.inside.pop_if(|(_, depth)| *depth == self.depth);
                self.at += 1;
            }
            "mod" if self.text(2) == ";" => {
                let name = self.text(1).to_owned();
                self.found.modules.push(name);
                self.at += 3;
            }
            "mod" if self.text(2) == "{" => {
                self.inside.push((self.text(1).to_owned(), self.depth));
                self.found.inline.push(self.around());
                self.at += 2;
            }
            "use" => self.import(),
            word if DEFINING.contains(&word) => {
                let name = self.text(1).to_owned();
                self.found.defines.push(name);
                self.at += 1;
            }
            word if is_name(word) => self.mention(),
            _ => self.at += 1,
        }
        true
    }

    fn around(&self) -> Vec<String> {
        self.inside.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Whether an attribute starts here that limits the next item to tests.
    fn is_for_tests(&self) -> bool {
        let words: Vec<&str> = (0..self.bracket_end()).map(|ahead| self.text(ahead)).collect();
        words.starts_with(&["#", "[", "cfg"]) && words.contains(&"test") && !words.contains(&"not")
    }

    /// Number of tokens of the attribute that starts here.
    fn bracket_end(&self) -> usize {
        let mut depth = 0_usize;
        for ahead in 1.. {
            match self.text(ahead) {
                "[" => depth += 1,
                "]" => depth = depth.saturating_sub(1),
                "" => return ahead,
                _ => {}
            }
            if depth == 0 && self.text(ahead) != "!" {
                return ahead + 1;
            }
        }
        0
    }

    /// Skips an attribute, those that follow, and their item.
    fn skip_item(&mut self) {
        while self.text(0) == "#" {
            self.at += self.bracket_end();
        }
        let (mut depth, mut import) = (0_usize, false);
        loop {
            let text = self.text(0);
            import |= depth == 0 && text == "use";
            match text {
                "" => return,
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth = depth.saturating_sub(1),
                _ => {}
            }
            let over = depth == 0 && (text == ";" || (text == "}" && !import));
            self.at += 1;
            if over {
                return;
            }
        }
    }

    /// Reads a `use` up to its semicolon.
    fn import(&mut self) {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        let public = before.is_some_and(|token| token.text == "pub" || token.text == ")");
        self.at += 1;
        self.branch(&[], public);
    }

    /// Reads one branch of an import tree.
    fn branch(&mut self, stem: &[String], public: bool) {
        let mut path = stem.to_vec();
        let line = self.line();
        loop {
            match self.text(0) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(0), "}" | "") {
                        self.branch(&path, public);
                        if self.text(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                word if is_name(word) && word != "as" || word == "*" => {
                    path.push(word.to_owned());
                    self.at += 1;
                }
                _ => break,
            }
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if self.text(0) == "as" {
            self.text(1).clone_into(&mut name);
            self.at += 2;
        }
        let of = Mention { path, line, inside: self.around() };
        self.found.imports.push(Import { name, of, public });
    }

    /// Reads a name, or the path that it starts.
    fn mention(&mut self) {
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at));
        let follows = before.is_some_and(|token| token.text == "." || token.text == "::");
        let (line, mut path) = (self.line(), vec![self.text(0).to_owned()]);
        self.at += 1;
        while self.text(0) == "::" && is_name(self.text(1)) {
            path.push(self.text(1).to_owned());
            self.at += 2;
        }
        if path.len() > 1 && !follows {
            let inside = self.around();
            self.found.mentions.push(Mention { path, line, inside });
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(mentions: &[Mention]) -> Vec<String> {
        mentions.iter().map(|mention| mention.path.join("::")).collect()
    }

    #[test]
    fn an_import_tree_is_expanded_to_its_leaves() {
        let source = read("pub(crate) use crate::{a::{self, B as C}, d::*};\nuse super::e;");
        let found: Vec<_> = source
            .imports
            .iter()
            .map(|import| (import.name.as_str(), import.of.path.join("::"), import.public))
            .collect();
        let expected = [
            ("a", "crate::a".to_owned(), true),
            ("C", "crate::a::B".to_owned(), true),
            ("*", "crate::d::*".to_owned(), true),
            ("e", "super::e".to_owned(), false),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn modules_names_and_paths_are_found() {
        let source = read("mod a;\nmod b { fn c() { super::d(); } }\nfn d(x: crate::e::F) { x.g::<h::I>() }");
        assert_eq!(
            (source.modules, source.defines),
            (vec!["a".to_owned()], vec!["c".to_owned(), "d".to_owned()])
        );
        assert_eq!(paths(&source.mentions), ["super::d", "crate::e::F", "h::I"]);
        assert_eq!(source.mentions[0].inside, ["b"]);
    }

    #[test]
    fn test_code_is_ignored() {
        let source = read(
            "#[cfg(test)]\n#[path = \"x\"]\nmod tests { use crate::a; }\n#[cfg(test)]\nuse crate::{b};\nfn c() {}",
        );
        assert!(source.imports.is_empty() && source.defines == ["c"], "{source:?}");
        assert_eq!(read("#[cfg(not(test))]\nuse crate::b;").imports.len(), 1);
    }
}
