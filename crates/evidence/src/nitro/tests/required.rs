//! What a caller requires of an authentic document: freshness, nonce, binding, measurements, events, platform.

use alloc::vec;

use super::signer::{Draft, FROM, NOW};
use super::*;
use crate::binding::Bound;
use crate::eventlog::{BOOT_REGISTER, EVENT_REGISTER, Event, FILE_REGISTER, Log};
use crate::policy::{Reference, Registers};
use crate::{Outcome, binding};

const NONCE: &[u8] = b"a nonce of 24 bytes long";
const KEY: &[u8] = b"the SubjectPublicKeyInfo of a TLS key";

fn log() -> Log {
    let mut log = Log::booted();
    log.push(Event::new(EVENT_REGISTER, "config", b"a value").unwrap()).unwrap();
    log.push(Event::new(FILE_REGISTER, "file", b"its digest").unwrap()).unwrap();
    log
}

/// A document as a booted Cloister enclave requests it, with PCR16 and PCR17 locked.
fn bound(log: &Log) -> Draft {
    let report_data =
        Bound { nonce: NONCE, public_key: KEY, events: &log.head(), user_data: b"hello" }.report_data();
    let mut draft = Draft::nitro();
    draft.nonce = Some(NONCE.into());
    draft.public_key = Some(KEY.into());
    draft.user_data = Some(report_data.unwrap().into());
    draft.set(BOOT_REGISTER, &log.nitro_register(BOOT_REGISTER));
    draft.set(EVENT_REGISTER, &log.nitro_register(EVENT_REGISTER));
    draft
}

fn reference(registers: &[u16]) -> Reference {
    let value = |register: &u16| (*register, vec![u8::try_from(*register).unwrap() + 1; 48]);
    let zero = |register: &u16| (*register, vec![0; 48]);
    let registers: Registers = registers
        .iter()
        .map(|register| if *register < 5 { value(register) } else { zero(register) })
        .collect();
    Reference::new("app 1.0", registers).unwrap()
}

/// Everything that can be required.
fn everything<'a>(log: &'a Log, accepted: &'a [Reference]) -> Expectation<'a> {
    Expectation {
        allow_virtual: false,
        freshness: Freshness::default(),
        nonce: Nonce::Equals(NONCE),
        binding: Binding::Bound { public_key: KEY, user_data: b"hello" },
        measurements: Measurements::AnyOf(accepted),
        events: Events::Log(log),
    }
}

fn nitro(draft: &Draft, expectation: &Expectation<'_>) -> Result<Verified<Document>, Verdict> {
    verify(&draft.sign(), &Roots::aws().with_nitro(draft.root()), NOW, expectation)
}

#[test]
fn a_document_that_meets_every_requirement_passes_every_check() {
    let (log, accepted) = (log(), [reference(&[0, 1, 2, 8])]);
    let verified = nitro(&bound(&log), &everything(&log, &accepted)).unwrap();
    let verdict = verified.verdict();
    assert_eq!(verdict.platform, "nitro");
    assert!(verdict.checks.iter().all(|check| matches!(check.outcome, Outcome::Pass(_))), "{verdict}");
    assert!(verdict.checks.iter().map(|check| check.name).eq(TABLE));
    assert_eq!(verified.value().nonce.as_deref(), Some(NONCE));
}

#[test]
fn what_is_not_required_is_listed_as_not_checked() {
    let verified = nitro(&Draft::nitro(), &DOCUMENT_ONLY).unwrap();
    let outcomes = &verified.verdict().checks;
    let not_checked: Vec<&str> = outcomes
        .iter()
        .filter(|check| matches!(check.outcome, Outcome::NotApplicable(_)))
        .map(|check| check.name)
        .collect();
    assert_eq!(not_checked, ["nonce", "binding", "measurements", "events"]);
}

