//! The list of backends.
//!
//! Invariant: backends are selected by name; no other module here refers to a particular one.

use cloister_manifest::Platform;

use crate::app::App;
use crate::error::{Error, Result};

use super::contract::Backend;
use super::options::{Chosen, Offer};
use super::qemu::{self, nitro};

/// A backend whose options are not known yet.
struct Kind {
    name: &'static str,
    offers: &'static [Offer],
    open: fn(&Chosen) -> Result<Box<dyn Backend>>,
}

/// All backends. If none is requested, an image runs on the first one that accepts it and that its manifest allows.
const KINDS: [Kind; 2] = [
    Kind { name: qemu::NAME, offers: qemu::OFFERS, open: qemu::open },
    Kind { name: nitro::NAME, offers: nitro::OFFERS, open: nitro::open },
];

/// The backends, each with its default options.
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

/// The default backend for an image: the first one that runs it; if none does, one that states the reason.
pub(crate) fn for_app(app: &App) -> &'static str {
    let all = all();
    let accepting = || all.iter().find(|backend| backend.accepts(&app.source).is_ok());
    running(app).unwrap_or_else(|| accepting().map_or(qemu::NAME, |backend| backend.name()))
}

/// The first backend that accepts an image's form and whose platform its manifest allows.
pub(crate) fn running(app: &App) -> Option<&'static str> {
    let all = all();
    let allowed = all.iter().filter(|backend| app.manifest.platforms.contains(&backend.platform()));
    let mut running = allowed.filter(|backend| backend.accepts(&app.source).is_ok());
    running.next().map(|backend| backend.name())
}

/// The backend of this name with these options.
pub(crate) fn open(name: &str, chosen: &Chosen) -> Result<Box<dyn Backend>> {
    let kind = KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        Error::operator(format!("no backend named {name}"))
            .hint(format!("available backends: {}", names.join(", ")))
    })?;
    (kind.open)(chosen)
}

/// The platform of the machines of the backend of this name, if there is such a backend.
pub(crate) fn platform(name: &str) -> Option<Platform> {
    open(name, &Chosen::default()).ok().map(|backend| backend.platform())
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
    fn every_backend_has_a_platform_of_its_own() {
        let platforms: Vec<Platform> = all().iter().map(|backend| backend.platform()).collect();
        assert_eq!(platforms, [Platform::Virtual, Platform::Nitro]);
    }

    #[test]
    fn an_option_that_two_backends_offer_is_listed_once() {
        let names: Vec<&str> = offers().iter().map(|offer| offer.name).collect();
        assert_eq!(names, ["machine", "accel"]);
    }

    #[test]
    fn a_machine_type_can_be_chosen_only_on_the_backend_with_several() {
        let mut chosen = Chosen::default();
        chosen.set("machine", "q35");
        assert!(open("qemu", &chosen).is_ok());
        let error = open("qemu-nitro", &chosen).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the backend qemu-nitro has only one machine type and does not support --machine"
        );
        assert!(error.details().hint.as_deref().unwrap().contains("--backend qemu"));
    }

    #[test]
    fn unknown_values_and_options_are_refused() {
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
