//! Changed certificates never verify as those of another enclave.

/// Changes, and the property: the same as for evidence without a certificate.
#[path = "../../../evidence/src/tests/changes.rs"]
mod changes;

use changes::{failed, never_verifies_as_another};

use super::signer::NOW;
use super::*;
use crate::certificate::Parts;

/// In the gate; `CLOISTER_EVIDENCE_CASES` raises it.
const CASES: u32 = 96;

/// The certificate's own signature, names and dates prove nothing, and may change. The handshake proves that the other end has the key.
#[test]
fn a_changed_certificate_never_verifies_as_another() {
    let (requirements, presented) = (requirements(), Presented::of(&Draft::default()));
    never_verifies_as_another("certificate", CASES, &presented.certificate, |certificate| {
        let statement = requirements
            .certificate(certificate, NOW)
            .map_err(|refusal| refusal.verdict().map_or("certificate".to_owned(), failed))?;
        let parts = Parts::read(certificate).unwrap();
        let evidence = (statement.document().unwrap().clone(), parts.carried().unwrap());
        Ok((evidence, parts.serial().unwrap().to_vec(), parts.public_key))
    });
}
