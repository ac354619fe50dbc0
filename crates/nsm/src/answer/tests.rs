//! Answers as a module encodes them, and malformed ones.

use super::*;
use crate::Module;

/// A module that sends this answer to every request.
fn answering(bytes: &[u8]) -> Module<impl Fn(&[u8]) -> std::io::Result<Vec<u8>>> {
    Module::over(|_| Ok(bytes.to_vec()))
}

fn error_of<T: std::fmt::Debug>(result: Result<T, NsmError>) -> String {
    result.unwrap_err().to_string()
}

fn pcr_answer(length: u8) -> Vec<u8> {
    let head: &[u8] = b"\xa1\x6bDescribePCR\xa2\x64lock\xf5\x64data\x58";
    [head, &[length], &vec![0xab; length.into()]].concat()
}

/// The bytes are those of aws-nitro-enclaves-nsm-api 0.5.0 with `serde_cbor` 0.11.2.
#[test]
fn answers_in_the_bytes_of_the_vendors_library_are_read() {
    assert_eq!(answering(&pcr_answer(48)).pcr(16).unwrap(), Pcr { locked: true, value: vec![0xab; 48] });
    let extended: &[u8] = b"\xa1\x69ExtendPCR\xa1\x64data\x58\x30";
    let extended = [extended, &[0xcd; 48]].concat();
    assert_eq!(answering(&extended).extend(16, b"boot").unwrap(), [0xcd; 48]);
    answering(b"\x67LockPCR").lock(16).unwrap();
    answering(b"\x68LockPCRs").lock_below(17).unwrap();
    let random: &[u8] = b"\xa1\x69GetRandom\xa1\x66random\x59\x01\x00";
    assert_eq!(answering(&[random, &[0x5a; 256]].concat()).random().unwrap(), [0x5a; 256]);
    let document = answering(b"\xa1\x6bAttestation\xa1\x68document\x48document");
    assert_eq!(document.attest(crate::Claims::default()).unwrap(), b"document");
    let description = answering(
        b"\xa1\x6bDescribeNSM\xa7\x6dversion_major\x01\x6dversion_minor\x00\x6dversion_patch\x00\
          \x69module_id\x6ei-0123-enc4567\x68max_pcrs\x18\x20\x6blocked_pcrs\x84\x00\x01\x02\x19\x01\x2c\
          \x66digest\x66SHA384",
    );
    let expected = Description {
        version: (1, 0, 0),
        module_id: "i-0123-enc4567".into(),
        max_pcrs: 32,
        locked_pcrs: vec![0, 1, 2, 300],
        digest: "SHA384".into(),
    };
    assert_eq!(description.describe().unwrap(), expected);
}

#[test]
fn the_fields_of_a_register_may_have_any_order_and_unknown_ones_are_skipped() {
    let head: &[u8] = b"\xa1\x6bDescribePCR\xa3\x65other\x82\x01\x80\x64data\x58\x20";
    let answer = [head, &[1; 32], b"\x64lock\xf4"].concat();
    assert_eq!(answering(&answer).pcr(0).unwrap(), Pcr { locked: false, value: vec![1; 32] });
}

#[test]
fn a_refusal_is_reported_with_the_modules_name_for_the_reason() {
    let refused = answering(b"\xa1\x65Error\x6dReadOnlyIndex").lock(16);
    assert!(matches!(refused, Err(NsmError::Refused(reason)) if reason == "ReadOnlyIndex"));
}

#[test]
fn a_refusal_with_terminal_control_characters_is_a_malformed_answer() {
    for answer in [&b"\xa1\x65Error\x64\x1b[2J"[..], b"\xa1\x65Error\x01", b"\xa1\x65Error\x61x\x00"] {
        assert!(matches!(answering(answer).lock(16), Err(NsmError::Answer(_))), "{answer:?}");
    }
}

#[test]
fn an_answer_to_another_request_is_refused() {
    assert!(error_of(answering(b"\x67LockPCR").lock_below(1)).ends_with("not an answer to LockPCRs"));
    assert!(error_of(answering(&pcr_answer(48)).random()).ends_with("not an answer to GetRandom"));
}

#[test]
fn a_register_without_a_lock_or_of_an_impossible_length_is_refused() {
    let head: &[u8] = b"\xa1\x6bDescribePCR\xa1\x64data\x58\x30";
    assert!(error_of(answering(&[head, &[1; 48]].concat()).pcr(0)).ends_with("without lock or data"));
    for length in [0, 31, 49, 65, 255] {
        let refused = error_of(answering(&pcr_answer(length)).pcr(0));
        assert!(refused.ends_with(&format!("a value of {length} bytes")), "{refused}");
    }
}

#[test]
fn an_invalid_number_of_random_bytes_is_refused() {
    let head: &[u8] = b"\xa1\x69GetRandom\xa1\x66random\x59";
    for length in [0, 257] {
        let count = u16::try_from(length).unwrap().to_be_bytes();
        let refused = error_of(answering(&[head, &count, &vec![0; length]].concat()).random());
        assert!(refused.ends_with(&format!("a value of {length} bytes")), "{refused}");
    }
}

#[test]
fn an_unbounded_list_of_locked_registers_is_refused() {
    let head: &[u8] = b"\xa1\x6bDescribeNSM\xa2\x66digest\x66SHA384\x6blocked_pcrs";
    let of = |length: &[u8], count| [head, length, &vec![0; count]].concat();
    assert_eq!(answering(&of(&[0x99, 1, 0], 256)).describe().unwrap().locked_pcrs.len(), 256);
    for (length, count) in
        [(&[0x99, 1, 1][..], 257), (&[0x9f], 5000), (&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255], 5000)]
    {
        let refused = error_of(answering(&of(length, count)).describe());
        assert!(refused.ends_with("more than 256 locked registers"), "{refused}");
    }
}

#[test]
fn an_answer_larger_than_the_drivers_buffer_is_refused() {
    let long = [b"\x67LockPCR".to_vec(), vec![0; 0x3000]].concat();
    assert!(error_of(answering(&long).lock(0)).contains("12296 bytes, the limit is 12288"));
}

#[test]
fn a_truncated_answer_and_one_with_a_trailing_byte_are_refused() {
    let sound = pcr_answer(48);
    for length in 0..sound.len() {
        assert!(answering(&sound[..length]).pcr(0).is_err(), "{length} bytes");
    }
    assert!(error_of(answering(&[&sound[..], &[0]].concat()).pcr(0)).ends_with("1 bytes follow its end"));
}

#[test]
fn a_failure_of_the_device_is_reported() {
    let broken = Module::over(|_| Err(std::io::Error::other("broken")));
    assert!(matches!(broken.random(), Err(NsmError::Device(_))));
}
