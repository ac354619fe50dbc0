//! The encoding under golden bytes, its replay, and hostile logs.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::digits;

/// The value of PCR16 in docs/measurements.md.
const BOOTED: &str =
    "926da6fdb43e503e03e620270893edc4f3e860722b580a5ed8af5dea3fd216b504322752210a7854de36c43072999853";

fn event(register: u16, kind: &str, data: &[u8]) -> Event {
    Event::new(register, kind, data).unwrap()
}

fn log(events: &[Event]) -> Log {
    let mut log = Log::default();
    for event in events {
        log.push(event.clone()).unwrap();
    }
    log
}

#[test]
fn the_boot_replays_to_the_documented_value_of_pcr16() {
    assert_eq!(digits(&Log::booted().nitro_register(BOOT_REGISTER)), BOOTED);
    assert_eq!(Log::booted().nitro_register(EVENT_REGISTER), [0; 48]);
    let page = include_str!("../../../../docs/evidence.md");
    for value in [digits(&Log::booted().head()), digits(&Log::booted().nitro_register(BOOT_REGISTER))] {
        assert!(page.contains(&value), "{value}");
    }
}

/// `cloister-wire` has the same bytes under test, as init extends them.
#[test]
fn an_event_has_these_bytes() {
    let boot = event(BOOT_REGISTER, BOOT, b"");
    assert_eq!(boot.extension(), b"\0\0\0\x10cloister event 1\0\0\0\x04boot\0\0\0\0");
    let file = event(FILE_REGISTER, "file", b"data");
    assert_eq!(log(&[file]).encode(), b"\0\x12\0\0\0\x10cloister event 1\0\0\0\x04file\0\0\0\x04data");
}

/// Computed with Python's `hashlib`, from the rules in docs/evidence.md.
#[test]
fn a_log_has_these_digests() {
    let events = [
        event(16, "boot", b""),
        event(17, "config", b"a"),
        event(18, "file", b"b"),
        event(17, "config", b"c"),
    ];
    let log = log(&events);
    assert_eq!(
        digits(&log.nitro_register(17)),
        "f0035e4d11f5c1582e4869bd2f1abfe8f05f5cd5b0e99c3e3e255757988411577d526882e1d3c304289aef7b6daa1f1a"
    );
    assert_eq!(
        digits(&log.rtmr3()),
        "99c0aa4faa32926ae6fa7496a94d48fb44783a93d1b5994d33af0a59b61c9acbb3272ed311e0edd213f2b0323ff4b931"
    );
    assert_eq!(
        digits(&log.head()),
        "723aef5ec7486443ad78b246025ca33bc11448ef1ad89df52bdbbb242339f13d09c09ab55297b58912daf57d2483acb8"
    );
    assert_eq!(Log::default().head(), [0; 48]);
}

#[test]
fn only_a_log_that_begins_with_the_boot_alone_is_recognised_as_such() {
    let (boot, other) = (event(16, "boot", b""), event(17, "config", b""));
    assert!(Log::booted().begins_with_the_boot());
    assert!(log(&[boot.clone(), other.clone()]).begins_with_the_boot());
    let without = [
        log(&[]),
        log(core::slice::from_ref(&other)),
        log(&[other, boot.clone()]),
        log(&[boot.clone(), boot.clone()]),
        log(&[boot, event(16, "later", b"")]),
        log(&[event(16, "boot", b"data")]),
        log(&[event(17, "boot", b"")]),
    ];
    for log in without {
        assert!(!log.begins_with_the_boot(), "{log:?}");
    }
}

#[test]
fn malformed_logs_are_refused_with_their_place() {
    let good = Log::booted().encode();
    let refused = |bytes: &[u8]| Log::parse(bytes).unwrap_err().to_string();
    for length in 1..good.len() {
        assert!(refused(&good[..length]).contains("at byte 0 of the log: it is truncated"), "{length}");
    }
    let second = [good.as_slice(), b"\0"].concat();
    assert_eq!(
        refused(&second),
        format!("malformed event at byte {} of the log: it is truncated", good.len())
    );
    let other_domain: Vec<u8> = good.iter().map(|byte| if *byte == b'1' { b'2' } else { *byte }).collect();
    assert!(refused(&other_domain).contains("its domain is not"));
    assert!(refused(b"\0\x10\xff\xff\xff\xff").contains("a length in it exceeds the limit"));
    let mut register = good;
    register[1] = 19;
    assert!(refused(&register).contains("its register is not 16, 17 or 18"));
}

