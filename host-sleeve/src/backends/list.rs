//! The backends there are.
//!
//! Its law: whoever wants one names it; nothing else here knows a particular backend.

use crate::app::Source;
use crate::error::{Error, Result};

use super::contract::Backend;
use super::qemu;

/// The backends, by name.
pub(crate) fn all() -> Vec<Box<dyn Backend>> {
    vec![Box::new(qemu::Qemu), Box::new(qemu::nitro::QemuNitro)]
}

/// The backend for an image where nobody names one: the only one that takes it on any host.
pub(crate) fn for_source(source: &Source) -> &'static str {
    match source {
        Source::Artifact(_) => qemu::NAME,
        Source::Eif(_) => qemu::nitro::NAME,
    }
}

/// The backend of this name.
pub(crate) fn by_name(name: &str) -> Result<Box<dyn Backend>> {
    all().into_iter().find(|backend| backend.name() == name).ok_or_else(|| {
        let names: Vec<&str> = all().iter().map(|backend| backend.name()).collect();
        Error::operator(format!("there is no backend named {name}"))
            .hint(format!("the backends are: {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_found_by_its_name() {
        assert_eq!(by_name("qemu").unwrap().name(), "qemu");
        let error = by_name("cray").unwrap_err();
        assert!(error.told().hint.as_deref().unwrap().contains("qemu"));
    }

    #[test]
    fn only_the_backend_with_several_machines_lets_one_be_chosen() {
        let choosable = |backend: &&dyn Backend| backend.has_machines();
        let all = all();
        let names: Vec<_> = all.iter().map(AsRef::as_ref).filter(choosable).map(Backend::name).collect();
        assert_eq!(names, ["qemu"]);
    }
}
