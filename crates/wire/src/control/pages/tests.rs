//! Golden bytes of heads and pages, the limits of an assembly, and statuses of every size.

use super::*;
use crate::control::{
    Exit, FinishedStage, IngressCounters, MAX_ERROR_TEXT, MAX_STATUS_TEXT, MAX_WAITS_FOR, Phase, State,
};
use crate::frame::Decoder;
use proptest::prelude::*;

/// A service with texts of the maximum length.
fn troubled(number: usize) -> ServiceStatus {
    ServiceStatus {
        name: format!("{number:0>63}"),
        phase: Phase::BackingOff,
        pid: Some(u32::MAX),
        since_ms: u64::MAX,
        restarts: u32::MAX,
        last_exit: Some(Exit::NotStarted { error: "e".repeat(MAX_ERROR_TEXT) }),
        text: Some("t".repeat(MAX_STATUS_TEXT)),
        waits_for: Some("w".repeat(MAX_WAITS_FOR)),
    }
}

fn status(services: Vec<ServiceStatus>) -> Status {
    Status {
        seq: 9,
        state: State::Degraded { why: "web has failed".into() },
        platform: "virtual".into(),
        uptime_ms: u64::MAX,
        supervisor_restarts: u32::MAX,
        boot: vec![FinishedStage { name: "mounts".into(), at_us: 1, took_us: 2 }],
        services,
        servants: Vec::new(),
        ingress: IngressCounters::default(),
        registers: Vec::new(),
        time: None,
    }
}

/// Reads frames as a peer does: every complete status, up to the first error.
fn read(stream: &[u8]) -> Result<Vec<Status>, PageError> {
    let (mut decoder, mut assembly, mut whole) = (Decoder::new(HOST_LIMIT), Assembly::default(), Vec::new());
    decoder.push(stream);
    while let Some(message) = decoder.next_message::<FromGuest>().unwrap() {
        whole.extend(match message {
            FromGuest::Status(head) => assembly.head(head)?,
            FromGuest::Services(page) => assembly.page(page)?,
            FromGuest::Reply { .. } => None,
        });
    }
    Ok(whole)
}

fn head(seq: u64, services: usize, follow: usize) -> Head {
    Head { status: Status { seq, ..status((0..services).map(troubled).collect()) }, follow }
}

fn page(seq: u64, services: usize) -> Page {
    Page { seq, services: (0..services).map(troubled).collect() }
}

#[test]
fn a_head_and_a_page_have_these_bytes() {
    let status = Status {
        seq: 5,
        state: State::Ready,
        uptime_ms: 7,
        supervisor_restarts: 0,
        boot: Vec::new(),
        ..status(Vec::new())
    };
    let ingress = r#""ingress":{"accepted":0,"open":0,"refused":0,"bytes_in":0,"bytes_out":0}"#;
    let golden = format!(
        r#"{{"type":"status","seq":5,"state":"ready","platform":"virtual","uptime_ms":7,"supervisor_restarts":0,"boot":[],"services":[],{ingress},"follow":1}}"#
    );
    let message = FromGuest::Status(Head { status: status.clone(), follow: 1 });
    assert_eq!(serde_json::to_string(&message).unwrap(), golden);
    assert_eq!(serde_json::from_str::<FromGuest>(&golden).unwrap(), message);
    let whole = serde_json::to_string(&FromGuest::Status(status.into())).unwrap();
    assert!(whole.ends_with(&format!("{ingress}}}")), "a complete status must not mention pages: {whole}");
    let service = ServiceStatus { last_exit: None, text: None, waits_for: None, pid: None, ..troubled(0) };
    let service = ServiceStatus { name: "web".into(), since_ms: 3, restarts: 0, ..service };
    let message = FromGuest::Services(Page { seq: 5, services: vec![service] });
    let golden = r#"{"type":"services","seq":5,"services":[{"name":"web","phase":"backing-off","since_ms":3,"restarts":0}]}"#;
    assert_eq!(serde_json::to_string(&message).unwrap(), golden);
    assert_eq!(serde_json::from_str::<FromGuest>(golden).unwrap(), message);
}

#[test]
fn a_small_status_is_one_frame() {
    let status = status(vec![troubled(0)]);
    let frames = frames(status.clone()).unwrap();
    assert_eq!(frames.len(), 1);
    assert_eq!(read(&frames.concat()), Ok(vec![status]));
}

