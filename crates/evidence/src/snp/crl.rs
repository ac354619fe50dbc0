//! AMD's list of revoked certificates: signed by the root key, it lists signing keys (ASK and ASVK).
//!
//! Invariant: a list counts only if the chain's root signed it and the time lies between its dates. It cannot list single chips: all
//! VCEK certificates have the serial number 0, so a chip is excluded by its TCB version or its identifier instead.
//!
//! Source: AMD 57230, section 4; RFC 5280, section 5.

use alloc::format;
use alloc::string::String;

use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::Extension;

use super::certificate::{check_pss, signed_part};
use super::chain::{Chain, check_dates};
use crate::bytes::{Text, date};
use crate::hex;

/// The longest list that is read, in bytes. Those of AMD have fewer than 1,000.
const MAX_LIST: usize = 65_536;

const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const AUTHORITY_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// Checks that no certificate of the chain is on the list. Returns a description of the list.
pub(crate) fn check(list: &[u8], chain: &Chain<'_>, now: u64) -> Result<String, Text> {
    if list.len() > MAX_LIST {
        return Err(format!("{} bytes, more than the limit of {MAX_LIST}", list.len()).into());
    }
    let malformed = |error: x509_cert::der::Error| Text::from(format!("malformed revocation list: {error}"));
    let content = CertificateList::<Rfc5280>::from_der(list).map_err(malformed)?;
    let signed = signed_part(list).map_err(malformed)?;
    let fields = &content.tbs_cert_list;
    if fields.issuer != *chain.root.subject() {
        return Err("the revocation list was not issued by the chain's root".into());
    }
    if fields.signature != content.signature_algorithm {
        return Err("the two signature algorithms of the revocation list differ".into());
    }
    let signature = content.signature.as_bytes().ok_or("the signature is not a number of whole bytes")?;
    check_pss(chain.root.key(), &content.signature_algorithm, signed, signature)
        .map_err(|error| format!("revocation list: {error}"))?;
    let from = fields.this_update.to_unix_duration().as_secs();
    let until = fields.next_update.ok_or("the revocation list has no date of its next update")?;
    check_dates("revocation list", from, until.to_unix_duration().as_secs(), now)?;
    check_extensions(fields.crl_extensions.as_deref())?;
    for entry in fields.revoked_certificates.iter().flatten() {
        check_extensions(entry.crl_entry_extensions.as_deref())?;
        // The root issues its own certificate and that of the signing key.
        for (name, certificate) in [("ASK", &chain.intermediate), ("ARK", &chain.root)] {
            if certificate.serial() == entry.serial_number.as_bytes() {
                let serial = hex::text(certificate.serial());
                let since = date(entry.revocation_date.to_unix_duration().as_secs());
                return Err(format!("{name}: revoked since {since} (serial number {serial})").into());
            }
        }
    }
    Ok(format!("revocation list of {}", date(from)))
}

/// An extension that is critical could change what the list means.
fn check_extensions(extensions: Option<&[Extension]>) -> Result<(), Text> {
    let known = [CRL_NUMBER, AUTHORITY_KEY];
    match extensions
        .unwrap_or_default()
        .iter()
        .find(|found| found.critical && !known.contains(&found.extn_id))
    {
        Some(found) => {
            Err(format!("critical extension {} of the revocation list is not supported", found.extn_id)
                .into())
        }
        None => Ok(()),
    }
}
