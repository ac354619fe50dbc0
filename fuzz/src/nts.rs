//! Network Time Security: answers to key exchanges, and answers to requests.

use cloister_nts::{
    Agreement, AnswerError, Association, COOKIE_LIMIT, COOKIES, Cookie, Direction, Exchange, ExchangeError,
    Key, Keys, PACKET_LIMIT, RANDOM,
};

/// Bytes of an NTP header.
const HEADER: usize = 48;

/// The random bytes of the request, of which the first 32 are its identifier and the next eight its transmit timestamp.
const RANDOM_BYTES: [u8; RANDOM] = [0x5a; RANDOM];

/// An answer to a key exchange. The result does not depend on the pieces in which it arrives, is within its bounds, and is shown
/// without terminal control characters.
pub fn exchange(data: &[u8]) {
    let whole = read(data, data.len().max(1));
    for size in [1, 3, 64] {
        assert_eq!(read(data, size), whole, "in pieces of {size} bytes");
    }
    match whole {
        Ok(agreement) => {
            assert!((1..=COOKIES).contains(&agreement.cookies.len()));
            agreement.cookies.iter().for_each(usable);
            assert_ne!(agreement.port, Some(0));
            if let Some(server) = agreement.server {
                assert!(
                    (1..=255).contains(&server.len()) && server.bytes().all(|byte| byte.is_ascii_graphic())
                );
            }
        }
        Err(error) => printable(&error.to_string()),
    }
}

/// The result of an answer in pieces of this size. Nothing follows the piece in which the answer is complete.
fn read(data: &[u8], size: usize) -> Result<Agreement, ExchangeError> {
    let mut exchange = Exchange::default();
    for piece in data.chunks(size) {
        exchange.push(piece)?;
    }
    exchange.agreement()
}

/// An answer to a request. As it is, nobody has sealed it, so it is refused. Then it is the content of an answer that the server
/// seals: a header but for the origin, and encrypted fields. Cookies that come of it are bounded, and a flipped bit is noticed.
pub fn answer(data: &[u8]) {
    let mut association = asked();
    match association.accept(data) {
        Ok(answer) => panic!("accepted without a seal: {answer:?}"),
        Err(error) => printable(&error.to_string()),
    }
    let packet = sealed(data);
    let mut changed = packet.clone();
    let bit = data.iter().fold(data.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    changed[bit / 8 % packet.len()] ^= 1 << (bit % 8);
    assert!(association.accept(&changed).is_err(), "a flipped bit was accepted");
    match association.accept(&packet) {
        Ok(answer) => {
            assert!((1..16).contains(&answer.stratum) && answer.error.as_secs() <= 1);
            assert!((1..=COOKIES).contains(&association.cookies()));
            assert_eq!(
                association.accept(&packet),
                Err(AnswerError::Other),
                "the same answer was accepted twice"
            );
            let date = answer.received.date().expect("every timestamp is a date");
            let later = answer.transmitted.date().expect("every timestamp is a date");
            if let Ok(reading) = answer.reading(date, later) {
                assert!(reading.offset.nanos() == 0 && reading.bound >= answer.error);
            }
            while association.cookies() > 0 {
                assert!(association.request(&RANDOM_BYTES).expect("a cookie is left").len() <= PACKET_LIMIT);
            }
        }
        Err(error) => printable(&error.to_string()),
    }
}

fn keys() -> Keys {
    Keys::new(Key::new([1; 32]), Key::new([2; 32]))
}

/// An association with one cookie left, and a request that was sent.
fn asked() -> Association {
    let cookies = [1, 2].map(|fill| Cookie::read(&[fill; 100]).expect("a cookie of a usable length"));
    let agreement = Agreement { cookies: cookies.to_vec(), server: None, port: None };
    let mut association = Association::new(keys(), agreement);
    association.request(&RANDOM_BYTES).expect("a cookie is left");
    association
}

/// The packet of a server with this header and these encrypted fields.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut packet = data[..data.len().min(HEADER)].to_vec();
    packet.resize(HEADER, 0);
    packet[24..32].fill(RANDOM_BYTES[0]);
    packet.extend_from_slice(&[1, 4, 0, 36]);
    packet.extend_from_slice(&RANDOM_BYTES[..32]);
    let inner = &data[data.len().min(HEADER)..];
    let nonce = [3; 16];
    let key = keys();
    let sealed =
        key.key(Direction::ToClient).seal(&packet, &nonce, inner).expect("lengths that AES-SIV accepts");
    let (padded, length) =
        (sealed.len().next_multiple_of(4), u16::try_from(sealed.len()).unwrap_or(u16::MAX));
    packet.extend_from_slice(&[4, 4]);
    packet.extend_from_slice(&u16::try_from(8 + 16 + padded).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend_from_slice(&[0, 16]);
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&nonce);
    packet.extend_from_slice(&sealed);
    packet.resize(packet.len() + padded - sealed.len(), 0);
    packet
}

fn usable(cookie: &Cookie) {
    assert!(cookie.bytes().len() <= COOKIE_LIMIT && cookie.bytes().len().is_multiple_of(4));
}

fn printable(text: &str) {
    assert!(text.chars().all(|letter| !letter.is_control()), "{text:?}");
}
