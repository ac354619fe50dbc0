//! What the caller requires of an authentic document.
//!
//! Invariant: every check here is made, whether or not another one failed, so that a verdict lists all that is wrong.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::cbor::Refusal;
use super::document::Document;
use super::expectation::{Binding, Events, Expectation, Freshness, Measurements, Nonce};
use crate::binding::{self, Bound, NONCE_MAX, NONCE_MIN};
use crate::eventlog::{BOOT_REGISTER, EVENT_REGISTER, FILE_REGISTER, Log};
use crate::hex;
use crate::policy::{self, Reference};
use crate::verdict::{Checklist, Outcome};

/// The registers that AWS Nitro fills from the image, and that are zeros in debug mode.
const MEASURED: [u16; 3] = [0, 1, 2];

/// The last register of those that the enclave may extend, which [`BOOT_REGISTER`] begins.
const LAST_REGISTER: u16 = 31;

/// Makes all checks.
pub(super) fn all(checks: &mut Checklist, document: &Document, now: u64, expectation: &Expectation<'_>) {
    checks.check("debug", debug(document), |()| "PCR0, PCR1 and PCR2 are set".into());
    checks
        .check("freshness", freshness(document, now, expectation.freshness), |text| Cow::Owned(text.clone()));
    match expectation.nonce {
        Nonce::Equals(nonce) => {
            checks.check(
                "nonce",
                equals("nonce", document.nonce.as_deref(), Some(nonce)).and(long_enough(nonce)),
                |()| "as required".into(),
            );
        }
        Nonce::Unchecked => not_required(checks, "nonce"),
    }
    match expectation.binding {
        Binding::Unchecked => not_required(checks, "binding"),
        Binding::Raw { public_key, user_data } => {
            checks.check("binding", raw(document, public_key, user_data), |()| {
                "the fields are as required".into()
            });
        }
        Binding::Bound { public_key, user_data } => {
            checks.check("binding", bound(document, expectation, public_key, user_data), |()| {
                "binds nonce, public key, event log and user data".into()
            });
        }
    }
    match expectation.measurements {
        Measurements::Unchecked => not_required(checks, "measurements"),
        Measurements::AnyOf(accepted) => {
            checks
                .check("measurements", policy::accept(accepted, &document.registers), |found| matched(found));
        }
    }
    match expectation.events {
        Events::Unchecked => not_required(checks, "events"),
        Events::Log(log) => {
            let is_bound = matches!(expectation.binding, Binding::Bound { .. });
            checks.check("events", events(document, log, is_bound), |()| confirmed(document, log, is_bound));
        }
    }
}

fn not_required(checks: &mut Checklist, name: &'static str) {
    checks.record(name, Outcome::NotApplicable("the caller does not require it".into()));
}

/// A register that measures a part of the image is never zero, unless the enclave is in debug mode.
fn debug(document: &Document) -> Result<(), Refusal> {
    for register in MEASURED {
        let value = document.registers.get(&register).ok_or_else(|| format!("PCR{register} is missing"))?;
        if value.iter().all(|byte| *byte == 0) {
            return Err(format!("debug mode: PCR{register} is all zeros").into());
        }
    }
    Ok(())
}

fn freshness(document: &Document, now: u64, allowed: Freshness) -> Result<String, String> {
    let (created, now) = (u128::from(document.timestamp), u128::from(now) * 1000);
    let (age, ahead) = (now.saturating_sub(created), created.saturating_sub(now));
    if age > u128::from(allowed.max_age) * 1000 {
        return Err(format!("{age} ms old, the limit is {} s", allowed.max_age));
    }
    if ahead > u128::from(allowed.max_ahead) * 1000 {
        return Err(format!("{ahead} ms in the future, the limit is {} s", allowed.max_ahead));
    }
    Ok(if ahead > 0 { format!("{ahead} ms in the future") } else { format!("{age} ms old") })
}

fn long_enough(nonce: &[u8]) -> Result<(), Refusal> {
    if (NONCE_MIN..=NONCE_MAX).contains(&nonce.len()) {
        return Ok(());
    }
    let length = nonce.len();
    Err(format!("the required nonce has {length} bytes, the limits are {NONCE_MIN} and {NONCE_MAX}").into())
}

