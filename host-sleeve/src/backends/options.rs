//! The command line options that belong to backends.
//!
//! Invariant: a backend declares the options that it offers and interprets their values; the command line only passes them on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An option with a fixed set of values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// Its name on the command line, without the hyphens.
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) help: &'static str,
    /// Its values, each with its help text.
    pub(crate) values: &'static [(&'static str, &'static str)],
    /// The default, if it is to be shown in the help.
    pub(crate) default: Option<&'static str>,
}

/// The options that the operator has given, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Chosen(BTreeMap<String, String>);

impl Chosen {
    /// Adds an option.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// The given value of an option, if any.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The first given option that is not among these.
    pub(crate) fn beyond(&self, offers: &[Offer]) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|name| offers.iter().all(|offer| offer.name != *name))
    }
}
