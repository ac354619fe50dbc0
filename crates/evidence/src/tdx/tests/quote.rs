//! The form of quotes.

use alloc::vec::Vec;

use super::super::{MAX_QUOTE, Quote, QuoteError};
use super::{Case, RECORDED, recorded};
use crate::hex;

fn error(bytes: &[u8]) -> QuoteError {
    Quote::parse(bytes).unwrap_err()
}

#[test]
fn the_fields_of_a_recorded_quote_are_at_their_places() {
    let bytes = recorded("td10.quote");
    let quote = Quote::parse(&bytes).unwrap();
    assert_eq!((quote.version, quote.padding, quote.bytes.len()), (4, 70, 4936));
    let report = &quote.report;
    assert_eq!(report.attributes.0, 0x1000_0000);
    assert_eq!(report.xfam, 0x602e7);
    assert_eq!(hex::text(&report.tee_tcb_svn), "06010300000000000000000000000000");
    assert_eq!(report.mr_td, bytes[184..232]);
    assert_eq!(
        (report.mr_config_id.as_slice(), report.mr_owner.as_slice()),
        (&bytes[232..280], &bytes[280..328])
    );
    assert_eq!((report.rtmr[0].as_slice(), report.rtmr[3].as_slice()), (&bytes[376..424], &bytes[520..568]));
    assert_eq!(report.report_data, bytes[568..632]);
    assert!(quote.certificates.starts_with(b"-----BEGIN CERTIFICATE-----"));
    let quote = recorded("td15ex.quote");
    assert_eq!(Quote::parse(&quote).unwrap().version, 5);
}

#[test]
fn a_quote_that_is_cut_anywhere_is_refused() {
    for name in ["td10.quote", "td15ex.quote", "td15-outdated.quote"] {
        let quote = recorded(name);
        let quote = &quote[..quote.len() - Quote::parse(&quote).unwrap().padding];
        for len in 0..quote.len() {
            assert!(Quote::parse(&quote[..len]).is_err(), "{name}: {len}");
        }
        assert!(Quote::parse(quote).is_ok());
    }
}

#[test]
fn only_zeros_may_follow_a_quote() {
    let mut case = Case::recorded("td10", RECORDED);
    case.quote.extend([0; 3000]);
    case.accept();
    let last = case.quote.len() - 1;
    for offset in [4936, 5000, last] {
        let mut case = case.clone();
        case.quote[offset] = 1;
        case.refuse("quote", "the 3070 bytes after the quote are not zero");
    }
    case.quote.truncate(4936);
    case.accept();
}

#[test]
fn an_overlong_quote_is_refused() {
    let mut quote = recorded("td10.quote");
    quote.resize(MAX_QUOTE, 0);
    assert!(Quote::parse(&quote).is_ok());
    quote.push(0);
    assert_eq!(error(&quote), QuoteError::TooLong(MAX_QUOTE + 1));
}

#[test]
fn other_forms_are_refused_by_name() {
    let change = |name: &str, offset: usize, bytes: &[u8]| {
        let mut quote = recorded(name);
        quote[offset..offset + bytes.len()].copy_from_slice(bytes);
        error(&quote)
    };
    assert_eq!(change("td10.quote", 0, &[3]), QuoteError::Version(3));
    assert_eq!(change("td10.quote", 0, &[6]), QuoteError::Version(6));
    assert_eq!(change("td10.quote", 2, &[3]), QuoteError::KeyType(3));
    assert_eq!(change("td10.quote", 4, &[0]), QuoteError::TeeType(0));
    assert_eq!(change("td10.quote", 12, &[0]), QuoteError::Vendor);
    assert_eq!(change("td15ex.quote", 48, &[1]), QuoteError::BodyType(1));
    assert_eq!(change("td15ex.quote", 48, &[5]), QuoteError::BodyType(5));
    assert_eq!(
        change("td15ex.quote", 48, &[3]),
        QuoteError::BodyLength { body_type: 3, found: 885, expected: 648 }
    );
    assert_eq!(change("td10.quote", 764, &[5]), QuoteError::Certification { found: 5, expected: 6 });
    assert_eq!(change("td10.quote", 1252, &[4]), QuoteError::Certification { found: 4, expected: 5 });
    assert_eq!(change("td10.quote", 1218, &[31]), QuoteError::AuthLength(31));
}

#[test]
fn bytes_between_the_parts_are_refused() {
    let quote = recorded("td10.quote");
    // One byte more in the signature data, the certification data, and in both.
    let grow = |lengths: &[usize]| {
        let mut changed: Vec<u8> = quote.clone();
        for offset in lengths {
            let length = u32::from_le_bytes(quote[*offset..offset + 4].try_into().unwrap()) + 1;
            changed[*offset..offset + 4].copy_from_slice(&length.to_le_bytes());
        }
        error(&changed)
    };
    assert_eq!(grow(&[632]), QuoteError::Excess(1));
    assert_eq!(grow(&[632, 766]), QuoteError::Excess(1));
    assert_eq!(grow(&[766]), QuoteError::Truncated(5006));
}
