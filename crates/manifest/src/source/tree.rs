//! YAML as a tree with source positions.
//!
//! Invariant: nothing is converted. A scalar is its text and whether it was quoted; the field determines its meaning (so `no`
//! is never false and `1.10` stays `1.10`). Depth, nodes and text are bounded with aliases expanded, so a small file cannot
//! become a large tree.
//!
//! The parser is `granit-parser`. Tags, merge keys and further documents are refused: each gives a file a meaning that its
//! reader does not see.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

use super::problem::{Kind, Problem, Problems, Span};

/// The maximum size of the source in bytes: the same as for the resolved manifest.
pub(super) const MAX_SOURCE: usize = crate::model::MAX_BYTES;

/// The maximum number of nodes, with aliases expanded. The largest manifest (60 services, every field given) has about 5000.
const MAX_NODES: usize = 50_000;

/// The maximum number of bytes of text, with aliases expanded: as much as the source could contain without aliases.
const MAX_TEXT: usize = MAX_SOURCE;

/// The maximum nesting depth. The deepest field of the format is at 7.
const MAX_DEPTH: usize = 32;

/// A part of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// The value of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A single value as written in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Written without quotes, so that it may be a number or a boolean.
    pub(super) plain: bool,
}

/// One field of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

impl Node {
    /// Its shape, in prose.
    pub(super) fn shape(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(Scalar { text, plain: true }) if is_number(text) => "a number",
            Value::Scalar(Scalar { text, plain: true }) if text == "true" || text == "false" => "a boolean",
            Value::Scalar(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Nodes and bytes of text in it.
    fn weight(&self) -> (usize, usize) {
        let add = |a: (usize, usize), b: (usize, usize)| (a.0.saturating_add(b.0), a.1.saturating_add(b.1));
        match &self.value {
            Value::Null => (1, 0),
            Value::Scalar(scalar) => (1, scalar.text.len()),
            Value::List(items) => items.iter().map(Node::weight).fold((1, 0), add),
            Value::Map(entries) => entries.iter().map(Entry::weight).fold((1, 0), add),
        }
    }
}

impl Entry {
    fn weight(&self) -> (usize, usize) {
        let (nodes, text) = self.value.weight();
        (nodes.saturating_add(1), text.saturating_add(self.key.len()))
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+' || c == '.')
        && text.parse::<f64>().is_ok()
}

/// Reads the only document of a source. All problems are pushed; the result is `None` if one of them prevents reading.
pub(super) fn read(source: &str, problems: &mut Problems) -> Option<Node> {
    if source.len() > MAX_SOURCE {
        let what = format!("the manifest is {} bytes, more than the limit of {MAX_SOURCE}", source.len());
        problems
            .push(Problem::new(Kind::Limit, Span::default(), what).hint("put large files into the image"));
        return None;
    }
    match document(source, problems) {
        Ok(node) => Some(node),
        Err(problem) => {
            problems.push(*problem);
            None
        }
    }
}

/// Boxed, since it is large and rare.
type Fatal = Box<Problem>;

fn document(source: &str, problems: &mut Problems) -> Result<Node, Fatal> {
    let mut options = granit_parser::Options::default();
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    options.disallow_directives = true;
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(source, options);
    let mut reader = Reader { parser, anchors: HashMap::new(), nodes: 0, text: 0, problems };
    let node = reader.first_document()?;
    reader.expect_end()?;
    Ok(node)
}

struct Reader<'a, 'f> {
    parser: Parser<'a, StrInput<'a>>,
    /// The node of each anchor, by the parser's number for it.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    text: usize,
    problems: &'f mut Problems,
}

impl<'a> Reader<'a, '_> {
    /// The next event. A tag is reported and then ignored.
    fn next(&mut self) -> Result<(Event<'a>, Span), Fatal> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                if let Some(tag) = event.tag() {
                    let at = span.tag_span().map_or_else(|| span_of(&span), |tag| span_of(&tag));
                    let problem = Problem::new(
                        Kind::Syntax,
                        at,
                        format!("the tag `{}` is not supported", tag.original()),
                    );
                    self.problems.push(problem.hint("remove it: the field determines the type"));
                }
                Ok((event, span_of(&span)))
            }
            Some(Err(error)) => Err(Box::new(syntax(&error))),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// The root node of the first document.
    fn first_document(&mut self) -> Result<Node, Fatal> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd, span) => return Ok(Node { span, value: Value::Null }),
                (event, span) => return self.node(event, span, 0),
            }
        }
    }

    fn expect_end(&mut self) -> Result<(), Fatal> {
        loop {
            match self.next()? {
                (Event::DocumentEnd, _) => {}
                (Event::StreamEnd, _) => return Ok(()),
                (_, span) => {
                    let problem = Problem::new(Kind::Syntax, span, "a second document starts here");
                    return Err(Box::new(problem.hint("a manifest is one document: remove `---`")));
                }
            }
        }
    }

    /// The node that starts with an event.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Fatal> {
        let anchor = event.anchor_id();
        if depth > MAX_DEPTH {
            return Err(Box::new(Problem::new(
                Kind::Limit,
                span,
                format!("nested more than {MAX_DEPTH} levels deep"),
            )));
        }
        let node = match event {
            Event::Alias(id) => return self.alias(id, span),
            Event::Scalar(text, style, ..) => self.scalar(text.into_owned(), style, span)?,
            Event::SequenceStart(..) => self.list(span, depth)?,
            Event::MappingStart(..) => self.map(span, depth)?,
            _ => return Err(Box::new(Problem::new(Kind::Syntax, span, "a value was expected here"))),
        };
        if let Some(id) = anchor {
            self.anchors.insert(id, node.clone());
        }
        Ok(node)
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, span: Span) -> Result<Node, Fatal> {
        self.spend(1, text.len(), span)?;
        let plain = style == ScalarStyle::Plain;
        let value = if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
            Value::Null
        } else {
            Value::Scalar(Scalar { text, plain })
        };
        Ok(Node { span, value })
    }

    fn list(&mut self, begin: Span, depth: usize) -> Result<Node, Fatal> {
        self.spend(1, 0, begin)?;
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => {
                    return Ok(Node { span: joined(begin, end), value: Value::List(items) });
                }
                (event, span) => items.push(self.node(event, span, depth.saturating_add(1))?),
            }
        }
    }

    fn map(&mut self, begin: Span, depth: usize) -> Result<Node, Fatal> {
        self.spend(1, 0, begin)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut first: HashMap<String, Span> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Node { span: joined(begin, span), value: Value::Map(entries) });
            }
            let key = self.node(event, span, depth.saturating_add(1))?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth.saturating_add(1))?;
            let Some(name) = self.key(&key) else { continue };
            if let Some(earlier) = first.get(&name) {
                let problem = Problem::new(Kind::Duplicate, key.span, format!("`{name}` is defined twice"));
                self.problems.push(problem.label("again here").related(*earlier, "first here"));
                continue;
            }
            first.insert(name.clone(), key.span);
            entries.push(Entry { key: name, key_span: key.span, value });
        }
    }

    /// The name in a key.
    fn key(&mut self, key: &Node) -> Option<String> {
        let problem = match &key.value {
            Value::Scalar(Scalar { text, plain: true }) if text == "<<" => {
                Problem::new(Kind::Syntax, key.span, "merge keys are not supported")
                    .hint("write the fields out, so that readers see all of them")
            }
            Value::Scalar(scalar) => return Some(scalar.text.clone()),
            _ => Problem::new(Kind::WrongType, key.span, format!("a field's name cannot be {}", key.shape()))
                .hint("quote it if it is a string"),
        };
        self.problems.push(problem);
        None
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<Node, Fatal> {
        let within = || Box::new(Problem::new(Kind::Syntax, span, "an alias inside its own anchor"));
        let (nodes, text) = self.anchors.get(&id).map(Node::weight).ok_or_else(within)?;
        self.spend(nodes, text, span)?;
        self.anchors.get(&id).cloned().ok_or_else(within)
    }

    /// Counts the growth of the tree.
    fn spend(&mut self, nodes: usize, text: usize, span: Span) -> Result<(), Fatal> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.text = self.text.saturating_add(text);
        if self.nodes > MAX_NODES {
            return Err(Box::new(Problem::new(Kind::Limit, span, format!("more than {MAX_NODES} values"))));
        }
        if self.text > MAX_TEXT {
            return Err(Box::new(Problem::new(
                Kind::Limit,
                span,
                format!("more than {MAX_TEXT} bytes of text"),
            )));
        }
        Ok(())
    }
}

