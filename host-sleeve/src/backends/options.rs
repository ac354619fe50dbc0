//! The options of the command line that belong to backends.
//!
//! Its law: a backend says which it offers and reads what was chosen; the command line only carries it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An option with a few values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// Its name on the command line, without the hyphens.
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) help: &'static str,
    /// Its values, each with what it means.
    pub(crate) values: &'static [(&'static str, &'static str)],
    /// The value that counts where none is chosen, to be shown as such.
    pub(crate) default: Option<&'static str>,
}

/// What an operator has chosen, by the names of the options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Chosen(BTreeMap<String, String>);

impl Chosen {
    /// Adds a choice.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// The value that was chosen for an option, if one was.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The first option that was chosen and is not among these.
    pub(crate) fn beyond(&self, offers: &[Offer]) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|name| offers.iter().all(|offer| offer.name != *name))
    }
}
