//! The development security module of the platform `virtual`, which the sleeve connects to this program.
//!
//! Invariant: no request of a client is sent to it before PCR16 contains the end of the boot and is locked. Only this
//! program can extend it, since init has finished when the sleeve connects. The registers outlive this process and every
//! connection: the boot is extended once, however often either is replaced. A register with another value cannot be
//! corrected, and is reported to every caller.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use cloister_binding::eventlog::{BOOT_REGISTER, Log};
use cloister_nsm::channel::Channel;
use cloister_nsm::{Module, NsmError};
use cloister_wire::causes;

use crate::exchange::{Answer, ModuleError, Request, answer};

/// The only platform that has this module.
pub(crate) const PLATFORM: &str = "virtual";

/// What callers are answered until the sleeve has connected.
const NOT_YET: &str = "the sleeve has not connected its development security module yet; repeat the request";

/// The client over a connection.
type Client = Module<Box<dyn Fn(&[u8]) -> io::Result<Vec<u8>> + Send>>;

/// The module, as far as there is one.
#[derive(Default)]
pub(crate) struct Sleeve {
    /// The last connection, unless it has failed. One that is not used for the reason below stays open: another would lead to
    /// the same registers.
    client: Option<Client>,
    /// Why it is not used.
    refusal: Option<String>,
}

/// Why the boot is not in its register.
#[derive(Debug, thiserror::Error)]
enum BootError {
    /// A request failed: another connection may be better.
    #[error("cannot extend PCR{BOOT_REGISTER} of the development security module with the boot")]
    Nsm(#[from] NsmError),
    /// The register has another value, for the rest of the machine's life.
    #[error(
        "PCR{BOOT_REGISTER} of the development security module has the value {0}, which is not that of a boot: evidence \
         would not be accepted; launch the enclave again"
    )]
    Other(String),
}

impl Sleeve {
    /// Replaces the connection.
    pub(crate) fn connect(&mut self, stream: OwnedFd) {
        *self = Self::over(stream);
        if let Some(why) = &self.refusal {
            // The supervisor logs it. If stderr fails, it cannot be reported.
            io::stderr().write_all(format!("attestor: {why}\n").as_bytes()).unwrap_or_default();
        }
    }

    /// The module at the other end of this connection, whose register contains the boot.
    fn over(stream: OwnedFd) -> Self {
        let channel = match Channel::open(stream, PLATFORM) {
            Ok(channel) => channel,
            Err(error) => {
                let why = format!("the sleeve's connection could not be used: {error}");
                return Self { client: None, refusal: Some(why) };
            }
        };
        let client: Client = Module::over(Box::new(move |request| channel.exchange(request)));
        match extend_boot(&client) {
            Ok(()) => Self { client: Some(client), refusal: None },
            Err(error @ BootError::Other(_)) => {
                Self { client: Some(client), refusal: Some(error.to_string()) }
            }
            Err(error @ BootError::Nsm(_)) => Self { client: None, refusal: Some(causes::line(&error)) },
        }
    }

    /// Sends a request to the module, if there is one.
    pub(crate) fn answer(&mut self, request: &Request) -> Answer {
        let (Some(client), None) = (&self.client, &self.refusal) else {
            let why = self.refusal.as_deref().unwrap_or(NOT_YET);
            return Err(ModuleError::Unavailable(why.to_owned()));
        };
        let answered = answer(client, request);
        if matches!(answered, Err(NsmError::Device(_))) {
            // The connection is closed, so the sleeve opens another.
            self.client = None;
        }
        Ok(answered?)
    }
}

/// Extends the register with the boot and locks it, unless a predecessor of this process has, wherever that one ended.
fn extend_boot(client: &Client) -> Result<(), BootError> {
    let log = Log::booted();
    let expected = log.nitro_register(BOOT_REGISTER);
    let mut register = client.pcr(BOOT_REGISTER)?;
    if !register.locked && register.value.iter().all(|byte| *byte == 0) {
        for event in log.events() {
            register.value = client.extend(BOOT_REGISTER, &event.extension())?;
        }
    }
    if register.value != expected {
        let digits = |text: String, byte: &u8| text + &format!("{byte:02x}");
        return Err(BootError::Other(register.value.iter().fold(String::new(), digits)));
    }
    if !register.locked {
        client.lock(BOOT_REGISTER)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