fn span_of(span: &granit_parser::Span) -> Span {
    span.byte_range().map_or_else(Span::default, |range| Span { start: range.start, end: range.end })
}

fn joined(begin: Span, end: Span) -> Span {
    Span { start: begin.start, end: end.end.max(begin.end) }
}

fn syntax(error: &ScanError) -> Problem {
    let start = error.marker().byte_offset().unwrap_or(0);
    Problem::new(Kind::Syntax, Span { start, end: start }, format!("invalid YAML: {}", error.info()))
        .hint("check the indentation (spaces, never tabs) and that quotes and brackets are closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(source: &str) -> Result<Node, Vec<Problem>> {
        let mut problems = Problems::default();
        match read(source, &mut problems) {
            Some(node) if problems.is_empty() => Ok(node),
            _ => Err(problems.into_report("x", source).unwrap().problems().to_vec()),
        }
    }

    fn what(source: &str) -> String {
        tree(source).unwrap_err().iter().map(|problem| problem.what.clone()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_scalar_is_not_converted() {
        let Value::List(items) = tree("[no, 1.10, \"\", ~, 'x', 0x10]").unwrap().value else { panic!() };
        let shown: Vec<_> = items
            .iter()
            .map(|item| match &item.value {
                Value::Scalar(scalar) => format!("{}:{}", scalar.text, scalar.plain),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, ["no:true", "1.10:true", ":false", "Null", "x:false", "0x10:true"]);
    }

    #[test]
    fn spans_are_bytes_of_the_source() {
        let source = "a: é\nbé: [1, 22]\n";
        let Value::Map(entries) = tree(source).unwrap().value else { panic!() };
        let text = |span: Span| &source[span.start..span.end];
        assert_eq!((text(entries[0].key_span), text(entries[0].value.span)), ("a", "é"));
        assert_eq!((text(entries[1].key_span), text(entries[1].value.span)), ("bé", "[1, 22]"));
    }

    #[test]
    fn tags_merge_keys_duplicates_and_second_documents_are_refused() {
        assert_eq!(what("a: !!str 1"), "the tag `!!str` is not supported");
        assert_eq!(what("a: &x {b: 1}\nc:\n  <<: *x"), "merge keys are not supported");
        assert_eq!(what("a: 1\n---\nb: 2"), "a second document starts here");
        assert_eq!(what("a: 1\na: 2"), "`a` is defined twice");
        assert_eq!(what("[a]: 1"), "a field's name cannot be a list");
        assert_eq!(what("a: &x [*x]"), "an alias inside its own anchor");
        assert!(what("%YAML 1.1\n---\na: 1").starts_with("invalid YAML: "));
    }

    #[test]
    fn aliases_are_expanded_within_bounds() {
        assert_eq!(tree("a: &x [1]\nb: *x").unwrap().weight(), tree("a: [1]\nb: [1]").unwrap().weight());
        let mut nested = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let line = format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", "));
            nested.push_str(&line);
        }
        assert_eq!(what(&nested), "more than 50000 values");
        let long = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), ["*a"; 20].join(", "));
        assert!(what(&long).ends_with("bytes of text"));
        assert!(tree(&"[".repeat(10_000)).is_err());
        assert!(tree(&"- ".repeat(10_000)).is_err());
    }
}