#[test]
fn all_unmet_requirements_are_reported_together() {
    let (log, accepted) = (log(), [reference(&[0, 5])]);
    let mut draft = Draft::nitro();
    draft.timestamp = (NOW - 61) * 1000;
    draft.set(0, &[9; 48]);
    let failed = failures(nitro(&draft, &everything(&log, &accepted)));
    assert_eq!(failed, ["freshness", "nonce", "binding", "measurements", "events"]);
}

#[test]
fn a_document_is_fresh_within_the_allowed_seconds_only() {
    let at = |timestamp: u64| {
        let draft = Draft { timestamp, ..Draft::nitro() };
        let expectation = Expectation { freshness: Freshness { max_age: 60, max_ahead: 5 }, ..DOCUMENT_ONLY };
        failures(nitro(&draft, &expectation))
    };
    assert_eq!((at(NOW * 1000), at((NOW - 60) * 1000), at((NOW + 5) * 1000)), (vec![], vec![], vec![]));
    assert_eq!((at((NOW - 60) * 1000 - 1), at((NOW + 5) * 1000 + 1)), (vec!["freshness"], vec!["freshness"]));
    assert_eq!(at(u64::MAX), ["freshness"]);
    // Microseconds in the place of milliseconds.
    assert_eq!(at(NOW * 1_000_000), ["freshness"]);
}

#[test]
fn another_nonce_a_missing_one_and_a_short_one_are_refused() {
    let require = |found: Option<&[u8]>, nonce: &[u8]| {
        let draft = Draft { nonce: found.map(Vec::from), ..Draft::nitro() };
        failures(nitro(&draft, &Expectation { nonce: Nonce::Equals(nonce), ..DOCUMENT_ONLY }))
    };
    assert_eq!(require(Some(NONCE), NONCE), [""; 0]);
    assert_eq!(require(Some(&NONCE[1..]), NONCE), ["nonce"]);
    assert_eq!(require(Some(b""), NONCE), ["nonce"]);
    assert_eq!(require(None, NONCE), ["nonce"]);
    // A nonce that is required, but does not prevent a replay.
    assert_eq!(require(Some(&NONCE[..15]), &NONCE[..15]), ["nonce"]);
    assert_eq!(require(Some(b""), b""), ["nonce"]);
    assert_eq!(require(Some(&[1; 65]), &[1; 65]), ["nonce"]);
}

#[test]
fn a_binding_of_other_values_is_refused() {
    let (log, other) = (log(), Log::booted());
    let draft = bound(&log);
    let require = |nonce, public_key, user_data, events| {
        let expectation = Expectation {
            nonce: Nonce::Equals(nonce),
            binding: Binding::Bound { public_key, user_data },
            events: Events::Log(events),
            ..DOCUMENT_ONLY
        };
        failures(nitro(&draft, &expectation))
    };
    assert_eq!(require(NONCE, KEY, b"hello", &log), [""; 0]);
    assert_eq!(require(b"another nonce of 24 byte", KEY, b"hello", &log), ["nonce", "binding"]);
    assert_eq!(require(NONCE, b"another key", b"hello", &log), ["binding"]);
    assert_eq!(require(NONCE, b"", b"hello", &log), ["binding"]);
    assert_eq!(require(NONCE, KEY, b"hellp", &log), ["binding"]);
    assert_eq!(require(NONCE, KEY, b"hello", &other), ["binding", "events"]);
}

#[test]
fn a_binding_cannot_be_checked_without_a_nonce_or_a_log() {
    let log = log();
    let binding = Binding::Bound { public_key: KEY, user_data: b"hello" };
    let without_nonce = Expectation { binding, events: Events::Log(&log), ..DOCUMENT_ONLY };
    assert_eq!(failures(nitro(&bound(&log), &without_nonce)), ["binding"]);
    let without_log = Expectation { binding, nonce: Nonce::Equals(NONCE), ..DOCUMENT_ONLY };
    assert_eq!(failures(nitro(&bound(&log), &without_log)), ["binding"]);
}

