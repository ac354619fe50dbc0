//! The process that plays the hardware: it makes a report as the request's own bytes wish, well or badly.
//!
//! Invariant: what it returns is a function of the request, so both halves can compute it.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::driver::{LONG_TIMEOUT, set_timeout, text};
use crate::facts::print_fact;
use crate::tsm::{Blobs, Device, Request};

/// The largest blob, in bytes (`TSM_OUTBLOB_MAX` in `include/linux/tsm.h` of the kernel).
pub(super) const LARGE: usize = 32 << 10;

/// How long a delayed answer takes: long enough for other threads to request a report meanwhile.
const DELAY: Duration = Duration::from_millis(10);

/// What a request wishes, in its first two bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    kind: Kind,
    /// An error number, or any number that distinguishes it from others.
    value: u8,
}

/// The first byte of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A report for these bytes.
    Signed,
    /// The same, after a pause.
    Delayed,
    /// The largest possible report.
    Large,
    /// A larger one, which the device refuses, then an ordinary one.
    TooLarge,
    /// A failure with the error of the second byte.
    Fails,
    /// No answer, and the default time limit for later requests.
    Silent,
    /// First an answer to the last request that was not answered.
    Late,
}

impl Wish {
    pub(super) const fn new(kind: Kind, value: u8) -> Self {
        Self { kind, value }
    }

    /// The bytes of the request.
    pub(super) fn inblob(self) -> [u8; 64] {
        let mut bytes = [0xA5; 64];
        let [kind, value, ..] = &mut bytes;
        (*kind, *value) = (self.kind.byte(), self.value);
        bytes
    }

    fn of(request: &Request) -> Option<Self> {
        let [kind, value, ..] = *request.inblob.as_slice() else { return None };
        let kind = Kind::ALL.into_iter().find(|known| known.byte() == kind)?;
        Some(Self { kind, value })
    }
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Signed, Self::Delayed, Self::Large, Self::TooLarge, Self::Fails, Self::Silent, Self::Late];

    const fn byte(self) -> u8 {
        match self {
            Self::Signed => 1,
            Self::Delayed => 2,
            Self::Large => 3,
            Self::TooLarge => 4,
            Self::Fails => 5,
            Self::Silent => 6,
            Self::Late => 7,
        }
    }
}

/// The report for these bytes at this level: the bytes and the level, and a text about them.
pub(super) fn signed(inblob: &[u8], level: u32) -> Blobs {
    let value = inblob.get(1).copied().unwrap_or_default();
    Blobs {
        outblob: [inblob, &level.to_le_bytes()].concat(),
        auxblob: format!("certificates of report {value}").into_bytes(),
    }
}

/// A blob of the largest size, in which every page differs.
pub(super) fn large(salt: u8) -> Vec<u8> {
    (0..=u8::MAX)
        .cycle()
        .zip(0..LARGE)
        .map(|(byte, at)| byte ^ salt ^ u8::try_from(at >> 8).unwrap_or_default())
        .collect()
}

/// Makes reports until it is killed.
pub(super) fn run() -> ExitCode {
    let ended = Device::open().and_then(|device| {
        let mut silent = None;
        loop {
            let request = device.next()?;
            answer(&device, &request, &mut silent)?;
        }
    });
    // Without a device there is nothing to report to but the console.
    drop(print_fact("signer", &ended.map_or_else(|error| text(&error), |()| String::new())));
    ExitCode::FAILURE
}

/// Answers one request. `silent` is the number of the last one without an answer.
fn answer(device: &Device, request: &Request, silent: &mut Option<u64>) -> io::Result<()> {
    let wish = Wish::of(request);
    let report = signed(&request.inblob, request.privlevel);
    let answer = match wish.map(|wish| wish.kind) {
        Some(Kind::Silent) => {
            *silent = Some(request.id);
            set_timeout(LONG_TIMEOUT)?;
            return Ok(());
        }
        Some(Kind::Late) => {
            let late = device.answer(silent.unwrap_or_default(), &Ok(report.clone()));
            print_fact(
                "too late an answer",
                &late.map_or_else(|error| text(&error), |()| "accepted".to_owned()),
            )?;
            Ok(report)
        }
        Some(Kind::TooLarge) => {
            let blobs = Blobs { outblob: vec![0; LARGE.saturating_add(1)], ..Blobs::default() };
            let refused = device.answer(request.id, &Ok(blobs));
            print_fact(
                "too large a report",
                &refused.map_or_else(|error| text(&error), |()| "accepted".to_owned()),
            )?;
            Ok(report)
        }
        Some(Kind::Delayed) => {
            thread::park_timeout(DELAY);
            Ok(report)
        }
        Some(Kind::Large) => Ok(Blobs { outblob: large(0), auxblob: large(1) }),
        Some(Kind::Fails) => Err(Errno::from_raw_os_error(wish.map_or(0, |wish| i32::from(wish.value)))),
        Some(Kind::Signed) => Ok(report),
        None => Err(Errno::PROTO),
    };
    device.answer(request.id, &answer)
}
