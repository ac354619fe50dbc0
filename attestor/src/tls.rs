//! What the terminator needs: certificates with fresh evidence, and signatures of handshakes.
//!
//! Invariant: one certificate serves all handshakes that begin within [`FRESH`], so that strangers cannot make the security
//! module busy by connecting. A terminator that was taken over can get signatures of handshakes, and nothing else.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_binding::certificate::{Carried, SERIAL};
use cloister_net::Gate;
use cloister_net::packets::{MessageError, Packets};
use cloister_wire::packet::LIMIT;
use cloister_wire::terminator::{Question, Reply as Answered, Sign, Signed};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::certificate::{self, CertificateError};
use crate::exchange::{ModuleError, Reply, Request, Values};
use crate::key::{TlsKey, random};
use crate::module::Module;
use crate::remote::Remote;

/// How long a certificate is presented. Its evidence is then at most a minute old when a handshake begins, with time for the
/// request to the module and for the terminator.
const FRESH: Duration = Duration::from_secs(45);

/// Maximum number of questions that are answered at once. The terminator asks one at a time; after a restart its predecessor's
/// may still be answered.
const MAX_QUESTIONS: usize = 4;

/// Pause after an invalid message, so that a terminator that was taken over cannot keep this program busy with them.
const PAUSE: Duration = Duration::from_millis(100);

/// The key, and the certificate that is presented now.
pub(crate) struct Tls {
    key: TlsKey,
    module: Module,
    current: Mutex<Option<Current>>,
}

#[derive(Clone)]
struct Current {
    /// Its DER in base64.
    der: Arc<str>,
    issued: Instant,
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
    Random(#[from] std::io::Error),
}

impl Tls {
    pub(crate) fn new(key: TlsKey, module: Module) -> Arc<Self> {
        Arc::new(Self { key, module, current: Mutex::new(None) })
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
    /// being made.
    pub(crate) async fn certificate(&self) -> Result<(Arc<str>, Duration), TlsError> {
        let mut current = self.current.lock().await;
        let fresh = current.as_ref().map(|current| FRESH.saturating_sub(current.issued.elapsed()));
        if let (Some(current), Some(left)) = (current.as_ref(), fresh.filter(|left| !left.is_zero())) {
            return Ok((Arc::clone(&current.der), left));
        }
        let issued = Instant::now();
        let der = self.issue().await?;
        let der: Arc<str> = STANDARD.encode(der).into();
        *current = Some(Current { der: Arc::clone(&der), issued });
        Ok((der, FRESH.saturating_sub(issued.elapsed())))
    }

    async fn issue(&self) -> Result<Vec<u8>, TlsError> {
        let mut serial = [0; SERIAL];
        random(&mut serial)?;
        let serial = certificate::serial(serial);
        let values = Values { nonce: serial.to_vec(), public_key: self.public_key()?, user_data: Vec::new() };
        let Reply::Evidence(evidence) = self.module.request(Request::Evidence(values)).await? else {
            return Err(ModuleError::Unavailable("the reply is no evidence".to_owned()).into());
        };
        let carried = Carried { platform: self.module.platform().to_owned(), evidence: evidence.document };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(certificate::issue(&self.key, &serial, &carried, now)?)
    }

    fn sign(&self, request: &Sign) -> Signed {
        let content = STANDARD.decode(&request.content).ok();
        let signature = content.and_then(|content| self.key.sign_handshake(&content));
        Signed { id: request.id, signature: signature.map(|signature| STANDARD.encode(signature)) }
    }
}

/// Answers the terminator's questions, and serves the clients that it passes on, until an error occurs.
pub(crate) async fn converse(pair: Packets, tls: Arc<Tls>, remote: Arc<Remote>) -> Result<(), MessageError> {
    let (pair, asking) = (Arc::new(pair), Gate::new(MAX_QUESTIONS));
    let mut buffer = vec![0; LIMIT];
    loop {
        let Some((question, mut fds)) = valid(pair.next(&mut buffer).await).await? else { continue };
        match (question, fds.pop()) {
            (Question::Certificate { id }, _) => {
                let Some(pass) = asking.try_enter() else { continue };
                let (pair, tls) = (Arc::clone(&pair), Arc::clone(&tls));
                drop(tokio::spawn(async move {
                    let _pass = pass;
                    let reply = match tls.certificate().await {
                        Ok((der, left)) => {
                            let fresh_ms = u64::try_from(left.as_millis()).unwrap_or_default();
                            Answered::Certificate { id, der: der.to_string(), fresh_ms }
                        }
                        Err(_) => Answered::None { id },
                    };
                    // A terminator that is gone needs no reply.
                    drop(pair.report(&reply).await);
                }));
            }
            (Question::Client, Some(socket)) => remote.admit(socket),
            // Its descriptor was lost because this process had too many open.
            (Question::Client, None) => {}
        }
    }
}

/// Signs handshakes until an error occurs.
pub(crate) async fn sign(pair: Packets, tls: Arc<Tls>) -> Result<(), MessageError> {
    let mut buffer = vec![0; LIMIT];
    loop {
        let Some((request, _)) = valid(pair.next(&mut buffer).await).await? else { continue };
        pair.report(&tls.sign(&request)).await?;
    }
}

/// A valid message; an invalid one is ignored, and so is what follows for some time.
async fn valid<M>(received: Result<M, MessageError>) -> Result<Option<M>, MessageError> {
    match received {
        Ok(message) => Ok(Some(message)),
        Err(MessageError::Frame(_)) => {
            sleep(PAUSE).await;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