#[test]
fn fields_that_a_program_has_chosen_do_not_pass_as_a_binding() {
    let log = log();
    let mut draft = bound(&log);
    draft.user_data = Some(draft.user_data.unwrap()[16..].to_vec());
    let expectation = Expectation {
        nonce: Nonce::Equals(NONCE),
        binding: Binding::Bound { public_key: KEY, user_data: b"hello" },
        events: Events::Log(&log),
        ..DOCUMENT_ONLY
    };
    assert_eq!(failure(nitro(&draft, &expectation)), "binding: user_data is not Cloister's binding");
}

#[test]
fn raw_fields_are_compared_as_they_are() {
    let draft = Draft { public_key: Some(b"key".into()), user_data: Some(b"data".into()), ..Draft::nitro() };
    let require = |draft: &Draft, public_key: Option<&[u8]>, user_data: Option<&[u8]>| {
        let binding = Binding::Raw { public_key, user_data };
        failures(nitro(draft, &Expectation { binding, ..DOCUMENT_ONLY }))
    };
    assert_eq!(require(&draft, Some(b"key"), Some(b"data")), [""; 0]);
    assert_eq!(require(&draft, Some(b"kex"), Some(b"data")), ["binding"]);
    assert_eq!(require(&draft, Some(b"key"), None), ["binding"]);
    assert_eq!(require(&draft, None, Some(b"data")), ["binding"]);
    assert_eq!(require(&Draft::nitro(), None, None), [""; 0]);
    // Empty is not missing.
    assert_eq!(require(&Draft::nitro(), None, Some(b"")), ["binding"]);
    let reserved = Draft { user_data: Some(binding::MAGIC.into()), ..Draft::nitro() };
    assert_eq!(require(&reserved, None, Some(&binding::MAGIC)), ["binding"]);
}

#[test]
fn a_mismatch_names_the_register_and_what_it_covers() {
    let accepted = [reference(&[0, 1, 2, 8])];
    let mut draft = Draft::nitro();
    draft.set(2, &[7; 48]);
    let required = Expectation { measurements: Measurements::AnyOf(&accepted), ..DOCUMENT_ONLY };
    let failure = failure(nitro(&draft, &required));
    let (found, expected) = ("07".repeat(48), "03".repeat(48));
    let covers = "it covers ramdisk 2, and changes with the application or its manifest";
    assert_eq!(
        failure,
        format!("measurements: not `app 1.0`: PCR2 is {found}, expected {expected}; {covers}")
    );
    let none = Expectation { measurements: Measurements::AnyOf(&[]), ..DOCUMENT_ONLY };
    assert_eq!(failures(nitro(&draft, &none)), ["measurements"]);
}

#[test]
fn registers_that_do_not_follow_from_the_log_are_refused() {
    let log = log();
    let require = |draft: &Draft, log: &Log| {
        failure(nitro(draft, &Expectation { events: Events::Log(log), ..DOCUMENT_ONLY }))
    };
    let mut missing = bound(&log);
    missing.registers.retain(|(register, _)| *register != BOOT_REGISTER);
    assert_eq!(require(&missing, &log), "events: PCR16 is missing: the boot was not complete");
    let mut zeros = bound(&log);
    zeros.set(BOOT_REGISTER, &[0; 48]);
    assert!(require(&zeros, &log).starts_with("events: PCR16 is 0000"));
    let mut more = bound(&log);
    more.set(FILE_REGISTER, &log.nitro_register(FILE_REGISTER));
    more.set(20, &[1; 48]);
    assert!(require(&more, &log).starts_with("events: PCR20 is 0101"));
    let mut other = bound(&log);
    other.set(EVENT_REGISTER, &[1; 48]);
    assert!(require(&other, &log).starts_with("events: PCR17 is 0101"));
    assert_eq!(
        require(&bound(&log), &Log::default()),
        "events: the log does not begin with the end of the boot"
    );
}

