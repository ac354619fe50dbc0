//! Evidence that is requested with a nonce, from a server on the loopback interface.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::{ServerConnection, StreamOwned};

use super::signer::{NOW, public};
use super::*;

/// A time limit that no test reaches.
const LONG: Duration = Duration::from_mins(1);

/// What a server answers to a nonce: a head and a body.
pub(super) type Respond = fn(Vec<u8>) -> String;

/// A server for one request, and where it listens.
pub(super) fn serve(respond: Respond) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let config = Presented::of(&Draft::default()).config();
    drop(thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
        let mut request = vec![0; 1024];
        let count = stream.read(&mut request).unwrap();
        let request = String::from_utf8(request[..count].to_vec()).unwrap();
        let nonce = request.split_once("?nonce=").unwrap().1.split(' ').next().unwrap();
        stream.write_all(respond(URL_SAFE_NO_PAD.decode(nonce).unwrap()).as_bytes()).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    }));
    address
}

fn evidence(draft: &Draft) -> String {
    let (document, events) = (STANDARD.encode(draft.sign()), STANDARD.encode(draft.log.encode()));
    format!(
        "HTTP/1.1 200 OK\r\n\r\n{{\"document\": \"{document}\", \"events\": \"{events}\", \"platform\": \"virtual\"}}"
    )
}

pub(super) fn request(address: SocketAddr) -> Result<Answer, RequestError> {
    let socket = TcpStream::connect(address).unwrap();
    Answer::request(Deadline::new(socket, Instant::now() + LONG), "127.0.0.1", 443)
}

#[test]
fn evidence_with_a_nonce_is_verified_and_later_connections_require_its_key() {
    let answer = request(serve(|nonce| evidence(&Draft { nonce, ..Draft::default() }))).unwrap();
    assert_eq!(answer.public_key, public(1));
    assert_eq!(Log::parse(&answer.events), Ok(Log::booted()));
    let enclave = answer.verify(&requirements(), NOW).unwrap();
    assert_eq!(enclave.statement().document().unwrap().public_key.as_deref(), Some(enclave.public_key()));
    let connect =
        |presented: &Presented| handshake(config(Verifier::of_key(&enclave)).unwrap(), presented).map(drop);
    connect(&Presented::of(&Draft { nonce: vec![0; 16], ..Draft::default() })).unwrap();
    let other = Presented { key: 2, ..Presented::new(Carrier { key: 2, ..Carrier::of(&Draft::default()) }) };
    let error = connect(&other).unwrap_err();
    assert_eq!(Refusal::in_error(&error), Some(&Refusal::Key));
}

#[test]
fn evidence_for_another_nonce_or_key_is_refused() {
    let failed = |respond: Respond| {
        let answer = request(serve(respond)).unwrap();
        answer.verify(&requirements(), NOW).unwrap_err().verdict().unwrap().failure().unwrap().name
    };
    assert_eq!(failed(|_| evidence(&Draft::default())), "nonce");
    assert_eq!(failed(|nonce| evidence(&Draft { nonce, key: 2, ..Draft::default() })), "binding");
}

#[test]
fn an_answer_that_is_no_evidence_is_reported_as_it_is() {
    let error = request(serve(|_| "HTTP/1.1 503 Busy\r\n\r\n{\"error\": \"later\x1b\"}".into())).unwrap_err();
    assert!(error.to_string().ends_with("it sent: HTTP/1.1 503 Busy {\"error\": \"later\"}"), "{error}");
    let error = request(serve(|_| "HTTP/1.1 200 OK\r\n\r\n{\"document\": \"\"}".into())).unwrap_err();
    assert!(matches!(error, RequestError::Answer(_)), "{error}");
    let error = request(serve(|_| "x".repeat((1 << 20) + 1))).unwrap_err();
    let RequestError::Connection(error) = error else { panic!("{error}") };
    assert_eq!(error.to_string(), "the response has more than 1048576 bytes");
}

#[test]
fn a_server_that_does_not_answer_in_time_is_given_up() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let socket = Deadline::new(socket, Instant::now() + Duration::from_millis(50));
    let Err(RequestError::Connection(error)) = Answer::request(socket, "enclave.example", 443) else {
        panic!("an answer")
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_host_that_is_no_name_is_refused() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let error = Answer::request(socket, "a b", 443).unwrap_err();
    assert_eq!(error.to_string(), "`a b` is not the name of a server");
}
