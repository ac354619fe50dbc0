//! Patterns of names, and the tree that finds those that match a name.
//!
//! Invariant: `*` is exactly one label, `**` one or more, and both are whole labels: `*.example.com` matches neither `example.com` nor
//! `a.b.example.com`, and nothing matches `evilexample.com`. Patterns are compared with canonical names and are canonical themselves.
//!
//! A tree of labels from the right: finding all patterns that match a name visits one node per label of the name, and more only where
//! a pattern has `*` before other labels. Each step searches the labels of one node, in sorted order.

use std::collections::BTreeMap;
use std::fmt;

use crate::host::{Host, HostError, Name, to_ascii};

/// A pattern of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The labels from the left, without a leading `**`.
    labels: Vec<Label>,
    /// Whether it starts with `**`.
    deep: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Label {
    Any,
    Named(Box<str>),
}

/// Why a text is not a pattern. The author of the rule must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A star beside other characters.
    #[error("`*` replaces a whole label: write `*.example.com`, or list the names")]
    PartialStar,
    /// `**` somewhere else than at the start.
    #[error("`**` must be the first label: it matches one or more labels to the left of the others")]
    InnerDoubleStar,
    /// An address in a spelling that rules do not use.
    #[error("this is the address {0} in another spelling: write the address")]
    Spelling(std::net::IpAddr),
    /// A dot in Unicode.
    #[error("a dot is not the ASCII dot: separate labels with `.`")]
    Dot,
    /// The names are not valid.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A label in the place of a star, while the rest is brought into its canonical form.
const PLACEHOLDER: &str = "a";

impl Pattern {
    /// Reads a pattern; the labels may be in any case and in Unicode.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let labels: Vec<&str> = text.strip_suffix('.').unwrap_or(text).split('.').collect();
        for (index, label) in labels.iter().enumerate() {
            match *label {
                "**" if index > 0 => return Err(PatternError::InnerDoubleStar),
                "*" | "**" => {}
                label if label.contains('*') => return Err(PatternError::PartialStar),
                // Alone as well: a label that maps to nothing or to two would move the stars.
                label if to_ascii(label)?.contains('.') => return Err(PatternError::Dot),
                _ => {}
            }
        }
        let is_star = |label: &str| matches!(label, "*" | "**");
        let plain: Vec<&str> =
            labels.iter().map(|label| if is_star(label) { PLACEHOLDER } else { *label }).collect();
        let name = match Host::parse(&plain.join("."))? {
            Host::Name(name) => name,
            Host::Address(address) => return Err(PatternError::Spelling(address)),
        };
        let canonical: Vec<&str> = name.as_str().split('.').collect();
        if canonical.len() != labels.len() {
            return Err(PatternError::Dot);
        }
        let deep = labels.first() == Some(&"**");
        let parsed = labels.iter().zip(canonical).skip(usize::from(deep)).map(|(label, canonical)| {
            if is_star(label) { Label::Any } else { Label::Named(canonical.into()) }
        });
        Ok(Self { labels: parsed.collect(), deep })
    }

    /// Whether it matches `name`. The tree answers the same for many patterns at once.
    #[must_use]
    pub fn matches(&self, name: &Name) -> bool {
        let mut tree = Names::default();
        tree.insert(self, 0);
        let mut found = false;
        tree.find(name, &mut |_| found = true);
        found
    }
}

/// Patterns, each with the number of its rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    root: Node,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Rules whose pattern ends here.
    here: Vec<u32>,
    /// Rules whose pattern continues with `**`.
    deep: Vec<u32>,
    /// Continues with `*`.
    any: Option<Box<Node>>,
    /// Continues with this label.
    named: BTreeMap<Box<str>, Node>,
}

impl Names {
    pub(crate) fn insert(&mut self, pattern: &Pattern, rule: u32) {
        let mut node = &mut self.root;
        for label in pattern.labels.iter().rev() {
            node = match label {
                Label::Any => node.any.get_or_insert_default(),
                Label::Named(label) => node.named.entry(label.clone()).or_default(),
            };
        }
        if pattern.deep { node.deep.push(rule) } else { node.here.push(rule) }
    }

    /// Calls `found` with each rule whose pattern matches, in no particular order.
    pub(crate) fn find(&self, name: &Name, found: &mut dyn FnMut(u32)) {
        walk(&self.root, name.as_str().rsplit('.'), found);
    }
}

/// At most 127 calls deep, one per label of a name.
fn walk<'a>(node: &Node, mut labels: impl Iterator<Item = &'a str> + Clone, found: &mut dyn FnMut(u32)) {
    let Some(label) = labels.next() else {
        node.here.iter().for_each(|rule| found(*rule));
        return;
    };
    node.deep.iter().for_each(|rule| found(*rule));
    if let Some(next) = node.named.get(label) {
        walk(next, labels.clone(), found);
    }
    if let Some(next) = &node.any {
        walk(next, labels, found);
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deep = self.deep.then_some("**");
        let labels = self.labels.iter().map(|label| match label {
            Label::Any => "*",
            Label::Named(label) => label,
        });
        for (index, label) in deep.into_iter().chain(labels).enumerate() {
            write!(f, "{}{label}", if index == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}
