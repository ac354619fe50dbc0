//! Handshakes with a server of rustls whose certificate carries evidence of a development module that exists in tests only, or of
//! hardware under test roots.

mod accepted;
mod changed;
mod fresh;
mod hardware;
mod pair;
mod platforms;
mod refused;
mod signer;

use pair::{Presented, handshake};
use signer::{Carrier, Draft};

use super::*;

/// What the tests require: an enclave of the draft's image, under the draft's root.
fn requirements() -> Requirements {
    let draft = Draft::default();
    let registers = [0, 1, 2, 8].map(|register| (register, draft.register(register)));
    Requirements {
        roots: Roots::default().with_development(signer::root()),
        allow_virtual: true,
        ..Requirements::of(vec![Reference::new("app", registers.into()).unwrap()])
    }
}

/// The refusal of a client that requires this, by a server that presents this.
fn refusal(requirements: Requirements, presented: &Presented) -> Refusal {
    let error = handshake(config(Verifier::of_evidence(requirements)).unwrap(), presented).unwrap_err();
    Refusal::in_error(&error).unwrap_or_else(|| panic!("{error}")).clone()
}
