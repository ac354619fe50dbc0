//! The command line options of QEMU's backends.
//!
//! Invariant: values parsed here need no further check.

use crate::backends::options::{Chosen, Offer};
use crate::error::{Error, Result};

use super::accel::AccelChoice;
use super::argv::MachineType;

/// The machine type.
pub(super) const MACHINE: Offer = Offer {
    name: "machine",
    help: "The machine type on the backend `qemu`. Default: microvm",
    values: &[
        ("microvm", "Virtio over MMIO and nothing else: boots fastest"),
        ("q35", "A PC with PCI and ACPI"),
    ],
    default: None,
};

/// How QEMU runs the CPUs.
pub(super) const ACCEL: Offer = Offer {
    name: "accel",
    help: "How QEMU runs the CPUs",
    values: &[
        ("auto", "KVM if a trial boot shows that it works, else TCG"),
        ("kvm", "KVM; fails if it does not work"),
        ("tcg", "TCG (emulation in software)"),
    ],
    default: Some("auto"),
};

/// Refuses an option that the backend does not have.
pub(super) fn check(backend: &str, offers: &[Offer], chosen: &Chosen) -> Result<()> {
    match chosen.beyond(offers) {
        None => Ok(()),
        Some(name) => Err(Error::operator(format!("the backend {backend} has no option --{name}"))
            .hint(format!("omit --{name}, or use another --backend"))),
    }
}

/// The requested machine type.
pub(super) fn machine(chosen: &Chosen) -> Result<MachineType> {
    match chosen.get(MACHINE.name) {
        None | Some("microvm") => Ok(MachineType::Microvm),
        Some("q35") => Ok(MachineType::Q35),
        Some(other) => Err(no_value(MACHINE, other)),
    }
}

/// How the CPUs are to be run.
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
    Error::operator(format!("invalid value {value} for --{}", offer.name))
        .hint(format!("possible values: {}", values.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offered_value_is_accepted() {
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