fn equals(field: &str, found: Option<&[u8]>, expected: Option<&[u8]>) -> Result<(), Refusal> {
    if found == expected {
        return Ok(());
    }
    let text = |value: Option<&[u8]>| value.map_or_else(|| "none".into(), hex::text);
    Err(format!("{field} is {}, expected {}", text(found), text(expected)).into())
}

fn raw(document: &Document, public_key: Option<&[u8]>, user_data: Option<&[u8]>) -> Result<(), Refusal> {
    if binding::is_reserved(user_data.unwrap_or_default()) {
        return Err("the required user data is Cloister's binding, whose parts must be checked".into());
    }
    equals("public_key", document.public_key.as_deref(), public_key)?;
    equals("user_data", document.user_data.as_deref(), user_data)
}

/// The fields of the document carry nonce and key as clients of AWS Nitro expect them; `user_data` binds all.
fn bound(
    document: &Document,
    expectation: &Expectation<'_>,
    public_key: &[u8],
    user_data: &[u8],
) -> Result<(), Refusal> {
    let Nonce::Equals(nonce) = expectation.nonce else {
        return Err("the binding contains a nonce, and the caller requires none".into());
    };
    let Events::Log(log) = expectation.events else {
        return Err("the binding contains the event log, and the caller has passed none".into());
    };
    let bound = Bound { nonce, public_key, events: &log.head(), user_data };
    let report_data = bound.report_data().map_err(|error| format!("{error}"))?;
    equals("public_key", document.public_key.as_deref(), Some(public_key).filter(|key| !key.is_empty()))?;
    let found = document.user_data.as_deref();
    if !binding::is_reserved(found.unwrap_or_default()) {
        return Err("user_data is not Cloister's binding".into());
    }
    if found != Some(&report_data) {
        let (found, expected) = (hex::text(found.unwrap_or_default()), hex::text(&report_data));
        return Err(format!("user_data binds other values: {found}, expected {expected}").into());
    }
    Ok(())
}

fn matched(reference: &Reference) -> Cow<'static, str> {
    let registers: alloc::vec::Vec<String> =
        reference.registers().keys().map(|register| format!("PCR{register}")).collect();
    format!("`{}`: {}", reference.name(), registers.join(", ")).into()
}

/// A document contains locked registers only. One that is not locked yet, and for which there are events, needs the
/// binding, which contains the whole log.
fn events(document: &Document, log: &Log, is_bound: bool) -> Result<(), Refusal> {
    if !log.begins_with_the_boot() {
        return Err("the log does not begin with the end of the boot".into());
    }
    if !document.registers.contains_key(&BOOT_REGISTER) {
        return Err("PCR16 is missing: the boot was not complete".into());
    }
    for register in BOOT_REGISTER..=LAST_REGISTER {
        let expected = log.nitro_register(register);
        match document.registers.get(&register) {
            Some(found) if found.as_slice() == expected => {}
            Some(found) => {
                let (found, expected) = (hex::text(found), hex::text(&expected));
                let covers = policy::covers(register);
                return Err(format!("PCR{register} is {found}, the log gives {expected}; it {covers}").into());
            }
            None if is_bound || expected == [0; 48] => {}
            None => return Err(unconfirmed(register)),
        }
    }
    Ok(())
}

/// What a log that passed is confirmed by. A register that is not locked is not in the document, and without the binding nothing shows
/// whether the log lacks events of it.
fn confirmed(document: &Document, log: &Log, is_bound: bool) -> Cow<'static, str> {
    let count = log.events().len();
    let missing = [EVENT_REGISTER, FILE_REGISTER].into_iter();
    let missing: Vec<String> = missing
        .filter(|register| !document.registers.contains_key(register))
        .map(|register| format!("PCR{register}"))
        .collect();
    if is_bound {
        format!("{count} events, as the registers have them; `binding` decides whether these are all").into()
    } else if missing.is_empty() {
        format!("{count} events, as the registers have them").into()
    } else {
        let missing = missing.join(", ");
        format!("{count} events, as the registers have them; the document lacks {missing}, whose events may be missing").into()
    }
}

fn unconfirmed(register: u16) -> Refusal {
    format!("the log has events for PCR{register}, which the document lacks: only the binding confirms them")
        .into()
}
