//! The backends there are.
//!
//! Its law: whoever wants one names it; nothing else here knows a particular backend.

use crate::app::Source;
use crate::error::{Error, Result};

use super::contract::Backend;
use super::options::{Chosen, Offer};
use super::qemu::{self, nitro};

/// One backend, before its options are known.
struct Kind {
    name: &'static str,
    offers: &'static [Offer],
    open: fn(&Chosen) -> Result<Box<dyn Backend>>,
}

/// All of them. An image of which nobody says where it runs runs on the first that accepts it.
const KINDS: [Kind; 2] = [
    Kind { name: qemu::NAME, offers: qemu::OFFERS, open: qemu::open },
    Kind { name: nitro::NAME, offers: nitro::OFFERS, open: nitro::open },
];

/// The backends, each as it is where no option is chosen.
pub(crate) fn all() -> Vec<Box<dyn Backend>> {
    KINDS.iter().filter_map(|kind| (kind.open)(&Chosen::default()).ok()).collect()
}

/// Every option that some backend offers, once.
pub(crate) fn offers() -> Vec<Offer> {
    let mut all: Vec<Offer> = Vec::new();
    for offer in KINDS.iter().flat_map(|kind| kind.offers) {
        if all.iter().all(|other| other.name != offer.name) {
            all.push(*offer);
        }
    }
    all
}

/// The name of the backend for an image where nobody names one: the first that accepts it.
pub(crate) fn for_source(source: &Source) -> &'static str {
    let all = all();
    let first = all.iter().find(|backend| backend.accepts(source).is_ok());
    first.map_or(qemu::NAME, |backend| backend.name())
}

/// The backend of this name with these options.
pub(crate) fn open(name: &str, chosen: &Chosen) -> Result<Box<dyn Backend>> {
    let kind = KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        Error::operator(format!("there is no backend named {name}"))
            .hint(format!("the backends are: {}", names.join(", ")))
    })?;
    (kind.open)(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_found_by_its_name() {
        assert_eq!(open("qemu", &Chosen::default()).unwrap().name(), "qemu");
        let error = open("cray", &Chosen::default()).unwrap_err();
        assert!(error.details().hint.as_deref().unwrap().contains("qemu"));
    }

    #[test]
    fn every_backend_works_without_options() {
        let names: Vec<&str> = all().iter().map(|backend| backend.name()).collect();
        assert_eq!(names, ["qemu", "qemu-nitro"]);
    }

    #[test]
    fn an_option_that_two_backends_offer_is_one_option() {
        let names: Vec<&str> = offers().iter().map(|offer| offer.name).collect();
        assert_eq!(names, ["machine", "accel"]);
    }

    #[test]
    fn only_the_backend_with_several_machines_lets_one_be_chosen() {
        let mut chosen = Chosen::default();
        chosen.set("machine", "q35");
        assert!(open("qemu", &chosen).is_ok());
        let error = open("qemu-nitro", &chosen).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the backend qemu-nitro has one machine, and --machine cannot choose another"
        );
        assert!(error.details().hint.as_deref().unwrap().contains("--backend qemu"));
    }

    #[test]
    fn a_value_that_no_option_has_is_refused() {
        for name in ["machine", "accel"] {
            let mut chosen = Chosen::default();
            chosen.set(name, "cray");
            assert!(open("qemu", &chosen).unwrap_err().to_string().contains("cray"), "{name}");
        }
        let mut chosen = Chosen::default();
        chosen.set("region", "eu-1");
        assert!(open("qemu", &chosen).unwrap_err().to_string().contains("--region"));
    }
}