#[test]
fn events_and_logs_over_their_limits_are_refused() {
    assert!(Event::new(17, &"a".repeat(128), &[0; 1024]).is_ok());
    assert!(Event::new(17, "a", &[0; 1025]).is_err());
    for kind in ["", "A", "a b", "é", "a\n", &"a".repeat(129)] {
        assert!(Event::new(17, kind, b"").is_err(), "{kind}");
    }
    let full = log(&vec![event(17, "a", b""); EVENTS_LIMIT]);
    assert_eq!(Log::parse(&full.encode()), Ok(full.clone()));
    assert_eq!(full.clone().push(event(17, "a", b"")), Err(LogError::Long));
    let over = [full.encode(), Log::booted().encode()].concat();
    assert_eq!(Log::parse(&over), Err(LogError::Long));
    assert_eq!(Log::parse(&vec![0; LOG_LIMIT + 1]), Err(LogError::Long));
}

#[test]
fn a_log_takes_no_event_with_which_it_could_not_be_parsed() {
    let largest = event(17, &"a".repeat(128), &[0; 1024]);
    let mut log = Log::booted();
    while log.push(largest.clone()).is_ok() {}
    let encoded = log.encode();
    assert!(encoded.len() + log.events()[1].extension().len() + 2 > LOG_LIMIT, "{}", encoded.len());
    assert!(Log::parse(&encoded).as_ref() == Ok(&log));
    // A smaller one still fits.
    log.push(event(17, "a", b"")).unwrap();
}

fn any_event() -> impl Strategy<Value = Event> {
    (16_u16..=18, "[a-z0-9.-]{1,64}", proptest::collection::vec(any::<u8>(), 0..80))
        .prop_map(|(register, kind, data)| event(register, &kind, &data))
}

proptest! {
    #[test]
    fn a_log_is_parsed_as_it_is_encoded(events in proptest::collection::vec(any_event(), 0..12)) {
        let log = log(&events);
        prop_assert_eq!(Log::parse(&log.encode()), Ok(log));
    }

    #[test]
    fn two_different_logs_have_different_heads(
        one in proptest::collection::vec(any_event(), 0..6),
        other in proptest::collection::vec(any_event(), 0..6),
    ) {
        prop_assert_eq!(one == other, log(&one).head() == log(&other).head());
    }

    #[test]
    fn a_changed_byte_is_refused_or_changes_the_head(
        events in proptest::collection::vec(any_event(), 1..6),
        place: prop::sample::Index,
        flip in 1_u8..,
    ) {
        let log = log(&events);
        let mut bytes = log.encode();
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        if let Ok(changed) = Log::parse(&bytes) {
            prop_assert_ne!(changed.head(), log.head());
        }
    }

    #[test]
    fn arbitrary_bytes_parse_to_what_they_encode(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(log) = Log::parse(&bytes) {
            prop_assert_eq!(log.encode(), bytes);
        }
    }
}

#[test]
fn the_event_of_a_service_says_whose_it_is() {
    let event = Event::of_service("web-1", "config.json", b"data").unwrap();
    assert_eq!((event.register(), event.kind()), (EVENT_REGISTER, "service.web-1.config.json"));
    assert_eq!(event.service(), Some("web-1"));
    assert!(Event::of_service(&"n".repeat(63), &"l".repeat(LABEL_LIMIT), &[0; DATA_LIMIT]).is_ok());
    for label in ["", "A", "a b", &"l".repeat(LABEL_LIMIT + 1)] {
        assert!(Event::of_service("web", label, b"").is_err(), "{label}");
    }
    let others = [Event::locked("web").unwrap(), Event::new(FILE_REGISTER, "service.web.a", b"").unwrap()];
    assert!(others.iter().all(|event| event.service().is_none()));
}

#[test]
fn of_a_log_that_was_being_written_the_complete_events_are_read() {
    let (first, second) = (Log::booted(), event(17, "config", b"data"));
    let whole = [first.encode(), second.entry()].concat();
    for length in first.encode().len()..whole.len() {
        assert_eq!(Log::parse_written(&whole[..length]), Ok(first.clone()), "{length}");
    }
    assert_eq!(Log::parse_written(&whole).map(|log| log.events().len()), Ok(2));
    let mut damaged = whole;
    damaged[5] = b'!';
    assert!(Log::parse_written(&damaged).is_err());
}
