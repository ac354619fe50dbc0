//! Attestation evidence, event logs, and the measurements that a verifier compares with.

use cloister_evidence::binding::certificate::{Carried, EVIDENCE_LIMIT};
use cloister_evidence::eventlog::{BOOT_REGISTER, EVENT_REGISTER, EVENTS_LIMIT, FILE_REGISTER, Log};
use cloister_evidence::nitro::{
    self, Binding, Events, Expectation, Freshness, Measurements, Nonce, Platform, Roots,
};
use cloister_evidence::policy::{IMAGE_REGISTERS, Reference};
use cloister_evidence::{Outcome, Verdict};

/// A second of the validity of the first recorded document.
const NOW: u64 = 1_736_179_630;

/// A document. A verdict lists every check, and is safe to print; only AWS's key makes one pass, and nothing verifies
/// as `virtual`.
pub fn nitro(data: &[u8]) {
    let expectation = Expectation {
        allow_virtual: true,
        freshness: Freshness { max_age: 3 * 3600, max_ahead: 3 * 3600 },
        nonce: Nonce::Unchecked,
        binding: Binding::Unchecked,
        measurements: Measurements::Unchecked,
        events: Events::Unchecked,
    };
    match nitro::verify(data, &Roots::aws(), NOW, &expectation) {
        Ok(verified) => {
            let document = verified.value();
            assert_eq!(document.platform, Platform::Nitro);
            assert!(document.module_id.starts_with("i-"), "{}", document.module_id);
            assert!(document.registers.keys().all(|register| *register < 32));
            complete(verified.verdict());
            assert!(verified.verdict().accepted());
        }
        Err(verdict) => {
            complete(&verdict);
            assert!(!verdict.accepted() && verdict.failure().is_some());
        }
    }
}

fn complete(verdict: &Verdict) {
    assert!(verdict.checks.iter().map(|check| check.name).eq(nitro::TABLE), "{verdict}");
    assert!(verdict.to_string().chars().all(|letter| letter == '\n' || !letter.is_control()));
    for check in &verdict.checks {
        let (Outcome::Pass(text) | Outcome::Fail(text) | Outcome::NotApplicable(text)) = &check.outcome;
        assert!(!text.contains("internal error"), "{verdict}");
    }
}

/// An event log. What was read is written with the same bytes, and its replay does not depend on how it was read.
pub fn log(data: &[u8]) {
    let Ok(log) = Log::parse(data) else { return };
    assert_eq!(log.encode(), data);
    assert!(log.events().len() <= EVENTS_LIMIT);
    let again = Log::parse(&log.encode()).expect("a log that was written can be read");
    assert_eq!((log.head(), log.rtmr3()), (again.head(), again.rtmr3()));
    for register in [BOOT_REGISTER, EVENT_REGISTER, FILE_REGISTER] {
        let unused = log.events().iter().all(|event| event.register() != register);
        assert_eq!(log.nitro_register(register) == [0; 48], unused);
    }
}

/// A measurements document. A reference has exactly the registers that were chosen, and matches itself.
pub fn measurements(data: &[u8]) {
    for read in [Reference::nitro, Reference::development] {
        let Ok(reference) = read("image", data, &IMAGE_REGISTERS) else { continue };
        assert!(reference.registers().keys().copied().eq(IMAGE_REGISTERS));
        assert!(reference.registers().values().all(|value| value.len() == 48));
        assert!(reference.compare(reference.registers()).is_empty());
        // The same document has each of its registers. One of zeros alone is refused.
        let is_zero = reference.registers().get(&2).is_some_and(|value| value.iter().all(|byte| *byte == 0));
        match read("image", data, &[2]) {
            Ok(some) => assert_eq!(some.registers().len(), 1),
            Err(error) => assert!(is_zero, "{error}"),
        }
    }
}

/// The extension of a certificate that carries evidence: it has one encoding.
pub fn certificate(data: &[u8]) {
    let Ok(carried) = Carried::decode(data) else { return };
    assert!(carried.evidence.len() <= EVIDENCE_LIMIT && !carried.platform.is_empty());
    assert_eq!(carried.encode().as_deref(), Ok(data));
}
