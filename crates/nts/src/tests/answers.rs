//! Answers.

use std::time::Duration;

use cloister_clock::Offset;
use proptest::prelude::*;

use super::{COOKIE_BYTES, Reply, TODAY, association, date, random};
use crate::fields::{self, COOKIE};
use crate::{Answer, AnswerError, Association, Direction, Kiss, PACKET_LIMIT, ReadingError, Timestamp};

/// An association with an open request, and a good answer to it.
fn asked() -> (Association, Reply) {
    let mut association = association(2);
    let request = association.request(&random(1)).unwrap();
    (association, Reply::to(&request))
}

/// The result for an answer that was changed.
fn after(change: impl FnOnce(&mut Reply)) -> Result<Answer, AnswerError> {
    let (mut association, mut reply) = asked();
    change(&mut reply);
    association.accept(&reply.packet())
}

#[test]
fn a_good_answer_is_accepted_once() {
    let (mut association, reply) = asked();
    let answer = association.accept(&reply.packet()).unwrap();
    assert_eq!((answer.stratum, association.cookies()), (2, 2));
    assert_eq!(answer.received, Timestamp::of(date(TODAY, 0)));
    // Half of 1/64 s, 1/128 s, and 2⁻²⁴ s rounded up.
    assert_eq!(answer.error, Duration::from_nanos(2 * 7_812_500 + 60));
    assert_eq!(association.accept(&reply.packet()), Err(AnswerError::Other));
    assert_eq!(association.cookies(), 2);
}

#[test]
fn an_answer_to_an_earlier_request_is_refused() {
    let (mut association, reply) = asked();
    association.request(&random(77)).unwrap();
    assert_eq!(association.accept(&reply.packet()), Err(AnswerError::Other));
}

#[test]
fn a_packet_that_is_no_answer_of_a_server_is_refused() {
    for (first, version, mode) in
        [(0b00_100_011, 4, 3), (0b00_011_100, 3, 4), (0b00_101_100, 5, 4), (0, 0, 0)]
    {
        let refused = after(|reply| reply.header[0] = first);
        assert_eq!(refused, Err(AnswerError::Kind { version, mode }));
    }
}

#[test]
fn an_answer_needs_the_identifier_and_the_origin_of_the_request() {
    assert_eq!(after(|reply| reply.header[31] ^= 1), Err(AnswerError::Other));
    assert_eq!(after(|reply| reply.identifier[31] ^= 1), Err(AnswerError::Other));
    assert_eq!(after(|reply| reply.identifier.truncate(28)), Err(AnswerError::Other));
    let twice = after(|reply| {
        fields::append(&mut reply.authenticated, fields::UNIQUE_IDENTIFIER, &reply.identifier.clone())
            .unwrap();
    });
    assert_eq!(twice, Err(AnswerError::Malformed("two unique identifiers")));
}

#[test]
fn an_answer_that_is_sealed_with_another_key_is_refused() {
    let wrong = super::keys().key(Direction::ToServer).clone();
    assert_eq!(after(|reply| reply.key = wrong), Err(AnswerError::NotAuthentic));
    let (mut association, reply) = asked();
    assert_eq!(association.accept(&reply.without_authenticator()), Err(AnswerError::NotAuthentic));
}

#[test]
fn a_nonce_may_have_any_length_but_zero() {
    for length in [1, 3, 12, 16, 33] {
        assert!(after(|reply| reply.nonce = vec![1; length]).is_ok(), "{length}");
    }
    let refused = after(|reply| reply.nonce.clear());
    assert_eq!(refused, Err(AnswerError::Malformed("the authenticator")));
}

#[test]
fn nothing_may_follow_the_authenticator() {
    let (mut association, reply) = asked();
    for after in [vec![0], vec![0; 4], [&[0x09, 9, 0, 16][..], &[0; 12]].concat()] {
        let packet = Reply { after, ..reply.clone() }.packet();
        assert!(matches!(association.accept(&packet), Err(AnswerError::Malformed(_))));
    }
    assert!(
        association.accept(&reply.packet()).is_ok(),
        "a refused packet does not end the wait for the answer"
    );
}

#[test]
fn padding_of_the_authenticator_is_zeros() {
    let (mut association, reply) = asked();
    let mut packet = reply.packet();
    let start = reply.without_authenticator().len();
    let length = u16::try_from(packet.len() - start + 8).unwrap();
    packet[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0; 8]);
    let mut changed = packet.clone();
    *changed.last_mut().unwrap() = 1;
    assert_eq!(association.accept(&changed), Err(AnswerError::Malformed("the authenticator")));
    assert!(association.accept(&packet).is_ok());
}

#[test]
fn a_field_is_as_long_as_it_must_be_and_inside_the_packet() {
    let field = |length: u8, bytes: usize| [&[0x20, 5, 0, length][..], &vec![0; bytes - 4]].concat();
    assert!(after(|reply| reply.authenticated = field(16, 16)).is_ok());
    for malformed in [field(12, 12), field(18, 18), field(0, 16), field(3, 16), field(255, 16)] {
        let refused = after(|reply| reply.authenticated = malformed);
        assert_eq!(refused, Err(AnswerError::Malformed("an extension field")));
    }
}

