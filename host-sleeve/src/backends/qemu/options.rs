//! QEMU's options of the command line.
//!
//! Its law: what is read here needs no further check.

use crate::backends::options::{Chosen, Offer};
use crate::error::{Error, Result};

use super::accel::AccelChoice;
use super::argv::MachineType;

/// Which machine QEMU makes.
pub(super) const MACHINE: Offer = Offer {
    name: "machine",
    help: "The machine on the backend `qemu`. Otherwise microvm",
    values: &[
        ("microvm", "Virtio over memory-mapped registers and nothing else: the quickest to boot"),
        ("q35", "A PC with PCI and ACPI"),
    ],
    default: None,
};

/// How it runs the CPUs.
pub(super) const ACCEL: Offer = Offer {
    name: "accel",
    help: "How QEMU runs the CPUs",
    values: &[
        ("auto", "KVM where it proves itself, else translation"),
        ("kvm", "KVM or nothing"),
        ("tcg", "Translation"),
    ],
    default: Some("auto"),
};

/// Refuses an option that is not among a backend's own.
pub(super) fn check(backend: &str, offers: &[Offer], chosen: &Chosen) -> Result<()> {
    match chosen.beyond(offers) {
        None => Ok(()),
        Some(name) => Err(Error::operator(format!("the backend {backend} has no option --{name}"))
            .hint(format!("leave out --{name}, or take another --backend"))),
    }
}

/// The machine that was chosen.
pub(super) fn machine(chosen: &Chosen) -> Result<MachineType> {
    match chosen.get(MACHINE.name) {
        None | Some("microvm") => Ok(MachineType::Microvm),
        Some("q35") => Ok(MachineType::Q35),
        Some(other) => Err(no_value(MACHINE, other)),
    }
}

/// How the CPUs are to run.
pub(super) fn accel(chosen: &Chosen) -> Result<AccelChoice> {
    match chosen.get(ACCEL.name) {
        None | Some("auto") => Ok(AccelChoice::Auto),
        Some("kvm") => Ok(AccelChoice::Kvm),
        Some("tcg") => Ok(AccelChoice::Tcg),
        Some(other) => Err(no_value(ACCEL, other)),
    }
}

fn no_value(offer: Offer, value: &str) -> Error {
    let values: Vec<&str> = offer.values.iter().map(|(value, _)| *value).collect();
    Error::operator(format!("{value} is no value of --{}", offer.name))
        .hint(format!("its values: {}", values.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_that_is_offered_is_read() {
        let of = |offer: Offer, value: &str| {
            let mut chosen = Chosen::default();
            chosen.set(offer.name, value);
            chosen
        };
        for (value, _) in MACHINE.values {
            assert!(machine(&of(MACHINE, value)).is_ok(), "{value}");
        }
        for (value, _) in ACCEL.values {
            assert!(accel(&of(ACCEL, value)).is_ok(), "{value}");
        }
    }
}
