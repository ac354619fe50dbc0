//! Enclaves that are what is required.

use std::sync::Arc;

use cloister_evidence::eventlog::Event;
use rustls::HandshakeKind;

use super::pair::{at_now, connect};
use super::signer::NOW;
use super::*;

#[test]
fn an_enclave_is_accepted_and_its_verdict_lists_every_check() {
    let client = config(Verifier::of_evidence(requirements())).unwrap();
    let connection = handshake(client, &Presented::of(&Draft::default())).unwrap();
    let verified = requirements().connection(&connection, NOW).unwrap();
    assert_eq!(verified.document().unwrap().module_id, "virtual-test");
    let verdict = verified.verdict().to_string();
    for check in cloister_evidence::nitro::TABLE {
        assert!(verdict.contains(&format!("pass  {check}")), "{check}: {verdict}");
    }
}

#[test]
fn an_enclave_that_has_recorded_events_is_accepted_with_its_log_only() {
    let mut log = Log::booted();
    log.push(Event::new(17, "service.web.config", b"data").unwrap()).unwrap();
    let presented = Presented::of(&Draft { log: log.clone(), ..Draft::default() });
    let client = config(Verifier::of_evidence(Requirements { log, ..requirements() })).unwrap();
    assert!(handshake(client, &presented).is_ok());
    assert_eq!(refusal(requirements(), &presented).verdict().unwrap().failure().unwrap().name, "binding");
}

#[test]
fn every_connection_is_verified_although_the_server_offers_to_resume_the_session() {
    let client = Arc::new(at_now(config(Verifier::of_evidence(requirements())).unwrap()));
    let server = Presented::of(&Draft::default()).config();
    for _ in 0..3 {
        let connection = connect(&client, Arc::clone(&server)).unwrap();
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        assert!(connection.tls13_tickets_received() > 0);
    }
}