#[test]
fn an_encrypted_field_may_be_empty() {
    let (mut association, reply) = asked();
    let sealed = |inner: &[u8]| {
        let mut packet = reply.without_authenticator();
        let sealed = reply.key.seal(&packet, &reply.nonce, inner).unwrap();
        let body = fields::authenticator(&reply.nonce, &sealed).unwrap();
        fields::append(&mut packet, fields::AUTHENTICATOR, &body).unwrap();
        packet
    };
    for malformed in [&[0x20, 5, 0, 3][..], &[0x20, 5, 0, 8], &[0x20, 5]] {
        assert_eq!(association.accept(&sealed(malformed)), Err(AnswerError::Malformed("an encrypted field")));
    }
    assert!(association.accept(&sealed(&[0x20, 5, 0, 4])).is_ok());
}

#[test]
fn cookies_that_are_not_encrypted_are_ignored() {
    let (mut association, mut reply) = asked();
    fields::append(&mut reply.authenticated, COOKIE, &[3; COOKIE_BYTES]).unwrap();
    reply.cookies.clear();
    association.accept(&reply.packet()).unwrap();
    assert_eq!(association.cookies(), 1);
}

#[test]
fn cookies_of_an_unusable_length_are_refused() {
    for length in [0, 8, 260] {
        let refused = after(|reply| reply.cookies = vec![vec![1; length]]);
        assert_eq!(refused, Err(AnswerError::Malformed("a cookie of an unusable length")));
    }
}

#[test]
fn a_server_that_forgot_its_keys_is_recognized_without_authentication() {
    let (mut association, mut reply) = asked();
    reply.kiss(*b"NTSN");
    assert_eq!(association.accept(&reply.without_authenticator()), Err(AnswerError::Nak));
    let other = Reply { identifier: vec![0; 32], ..reply.clone() };
    assert_eq!(association.accept(&other.without_authenticator()), Err(AnswerError::Other));
    reply.header[24] ^= 1;
    assert_eq!(association.accept(&reply.without_authenticator()), Err(AnswerError::Other));
}

#[test]
fn other_kisses_are_believed_only_if_they_are_authentic() {
    for (code, kiss) in [
        (*b"RATE", Kiss::Rate),
        (*b"DENY", Kiss::Deny),
        (*b"RSTR", Kiss::Restricted),
        (*b"NTSN", Kiss::Other(*b"NTSN")),
        ([b'X', 0x1b, 0, 0xff], Kiss::Other([b'X', 0x1b, 0, 0xff])),
    ] {
        assert_eq!(after(|reply| reply.kiss(code)), Err(AnswerError::Kiss(kiss)));
        assert!(kiss.to_string().is_ascii() && !kiss.to_string().contains('\x1b'));
        let (mut association, mut reply) = asked();
        reply.kiss(code);
        let refused = association.accept(&reply.without_authenticator());
        let expected = if code == *b"NTSN" { AnswerError::Nak } else { AnswerError::NotAuthentic };
        assert_eq!(refused, Err(expected));
    }
}

#[test]
fn a_server_that_is_not_synchronized_is_refused() {
    for stratum in [16, 17, 255] {
        let refused = after(|reply| reply.header[1] = stratum);
        assert_eq!(refused, Err(AnswerError::Unsynchronized { leap: 0, stratum }));
    }
    assert!(after(|reply| reply.header[1] = 15).is_ok());
    // As chrony does: no stratum, and no code of a kiss.
    for code in [[0; 4], [0x1b, b'[', 0, 0xff]] {
        let refused = after(|reply| reply.kiss(code));
        assert_eq!(refused, Err(AnswerError::Unsynchronized { leap: 0, stratum: 0 }));
    }
    for leap in [1, 2] {
        assert!(after(|reply| reply.header[0] |= leap << 6).is_ok(), "a leap second is announced");
    }
    let refused = after(|reply| reply.header[0] |= 3 << 6);
    assert_eq!(refused, Err(AnswerError::Unsynchronized { leap: 3, stratum: 2 }));
}

#[test]
fn a_server_that_may_be_wrong_by_more_than_a_second_is_refused() {
    assert!(after(|reply| reply.header[8..12].copy_from_slice(&[0, 0, 0xf0, 0])).is_ok());
    for (place, byte) in [(3, 1), (4, 1), (9, 1)] {
        let refused = after(|reply| reply.header[place] = byte);
        assert!(
            matches!(refused, Err(AnswerError::Inexact(error)) if error > Duration::from_secs(1)),
            "{place}"
        );
    }
}

