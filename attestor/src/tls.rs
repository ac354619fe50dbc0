//! The key and the certificate of the attestation server's TLS: certificates with fresh evidence, and signatures of handshakes.
//!
//! Invariant: one certificate serves all handshakes that begin within [`FRESH`], and one failure those within [`FAILED`], so that
//! strangers cannot make the security module busy by connecting.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_binding::certificate::{Carried, SERIAL};
use cloister_wire::causes;
use cloister_wire::terminator::{Reply as Answered, Sign, Signed};
use hyper::StatusCode;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::certificate::{self, CertificateError};
use crate::client::failed;
use crate::exchange::{ModuleError, Reply, Request, Values};
use crate::key::{TlsKey, random};
use crate::module::Module;
use crate::resource::Refusal;
use crate::turns::Party;

/// How long a certificate is presented. Its evidence is then at most a minute old when a handshake begins, with time for the
/// request to the module and for the terminator.
const FRESH: Duration = Duration::from_secs(45);

/// How long a certificate without evidence is presented, before evidence is requested again.
const FAILED: Duration = Duration::from_secs(1);

/// How often the reason is reported.
const REPORTED: Duration = Duration::from_secs(10);

/// The key, and the certificate that is presented now.
pub(crate) struct Tls {
    key: TlsKey,
    module: Module,
    current: Mutex<Option<Current>>,
    /// When a reason was last reported.
    reported: Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Current {
    /// Its DER in base64.
    der: Arc<str>,
    until: Instant,
    /// The length of the event log when it was requested.
    events: usize,
    /// Why it has no evidence.
    failure: Option<Refusal>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The security module did not return evidence.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The kernel's generator failed.
    #[error("there are no random bytes for the certificate")]
    Random(#[from] io::Error),
    /// A defect of this program.
    #[error("the request for evidence had the reply of another request")]
    Reply,
}

impl TlsError {
    /// What a client is answered.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Module(error) => failed(error),
            other => (StatusCode::INTERNAL_SERVER_ERROR, causes::line(other)),
        }
    }
}

impl Tls {
    pub(crate) fn new(key: TlsKey, module: Module) -> Arc<Self> {
        Arc::new(Self { key, module, current: Mutex::new(None), reported: Mutex::new(None) })
    }

    /// The public key of the certificate, in DER.
    pub(crate) fn public_key(&self) -> Result<Vec<u8>, TlsError> {
        Ok(self.key.public().map_err(CertificateError::from)?)
    }

    /// The module.
    pub(crate) fn module(&self) -> &Module {
        &self.module
    }

    /// The certificate in base64, and for how much longer it may be presented. Callers at the same time wait for one that is
    /// being made. It has no evidence if the module returns none.
    ///
    /// # Errors
    /// The certificate itself cannot be made.
    pub(crate) async fn certificate(&self) -> Result<(Arc<str>, Duration), TlsError> {
        let mut current = self.current.lock().await;
        let (now, events) = (Instant::now(), self.module.recorded());
        if let Some(current) =
            current.as_ref().filter(|current| now < current.until && current.events == events)
        {
            return Ok((Arc::clone(&current.der), current.until.saturating_duration_since(now)));
        }
        let mut serial = [0; SERIAL];
        random(&mut serial)?;
        let serial = certificate::serial(serial);
        let (carried, failure, until) = match self.evidence(serial).await {
            Ok(carried) => (Some(carried), None, now + FRESH),
            Err(error) => {
                self.report(&error).await;
                (None, Some(error.refusal()), Instant::now() + FAILED)
            }
        };
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let der = STANDARD.encode(certificate::issue(&self.key, &serial, carried.as_ref(), seconds)?);
        let made = Current { der: der.into(), until, events, failure };
        let left = (Arc::clone(&made.der), until.saturating_duration_since(Instant::now()));
        *current = Some(made);
        Ok(left)
    }

    /// Whether the certificate has evidence.
    ///
    /// # Errors
    /// Why it has none.
    pub(crate) async fn ready(&self) -> Result<(), Refusal> {
        drop(self.certificate().await.map_err(|error| error.refusal())?);
        let failure = self.current.lock().await.as_ref().and_then(|current| current.failure.clone());
        failure.map_or(Ok(()), Err)
    }

    /// Evidence for the certificate with this serial number.
    async fn evidence(&self, serial: [u8; SERIAL]) -> Result<Carried, TlsError> {
        let values = Values { nonce: serial.to_vec(), public_key: self.public_key()?, user_data: Vec::new() };
        match self.module.request(Party::Certificate, Request::Evidence(values)).await? {
            Reply::Evidence(evidence) => {
                let platform = self.module.platform().to_owned();
                Ok(Carried { platform, evidence: evidence.document })
            }
            _ => Err(TlsError::Reply),
        }
    }

    /// Reports why a certificate has no evidence, unless that was done just now.
    async fn report(&self, error: &TlsError) {
        let mut reported = self.reported.lock().await;
        if reported.is_none_or(|last| last.elapsed() >= REPORTED) {
            *reported = Some(Instant::now());
            let line = format!("attestor: the certificate has no evidence: {}\n", causes::line(error));
            // The supervisor logs it. If stderr fails, it cannot be reported.
            io::stderr().write_all(line.as_bytes()).unwrap_or_default();
        }
    }

    /// The reply to the terminator's question with this ID.
    pub(crate) async fn reply(&self, id: u64) -> Answered {
        match self.certificate().await {
            Ok((der, left)) => {
                let fresh_ms = u64::try_from(left.as_millis()).unwrap_or_default();
                Answered::Certificate { id, der: der.to_string(), fresh_ms }
            }
            Err(error) => {
                self.report(&error).await;
                Answered::None { id }
            }
        }
    }

    /// The reply to a request for a signature.
    pub(crate) fn sign(&self, request: &Sign) -> Signed {
        let content = STANDARD.decode(&request.content).ok();
        let signature = content.and_then(|content| self.key.sign_handshake(&content));
        Signed { id: request.id, signature: signature.map(|signature| STANDARD.encode(signature)) }
    }
}
