//! Key exchanges.

use crate::{Agreement, Direction, Exchange, ExchangeError, KEY, Keys, REQUEST};

const PROTOCOL: &[u8] = &[0x80, 1, 0, 2, 0, 0];
const ALGORITHM: &[u8] = &[0, 4, 0, 2, 0, 15];
const END: &[u8] = &[0x80, 0, 0, 0];

fn record(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [&kind.to_be_bytes(), &length.to_be_bytes(), body].concat()
}

fn cookie() -> Vec<u8> {
    record(5, &[9; 100])
}

fn read(bytes: &[u8]) -> Result<Agreement, ExchangeError> {
    let mut exchange = Exchange::default();
    exchange.push(bytes)?;
    exchange.agreement()
}

/// A complete answer with these records in addition.
fn with(records: &[u8]) -> Result<Agreement, ExchangeError> {
    read(&[PROTOCOL, ALGORITHM, &cookie(), records, END].concat())
}

#[test]
fn the_request_has_three_critical_records() {
    let expected = [record(0x8001, &[0, 0]), record(0x8004, &[0, 15]), record(0x8000, &[])].concat();
    assert_eq!(REQUEST.as_slice(), expected);
}

#[test]
fn an_agreement_has_cookies_and_where_to_ask() {
    let plain = with(&[]).unwrap();
    assert_eq!((plain.cookies.len(), plain.server, plain.port), (1, None, None));
    let records = [record(6, b"ntp.example.org"), record(0x8007, &[0x10, 0x92])].concat();
    let other = with(&records).unwrap();
    assert_eq!((other.server.as_deref(), other.port), (Some("ntp.example.org"), Some(4242)));
}

#[test]
fn the_order_of_records_and_the_pieces_they_arrive_in_do_not_matter() {
    let bytes = [&cookie(), &record(7, &[0, 124]), ALGORITHM, PROTOCOL, END].concat();
    let whole = read(&bytes).unwrap();
    for size in [1, 2, 3, 5, 7, 50] {
        let mut exchange = Exchange::default();
        let complete: Vec<bool> = bytes.chunks(size).map(|piece| exchange.push(piece).unwrap()).collect();
        assert_eq!(complete.iter().filter(|complete| **complete).count(), 1);
        assert_eq!(complete.last(), Some(&true));
        assert_eq!(exchange.agreement().unwrap(), whole);
    }
}

#[test]
fn more_cookies_than_are_kept_are_ignored() {
    assert_eq!(with(&cookie().repeat(30)).unwrap().cookies.len(), 8);
}

#[test]
fn an_unknown_record_is_ignored_unless_it_is_critical() {
    assert!(with(&record(1024, b"anything")).is_ok());
    assert_eq!(with(&record(0x8000 | 1024, b"")), Err(ExchangeError::UnknownCritical(1024)));
}

#[test]
fn errors_and_warnings_of_the_server_end_the_exchange() {
    for code in [0, 1, 2, 77] {
        assert_eq!(read(&record(0x8002, &[0, code])), Err(ExchangeError::Refused(u16::from(code))));
        assert_eq!(with(&record(0x8003, &[0, code])), Err(ExchangeError::Warning(u16::from(code))));
    }
    let shown = ExchangeError::Refused(1).to_string();
    assert_eq!(shown, "the server refused the key exchange: it considers the request malformed");
}

#[test]
fn a_server_without_the_protocol_or_the_algorithm_is_refused() {
    for (kind, offered) in [(0x8001, &[0, 0]), (4, &[0, 15])] {
        let refused = if kind == 4 { ExchangeError::Algorithm } else { ExchangeError::Protocol };
        for body in [&[][..], &[0], &[0, 30], &[offered.as_slice(), offered].concat()] {
            assert_eq!(read(&record(kind, body)), Err(refused.clone()), "{body:?}");
        }
    }
    assert_eq!(read(&[ALGORITHM, &cookie(), END].concat()), Err(ExchangeError::Protocol));
    assert_eq!(read(&[PROTOCOL, &cookie(), END].concat()), Err(ExchangeError::Algorithm));
    assert_eq!(read(&[PROTOCOL, ALGORITHM, END].concat()), Err(ExchangeError::NoCookie));
}

#[test]
fn a_record_that_is_there_once_is_not_accepted_twice() {
    for (kind, body) in [(0x8001, &[0, 0][..]), (4, &[0, 15]), (6, b"a"), (7, &[0, 1])] {
        let twice = read(&record(kind, body).repeat(2));
        assert_eq!(twice, Err(ExchangeError::Twice(kind & 0x7fff)));
    }
}

#[test]
fn malformed_records_are_refused() {
    for bytes in [
        record(0x8000, &[0]),
        record(0x8002, &[]),
        record(0x8003, &[1]),
        record(5, &[]),
        record(5, &[0; 8]),
        record(5, &[0; 101]),
        record(5, &[0; 260]),
        record(6, b""),
        record(6, b"a b"),
        record(6, b"a\x1b[2J"),
        record(6, "ä".as_bytes()),
        record(6, &[b'a'; 256]),
        record(7, &[0, 0]),
        record(7, &[123]),
    ] {
        assert!(matches!(with(&bytes), Err(ExchangeError::Malformed(_))), "{bytes:?}");
    }
}

#[test]
fn an_answer_is_read_to_its_last_byte() {
    let whole = [PROTOCOL, ALGORITHM, &cookie(), END].concat();
    assert!(read(&whole).is_ok());
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]), Err(ExchangeError::End), "{length}");
    }
    assert_eq!(read(&[&whole[..], &[0]].concat()), Err(ExchangeError::End));
}

#[test]
fn what_a_server_sends_is_bounded() {
    assert_eq!(read(&[0, 99, 0xff, 0xff]), Err(ExchangeError::TooLong));
    assert!(with(&record(99, &[0; 1024])).is_ok());
    assert_eq!(with(&record(99, &[0; 1025])), Err(ExchangeError::TooLong));
    let mut exchange = Exchange::default();
    let refused = (0..9).find_map(|_| exchange.push(&record(99, &[0; 1000])).err());
    assert_eq!(refused, Some(ExchangeError::TooLong));
    // What comes first counts, in pieces or not.
    let long = [record(99, &[0; 1000]).repeat(9), record(0x8002, &[0, 1])].concat();
    assert_eq!(read(&long), Err(ExchangeError::TooLong));
    assert_eq!(read(&[record(0x8002, &[0, 1]), long].concat()), Err(ExchangeError::Refused(1)));
}

#[test]
fn keys_are_exported_with_the_context_of_their_direction() {
    let keys = Keys::export(|label, context| {
        assert_eq!(label, b"EXPORTER-network-time-security");
        let mut key = [0; KEY];
        key[..5].copy_from_slice(context);
        Ok::<_, ()>(key)
    })
    .unwrap();
    let sealed = keys.key(Direction::ToServer).seal(b"a", b"n", b"p").unwrap();
    assert_eq!(keys.key(Direction::ToServer).open(b"a", b"n", &sealed).as_deref(), Some(&b"p"[..]));
    assert_eq!(keys.key(Direction::ToClient).open(b"a", b"n", &sealed), None);
    assert_eq!(Direction::ToServer.context(), [0, 0, 0, 15, 0]);
    assert_eq!(Direction::ToClient.context(), [0, 0, 0, 15, 1]);
    assert!(!format!("{keys:?}").contains("15"), "keys are not shown");
}
