//! Requests.

use super::{COOKIE_BYTES, Reply, association, keys, random};
use crate::fields::{self, AUTHENTICATOR, COOKIE, OUTER_MIN, PLACEHOLDER, UNIQUE_IDENTIFIER};
use crate::{Agreement, Association, COOKIE_LIMIT, Cookie, Direction, PACKET_LIMIT, RequestError};

/// The extension fields of a request.
fn fields_of(packet: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let (mut list, mut rest) = (Vec::new(), &packet[48..]);
    while !rest.is_empty() {
        let field = fields::first(rest, OUTER_MIN).unwrap();
        list.push((field.kind, field.body.to_vec()));
        rest = field.rest;
    }
    list
}

fn placeholders(packet: &[u8]) -> usize {
    fields_of(packet).iter().filter(|(kind, _)| *kind == PLACEHOLDER).count()
}

#[test]
fn a_request_reveals_only_its_kind_and_random_bytes() {
    let packet = association(8).request(&random(100)).unwrap();
    assert_eq!(packet[0], 0b00_100_011);
    assert!(packet[1..40].iter().all(|byte| *byte == 0));
    assert_eq!(packet[40..48], random(100)[32..40]);
}

#[test]
fn a_request_has_the_fields_of_the_specification() {
    let packet = association(8).request(&random(100)).unwrap();
    let fields = fields_of(&packet);
    let kinds: Vec<u16> = fields.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [UNIQUE_IDENTIFIER, COOKIE, AUTHENTICATOR]);
    assert_eq!(fields[0].1, random(100)[..32]);
    assert_eq!(fields[1].1, [0; COOKIE_BYTES]);
    let (nonce, sealed) = fields::sealed(&fields[2].1).unwrap();
    assert_eq!((nonce, sealed.len()), (&random(100)[40..], 16));
    let associated = &packet[..packet.len() - fields[2].1.len() - 4];
    let opened = keys().key(Direction::ToServer).open(associated, nonce, sealed);
    assert_eq!(opened.as_deref(), Some(&[][..]), "nothing is encrypted");
}

#[test]
fn every_request_has_another_cookie_until_none_is_left() {
    let mut association = association(8);
    let cookies: Vec<u8> = (0..8).map(|n| association.request(&random(n)).unwrap()[48 + 36 + 4]).collect();
    assert_eq!(cookies, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(association.request(&random(9)).unwrap_err(), RequestError::NoCookie);
}

#[test]
fn a_request_asks_for_the_missing_cookies() {
    let mut association = association(8);
    for missing in 0..8 {
        let packet = association.request(&random(1)).unwrap();
        assert_eq!(placeholders(&packet), missing);
        assert!(packet.len() <= PACKET_LIMIT);
    }
}

#[test]
fn placeholders_are_as_long_as_the_cookie_and_fit_in_a_packet() {
    for length in (12..=COOKIE_LIMIT).step_by(4) {
        let cookies = vec![Cookie::read(&vec![1; length]).unwrap()];
        let mut association = Association::new(keys(), Agreement { cookies, server: None, port: None });
        let packet = association.request(&random(1)).unwrap();
        let count = placeholders(&packet);
        assert!(packet.len() <= PACKET_LIMIT, "{length}");
        assert!(count == 7 || packet.len() + length + 4 > PACKET_LIMIT, "{length}: {count}");
        let sizes = fields_of(&packet).into_iter().filter(|(kind, _)| *kind == PLACEHOLDER);
        assert!(sizes.into_iter().all(|(_, body)| body == vec![0; length]));
    }
}

#[test]
fn answers_refill_the_cookies_but_never_beyond_eight() {
    let mut association = association(1);
    let request = association.request(&random(1)).unwrap();
    let mut reply = Reply::to(&request);
    reply.cookies = vec![vec![5; COOKIE_BYTES]; 10];
    association.accept(&reply.packet()).unwrap();
    assert_eq!(association.cookies(), 8);
}