#[test]
fn events_in_a_register_that_is_not_locked_need_the_binding() {
    let log = log();
    // PCR18 has an event, and is not in the document.
    let without_binding = Expectation { events: Events::Log(&log), ..DOCUMENT_ONLY };
    let failure = failure(nitro(&bound(&log), &without_binding));
    assert!(
        failure.starts_with("events: the log has events for PCR18, which the document lacks"),
        "{failure}"
    );
    let mut locked = bound(&log);
    locked.set(FILE_REGISTER, &log.nitro_register(FILE_REGISTER));
    assert_eq!(failures(nitro(&locked, &without_binding)), [""; 0]);
}

/// A host may pass a log without the events of a register that is not locked.
#[test]
fn a_verdict_states_which_events_the_log_may_lack() {
    let (log, booted) = (log(), Log::booted());
    let text = |draft: &Draft, log: &Log, binding: Binding<'_>, nonce: Nonce<'_>| {
        let expectation = Expectation { events: Events::Log(log), binding, nonce, ..DOCUMENT_ONLY };
        let verdict = nitro(draft, &expectation).unwrap().verdict().clone();
        let events = verdict.checks.iter().find(|check| check.name == "events").unwrap();
        let crate::Outcome::Pass(text) = &events.outcome else { panic!("{verdict}") };
        alloc::string::String::from(text.clone())
    };
    let mut draft = bound(&log);
    draft.registers.retain(|(register, _)| *register <= BOOT_REGISTER);
    assert_eq!(
        text(&draft, &booted, Binding::Unchecked, Nonce::Unchecked),
        "1 events, as the registers have them; the document lacks PCR17, PCR18, whose events may be missing"
    );
    for register in [EVENT_REGISTER, FILE_REGISTER] {
        draft.set(register, &log.nitro_register(register));
    }
    let count = log.events().len();
    assert_eq!(
        text(&draft, &log, Binding::Unchecked, Nonce::Unchecked),
        format!("{count} events, as the registers have them")
    );
    let Expectation { binding, nonce, .. } = everything(&log, &[]);
    assert_eq!(
        text(&draft, &log, binding, nonce),
        format!("{count} events, as the registers have them; `binding` decides whether these are all")
    );
}

#[test]
fn a_virtual_document_needs_both_its_root_and_the_callers_permission() {
    let draft = Draft::virtual_platform();
    let development = Roots::aws().with_development(draft.root());
    let check = |roots: &Roots, allow_virtual: bool| {
        let result = verify(&draft.sign(), roots, NOW, &Expectation { allow_virtual, ..DOCUMENT_ONLY });
        let platform = match &result {
            Ok(verified) => verified.verdict().platform,
            Err(verdict) => verdict.platform,
        };
        assert_eq!(platform, "virtual");
        failures(result)
    };
    assert_eq!(check(&development, true), [""; 0]);
    assert_eq!(check(&development, false), ["platform"]);
    assert_eq!(check(&Roots::aws(), true), ["root"]);
    // A root of AWS Nitro does not vouch for a virtual document.
    assert_eq!(check(&Roots::aws().with_nitro(draft.root()), true), ["root"]);
}

#[test]
fn a_development_root_does_not_vouch_for_a_nitro_document() {
    let draft = Draft::nitro();
    let development = Roots::aws().with_development(draft.root());
    let expectation = Expectation { allow_virtual: true, ..DOCUMENT_ONLY };
    let verdict = verify(&draft.sign(), &development, NOW, &expectation).unwrap_err();
    assert_eq!(verdict.platform, "nitro");
    assert_eq!(failures(Err(verdict)), ["root"]);
}

#[test]
fn a_verdict_shows_the_platform_and_every_check_in_order() {
    let draft = Draft::virtual_platform();
    let roots = Roots::default().with_development(draft.root());
    let required = Expectation { allow_virtual: true, ..DOCUMENT_ONLY };
    let verified = verify(&draft.sign(), &roots, FROM + 60, &required).unwrap();
    let text = format!("{}", verified.verdict());
    assert!(text.contains("pass  platform      virtual: no hardware protects this enclave"), "{text}");
    assert_eq!(text.lines().count(), TABLE.len());
}