#[test]
fn the_longest_status_arrives_with_every_text() {
    let mut status = status((0..MAX_SERVICES).map(troubled).collect());
    status.state = State::Fatal { stage: "manifest".into(), error: "\"".repeat(16 * 1024) };
    let frames = frames(status.clone()).unwrap();
    assert!(2 <= frames.len() && frames.len() <= MAX_FRAMES, "{} frames", frames.len());
    assert!(frames.iter().all(|frame| frame.len() <= frame::HEADER + HOST_LIMIT));
    assert_eq!(read(&frames.concat()), Ok(vec![status]));
}

#[test]
fn a_head_or_service_over_the_frame_limit_is_an_error() {
    let long = ServiceStatus { text: Some("x".repeat(HOST_LIMIT)), ..troubled(0) };
    assert!(matches!(frames(status(vec![troubled(1), long])), Err(FrameError::TooLong { .. })));
    let state = State::Degraded { why: "x".repeat(HOST_LIMIT) };
    assert!(matches!(frames(Status { state, ..status(vec![]) }), Err(FrameError::TooLong { .. })));
}

#[test]
fn a_status_with_too_many_services_or_servants_is_refused() {
    let mut assembly = Assembly::default();
    assert_eq!(assembly.head(head(1, 1, MAX_SERVICES)), Err(PageError::TooManyServices(61)));
    let mut crowded = head(1, 0, 0);
    crowded.status.servants = (0..=MAX_SERVANTS).map(troubled).collect();
    assert_eq!(Assembly::default().head(crowded), Err(PageError::TooManyServants(MAX_SERVANTS + 1)));
    assert_eq!(assembly.head(head(1, 0, usize::MAX)), Err(PageError::TooManyServices(usize::MAX)));
    assert_eq!(assembly.page(page(1, 1)), Err(PageError::Stray(1)), "a refused status is not kept");
}

#[test]
fn a_status_of_many_small_pages_is_refused() {
    let mut assembly = Assembly::default();
    assert_eq!(assembly.head(head(1, 0, MAX_SERVICES)), Ok(None));
    for _ in 1..MAX_FRAMES {
        assert_eq!(assembly.page(page(1, 1)), Ok(None));
    }
    assert_eq!(assembly.page(page(1, 1)), Err(PageError::TooManyFrames));
}

#[test]
fn a_page_of_another_status_is_refused() {
    let mut assembly = Assembly::default();
    assert_eq!(assembly.page(page(1, 1)), Err(PageError::Stray(1)), "before any");
    assert_eq!(assembly.head(head(2, 1, 2)), Ok(None));
    assert_eq!(assembly.page(page(1, 1)), Err(PageError::Stray(1)), "of another number");
    assert_eq!(assembly.head(head(3, 1, 0)).map(|status| status.map(|status| status.seq)), Ok(Some(3)));
    assert_eq!(assembly.page(page(3, 1)), Err(PageError::Stray(3)), "after the last");
}

#[test]
fn a_page_with_no_or_too_many_services_is_refused() {
    for (found, missing) in [(0, 2), (3, 2)] {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.head(head(1, 0, 2)), Ok(None));
        assert_eq!(assembly.page(page(1, found)), Err(PageError::Count { found, missing }));
    }
}

#[test]
fn a_status_that_begins_within_another_is_refused() {
    let mut assembly = Assembly::default();
    assert_eq!(assembly.head(head(1, 0, 2)), Ok(None));
    assert_eq!(assembly.head(head(2, 0, 0)), Err(PageError::Unfinished(2)));
}

proptest! {
    #[test]
    fn any_status_is_read_as_it_was_written(
        texts in prop::collection::vec("\\PC{0,256}", 0..=MAX_SERVICES),
        length in 0_usize..4000,
    ) {
        let service = |(number, text): (usize, String)| ServiceStatus {
            waits_for: Some("w".repeat(length)),
            text: Some(text),
            ..troubled(number)
        };
        let status = status(texts.into_iter().enumerate().map(service).collect());
        let frames = frames(status.clone()).unwrap();
        prop_assert!(frames.iter().all(|frame| frame.len() <= frame::HEADER + HOST_LIMIT));
        if frames.len() <= MAX_FRAMES {
            prop_assert_eq!(read(&frames.concat()), Ok(vec![status]));
        }
    }
}