#[test]
fn packets_of_another_length_are_refused() {
    let (mut association, reply) = asked();
    let packet = reply.packet();
    for length in 0..packet.len() {
        assert!(association.accept(&packet[..length]).is_err());
    }
    let long = vec![0; PACKET_LIMIT + 1];
    assert_eq!(association.accept(&long), Err(AnswerError::Length(PACKET_LIMIT + 1)));
    assert!(association.accept(&packet).is_ok());
}

/// The reading of a client whose clock shows these seconds and nanoseconds when the packet leaves and arrives.
fn reading(sent: (i64, i64), arrived: (i64, i64)) -> Result<crate::Reading, ReadingError> {
    let answer = after(|_| ()).unwrap();
    answer.reading(date(sent.0, sent.1), date(arrived.0, arrived.1))
}

#[test]
fn the_offset_is_that_of_the_middle_of_the_exchange() {
    // The server got the request at TODAY and took 1 ms; the client's clock is 10 s late, and each way took 2 ms.
    let late = reading((TODAY - 11, 998_000_000), (TODAY - 10, 3_000_000)).unwrap();
    assert_eq!(late.offset, Offset::from_nanos(10_000_000_000));
    assert_eq!(late.round_trip, Duration::from_millis(5));
    assert_eq!(late.bound, Duration::from_nanos(2_000_001 + 15_625_060));
    let ahead = reading((TODAY + 9, 998_000_000), (TODAY + 10, 3_000_000)).unwrap();
    assert_eq!(ahead.offset, Offset::from_nanos(-10_000_000_000));
}

#[test]
fn dates_that_cannot_be_those_of_one_exchange_are_refused() {
    assert_eq!(reading((TODAY, 5), (TODAY, 0)), Err(ReadingError::Backwards));
    // The server states that it took 1 ms.
    assert_eq!(reading((TODAY, 0), (TODAY, 900_000)), Err(ReadingError::Contradiction));
    let reversed = after(|reply| reply.times(date(TODAY, 1), date(TODAY, 0))).unwrap();
    assert_eq!(reversed.reading(date(TODAY, 0), date(TODAY, 9)), Err(ReadingError::Contradiction));
}

#[test]
fn implausible_dates_are_refused() {
    for bad in [date(TODAY - 86_400 * 365, 0), date(2_398_377_600, 0)] {
        let answer = after(|reply| reply.times(bad, bad)).unwrap();
        let refused = answer.reading(date(TODAY, 0), date(TODAY, 5_000_000));
        assert!(matches!(refused, Err(ReadingError::Implausible(_))), "{refused:?}");
    }
}

#[test]
fn a_timestamp_of_zero_is_refused() {
    for place in [32, 40] {
        let refused = after(|reply| reply.header[place..place + 8].fill(0));
        assert_eq!(refused, Err(AnswerError::Malformed("a timestamp of zero")));
    }
}

#[test]
fn an_exchange_across_the_end_of_the_era_has_an_ordinary_offset() {
    // 2036-02-07T06:28:16Z: received 1 ms before, sent 1 ms after.
    let era = 2_085_978_496;
    let answer = after(|reply| reply.times(date(era - 1, 999_000_000), date(era, 1_000_000))).unwrap();
    let reading = answer.reading(date(era - 1, 998_000_000), date(era, 2_000_000)).unwrap();
    assert!(reading.offset.magnitude() < Duration::from_nanos(3), "{reading:?}");
    assert_eq!(reading.round_trip, Duration::from_millis(4));
}

proptest! {
    /// Including the padding and the lengths, which are not authenticated by the key.
    #[test]
    fn an_answer_with_a_flipped_bit_is_refused(
        position in any::<prop::sample::Index>(),
        nonce in 1_usize..20,
        padding in 0_usize..4,
        cookies in 0_usize..3,
    ) {
        let (mut association, mut reply) = asked();
        reply.nonce = vec![7; nonce];
        reply.cookies = vec![vec![1; COOKIE_BYTES]; cookies];
        let start = reply.without_authenticator().len();
        let mut packet = reply.packet();
        packet.resize(packet.len() + 4 * padding, 0);
        let length = u16::try_from(packet.len() - start).unwrap();
        packet[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        let bit = position.index(packet.len() * 8);
        packet[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(association.accept(&packet).is_err(), "bit {}", bit);
        packet[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(association.accept(&packet).is_ok());
    }

    #[test]
    fn the_true_offset_is_within_the_bound(
        offset in -1_000_000_000_000_i64..1_000_000_000_000,
        there in 0_i64..500_000_000,
        held in 0_i64..500_000_000,
        back in 0_i64..500_000_000,
    ) {
        let at = |nanos: i64| date(TODAY, 0).plus(Offset::from_nanos(nanos));
        let answer = after(|reply| reply.times(at(there), at(there + held))).unwrap();
        let reading = answer.reading(at(-offset), at(there + held + back - offset)).unwrap();
        let wrong = reading.offset.nanos().abs_diff(offset);
        prop_assert!(u128::from(wrong) <= reading.bound.as_nanos(), "{} {:?}", wrong, reading);
    }
}
