//! Performs the requests of one enclave.
//!
//! Invariant: every request gets a response, and a refused one changes nothing. The registers and the key exist as long as the
//! machine: both end with the sleeve.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cloister_evidence::hex;
use cloister_image::measure::NitroPcrs;
use cloister_nsm::server::{Document, Refusal, Request, Response};
use cloister_nsm::{Claims, Description, Pcr, RANDOM_LIMIT};

use super::key::random;
use super::registers::{COUNT, DIGEST, Registers};
use super::root::now;
use super::signer::Signer;
use crate::output;

/// The beginning of the module's name, by which documents of this platform are recognized. AWS's begin with `i-`, the ID of an
/// instance.
const PREFIX: &str = "virtual-";

/// The version of the interface: that of AWS's modules and of QEMU's (`hw/virtio/virtio-nsm.c`).
const VERSION: (u16, u16, u16) = (1, 0, 0);

/// Random bytes in the name of a module.
const ID: usize = 8;

/// The module of one enclave.
#[derive(Debug)]
pub(crate) struct Module {
    pub(super) id: String,
    registers: Registers,
    state: PathBuf,
    signer: Option<Signer>,
    /// Whether the last document could not be signed: a failure is reported once.
    failing: bool,
}

impl Module {
    /// The module of an enclave that was launched from this image. Its documents are signed with the root below `state`, which is
    /// needed, and created, for the first document.
    pub(crate) fn new(image: &NitroPcrs, state: PathBuf) -> io::Result<Self> {
        let mut bytes = [0; ID];
        random(&mut bytes)?;
        let id = format!("{PREFIX}{}", hex::text(&bytes));
        Ok(Self { id, registers: Registers::new(image), state, signer: None, failing: false })
    }

    /// The response to a request. It blocks for as long as signing and the disk take.
    pub(crate) fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        self.answer_at(request, now())
    }

    /// As [`Self::answer`], at this time since 1970.
    pub(super) fn answer_at(&mut self, request: &[u8], now: Duration) -> Vec<u8> {
        let performed = Request::read(request).and_then(|request| self.perform(request, now));
        performed.unwrap_or_else(|refusal| Response::Refused(refusal).encode())
    }

    fn perform(&mut self, request: Request<'_>, now: Duration) -> Result<Vec<u8>, Refusal> {
        let response = match request {
            Request::Describe => Response::Description(&self.describe()).encode(),
            Request::Random => {
                let mut bytes = [0; RANDOM_LIMIT];
                random(&mut bytes).map_err(|_| Refusal::InternalError)?;
                Response::Random(&bytes).encode()
            }
            Request::Pcr { index } => {
                let register = self.registers.get(index)?;
                Response::Pcr(&Pcr { locked: register.locked, value: register.value.bytes().to_vec() })
                    .encode()
            }
            Request::Extend { index, data } => {
                Response::Extended(self.registers.extend(index, data)?.bytes()).encode()
            }
            Request::Lock { index } => self.registers.lock(index).map(|()| Response::Locked.encode())?,
            Request::LockBelow { range } => {
                self.registers.lock_below(range).map(|()| Response::LockedBelow.encode())?
            }
            Request::Attest(claims) => Response::Document(&self.attest(claims, now)?).encode(),
        };
        Ok(response)
    }

    fn describe(&self) -> Description {
        Description {
            version: VERSION,
            module_id: self.id.clone(),
            max_pcrs: COUNT,
            locked_pcrs: self.registers.locked().map(|(index, _)| index).collect(),
            digest: DIGEST.to_owned(),
        }
    }

    fn attest(&mut self, claims: Claims<'_>, now: Duration) -> Result<Vec<u8>, Refusal> {
        self.renew(now.as_secs())?;
        let signer = self.signer.as_ref().ok_or(Refusal::InternalError)?;
        let pcrs: Vec<(u16, &[u8])> =
            self.registers.locked().map(|(index, value)| (index, value.bytes().as_slice())).collect();
        let document = Document {
            module_id: &self.id,
            digest: DIGEST,
            timestamp: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            pcrs: &pcrs,
            certificate: signer.certificate(),
            bundle: &signer.bundle(),
            claims,
        };
        signer.sign(&document.payload()).ok_or(Refusal::InternalError)
    }

    /// Gets a key with a certificate, unless there is one that is valid.
    fn renew(&mut self, now: u64) -> Result<(), Refusal> {
        if self.signer.as_ref().is_some_and(|signer| signer.is_valid(now)) {
            return Ok(());
        }
        let created = Signer::new(&self.id, &self.state, now);
        let failed_before = std::mem::replace(&mut self.failing, created.is_err());
        match created {
            Ok(signer) => self.signer = Some(signer),
            Err(error) => {
                if !failed_before {
                    output::error(&error);
                }
                return Err(Refusal::InternalError);
            }
        }
        Ok(())
    }
}
