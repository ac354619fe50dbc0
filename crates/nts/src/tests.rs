//! A server of the tests' own, and what a client accepts from it.

mod answers;
mod exchanges;
mod requests;

use cloister_clock::Date;

use crate::fields::{self, AUTHENTICATOR, COOKIE, UNIQUE_IDENTIFIER};
use crate::{Agreement, Association, Cookie, Direction, Key, Keys, RANDOM, Timestamp};

/// The length of chrony's cookies.
const COOKIE_BYTES: usize = 100;

/// 2026-11-30T00:00:00Z.
const TODAY: i64 = 1_796_083_200;

fn keys() -> Keys {
    Keys::new(Key::new([1; 32]), Key::new([2; 32]))
}

fn date(seconds: i64, nanos: i64) -> Date {
    Date::from_parts(seconds, nanos).unwrap()
}

fn cookie(fill: u8) -> Cookie {
    Cookie::read(&[fill; COOKIE_BYTES]).unwrap()
}

/// An association with so many cookies.
fn association(cookies: u8) -> Association {
    let cookies = (0..cookies).map(cookie).collect();
    Association::new(keys(), Agreement { cookies, server: None, port: None })
}

/// Random bytes of one request.
fn random(fill: u8) -> [u8; RANDOM] {
    let mut random = [0; RANDOM];
    random.iter_mut().zip(fill..).for_each(|(byte, value)| *byte = value);
    random
}

/// What a server answers, in parts that a test can change.
#[derive(Clone, Debug)]
struct Reply {
    header: [u8; 48],
    identifier: Vec<u8>,
    /// Fields between the identifier and the authenticator.
    authenticated: Vec<u8>,
    cookies: Vec<Vec<u8>>,
    nonce: Vec<u8>,
    key: Key,
    after: Vec<u8>,
}

impl Reply {
    /// The answer of a good server to a request: received at `TODAY`, sent a millisecond later.
    fn to(request: &[u8]) -> Self {
        let mut header = [0; 48];
        header[..4].copy_from_slice(&[0b00_100_100, 2, 0, 0xe8]);
        // Delay and dispersion: 1/64 s and 1/128 s.
        header[4..12].copy_from_slice(&[0, 0, 4, 0, 0, 0, 2, 0]);
        header[24..32].copy_from_slice(&request[40..48]);
        let mut reply = Self {
            header,
            identifier: request[52..84].to_vec(),
            authenticated: Vec::new(),
            cookies: vec![vec![0xc0; COOKIE_BYTES]],
            nonce: vec![7; 16],
            key: keys().key(Direction::ToClient).clone(),
            after: Vec::new(),
        };
        reply.times(date(TODAY, 0), date(TODAY, 1_000_000));
        reply
    }

    fn times(&mut self, received: Date, transmitted: Date) {
        self.header[32..40].copy_from_slice(&Timestamp::of(received).bits().to_be_bytes());
        self.header[40..48].copy_from_slice(&Timestamp::of(transmitted).bits().to_be_bytes());
    }

    /// The header as a kiss.
    fn kiss(&mut self, code: [u8; 4]) {
        self.header[1] = 0;
        self.header[12..16].copy_from_slice(&code);
    }

    fn without_authenticator(&self) -> Vec<u8> {
        let mut packet = self.header.to_vec();
        fields::append(&mut packet, UNIQUE_IDENTIFIER, &self.identifier).unwrap();
        packet.extend_from_slice(&self.authenticated);
        packet
    }

    fn packet(&self) -> Vec<u8> {
        let mut packet = self.without_authenticator();
        let mut inner = Vec::new();
        self.cookies.iter().for_each(|cookie| fields::append(&mut inner, COOKIE, cookie).unwrap());
        let sealed = self.key.seal(&packet, &self.nonce, &inner).unwrap();
        let body = fields::authenticator(&self.nonce, &sealed).unwrap();
        fields::append(&mut packet, AUTHENTICATOR, &body).unwrap();
        packet.extend_from_slice(&self.after);
        packet
    }
}
