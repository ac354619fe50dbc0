//! The security module together with the event log, as the module's thread uses them.
//!
//! Invariant: no document is requested while the registers and the log differ. On `virtual` the module is at the other end of a
//! connection that the sleeve opens, which may be replaced at any time; elsewhere it is a device.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use cloister_binding::eventlog::{BOOT_REGISTER, EVENT_REGISTER, Event, FILE_REGISTER};
use cloister_nsm::channel::Channel;
use cloister_nsm::{Claims, Module, NsmError, Pcr};
use cloister_wire::causes;

use crate::events::{Events, Published, Unrecorded};
use crate::exchange::{Answer, Evidence, Fields, ModuleError, Reply, Request};
use crate::registers::{self, RegisterError};

/// The registers that have a meaning: those that a build's measurements predict, the role and instance of the parent (3, 4), and those
/// of the event log.
const MEASURED: [u16; 9] = [0, 1, 2, 3, 4, 8, BOOT_REGISTER, EVENT_REGISTER, FILE_REGISTER];

/// What callers are answered until the sleeve has connected.
const NOT_YET: &str = "the sleeve has not connected its development security module yet; repeat the request";

/// A module, however its bytes are exchanged.
pub(crate) type Client = Module<Box<dyn Fn(&[u8]) -> io::Result<Vec<u8>> + Send>>;

/// The module, as far as there is one, and the log.
pub(crate) struct Keeper {
    /// The platform that init has detected.
    platform: String,
    client: Option<Client>,
    /// Whether the client is a connection, which is given up when it fails.
    connected: bool,
    events: Events,
    state: State,
}

/// What is known about the module's registers.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nothing.
    Unknown,
    /// They contain the log.
    Equal,
    /// They contain something else.
    Other(String),
}

impl Keeper {
    /// The log, and the module that is reached in this way; `None` if the sleeve connects it later.
    pub(crate) fn new(platform: &str, client: Option<Client>, events: Events) -> Self {
        Self { platform: platform.to_owned(), client, connected: false, events, state: State::Unknown }
    }

    /// Uses the module at the other end of this connection, unless this platform has hardware.
    pub(crate) fn connect(&mut self, stream: OwnedFd) {
        let channel = match Channel::open(stream, &self.platform) {
            Ok(channel) => channel,
            Err(error) => {
                return report(&format!(
                    "the sleeve's connection could not be used: {}",
                    causes::line(&error)
                ));
            }
        };
        self.client = Some(Module::over(Box::new(move |request| channel.exchange(request))));
        (self.connected, self.state) = (true, State::Unknown);
        if let Err(error) = self.compare() {
            report(&causes::line(&error));
        }
    }

    /// The log, for other threads, as it was after the last request. If the module did not answer that one, the register may lack
    /// the last event: the next request compares first.
    pub(crate) fn log(&self) -> Published {
        self.events.published()
    }

    /// Performs a request.
    pub(crate) fn answer(&mut self, request: Request) -> Answer {
        let answer = match request {
            Request::Random => self.client().and_then(|module| Ok(Reply::Random(module.random()?))),
            Request::Log => Ok(Reply::Log(self.events.snapshot())),
            Request::Registers => self.registers(&MEASURED).map(Reply::Registers),
            Request::Attest(fields) => self.document(&fields).map(Reply::Document),
            Request::Evidence(values) => {
                let fields = values.fields(&self.events.digests().head())?;
                let snapshot = self.events.snapshot();
                let signed = |document| Evidence { document, certificates: Vec::new(), events: snapshot };
                self.document(&fields).map(signed).map(Reply::Evidence)
            }
            Request::Extend { service, label, data } => {
                self.extend(|events| events.record(&service, &label, &data))
            }
            Request::Lock { service } => {
                self.extend(|events| events.record_lock(&service)).and_then(|reply| {
                    self.client()?.lock(EVENT_REGISTER)?;
                    Ok(reply)
                })
            }
        };
        if matches!(answer, Err(ModuleError::Nsm(NsmError::Device(_)))) {
            self.failed();
        }
        self.events.publish();
        answer
    }

    /// The values of registers, if those of the event log are as they should be.
    fn registers(&mut self, numbers: &[u16]) -> Result<Vec<(u16, Pcr)>, ModuleError> {
        self.compare()?;
        let module = self.client()?;
        numbers.iter().map(|&number| Ok((number, module.pcr(number)?))).collect()
    }

    fn document(&mut self, fields: &Fields) -> Result<Vec<u8>, ModuleError> {
        self.compare()?;
        Ok(self.client()?.attest(Claims {
            user_data: fields.user_data.as_deref(),
            nonce: fields.nonce.as_deref(),
            public_key: fields.public_key.as_deref(),
        })?)
    }

    fn extend<R>(&mut self, record: R) -> Answer
    where
        R: FnOnce(&mut Events) -> Result<Event, Unrecorded>,
    {
        self.compare()?;
        let event = record(&mut self.events)?;
        let register = event.register();
        match self.client()?.extend(register, &event.extension()) {
            Ok(value) if value == self.events.digests().nitro_register(register) => {}
            Ok(_) => {
                self.state = State::Unknown;
                self.compare()?;
            }
            // Whether the register contains the event is not known: the next request compares first.
            Err(error @ NsmError::Device(_)) => return Err(error.into()),
            Err(error) => {
                self.events.remove_last();
                return Err(error.into());
            }
        }
        Ok(Reply::Recorded {
            position: self.events.count().saturating_sub(1),
            head: self.events.digests().head(),
        })
    }

    fn client(&self) -> Result<&Client, ModuleError> {
        self.client.as_ref().ok_or_else(|| ModuleError::Unavailable(NOT_YET.to_owned()))
    }

    /// Compares the registers with the log, unless that is done.
    fn compare(&mut self) -> Result<(), ModuleError> {
        if self.state == State::Unknown {
            let compared = registers::compare(self.client()?, &self.events);
            self.state = match compared {
                Ok(()) => State::Equal,
                Err(error @ RegisterError::Other(..)) => State::Other(error.to_string()),
                Err(RegisterError::Nsm(error)) => return Err(error.into()),
            };
        }
        match &self.state {
            State::Other(why) => Err(ModuleError::Unavailable(why.clone())),
            State::Unknown | State::Equal => Ok(()),
        }
    }

    /// A request was not answered. A connection is closed, so that the sleeve opens another.
    fn failed(&mut self) {
        self.state = State::Unknown;
        if self.connected {
            self.client = None;
        }
    }
}

/// The supervisor logs it. If stderr fails, it cannot be reported.
fn report(why: &str) {
    io::stderr().write_all(format!("attestor: {why}\n").as_bytes()).unwrap_or_default();
}

#[cfg(test)]
mod tests;
