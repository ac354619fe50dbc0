//! The certificate that is presented, and the configuration of TLS around it.
//!
//! Invariant: a handshake begins with a certificate that the attestor has called fresh, and not outdated since. Clients that
//! arrive while one is being requested wait for it together, and so they share a failure.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_net::packets::{MessageError, Packets};
use cloister_wire::packet::LIMIT;
use cloister_wire::terminator::{Question, Reply};
use rustls::pki_types::CertificateDer;
use rustls::server::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use crate::id;
use crate::signer::Signer;

/// The only application protocol (RFC 7301).
const PROTOCOL: &[u8] = b"http/1.1";

/// How long a certificate is waited for: a little longer than the attestor waits for the security module.
const WAIT: Duration = Duration::from_secs(11);

/// After this time the question is repeated: the attestor that received it may be gone.
const REPEAT: Duration = Duration::from_secs(1);

/// How long a failure is not tried again.
const FAILED: Duration = Duration::from_secs(1);

/// The certificates.
pub(crate) struct Certificates {
    attestor: Arc<Packets>,
    signer: Signer,
    current: Mutex<Option<Current>>,
    replies: watch::Sender<Option<Reply>>,
    /// The ID of the last question.
    asked: AtomicU64,
    /// How many times a certificate became outdated.
    outdated: AtomicU64,
}

/// What is presented, or that there is nothing.
struct Current {
    config: Option<Arc<ServerConfig>>,
    until: Instant,
    /// [`Certificates::outdated`] when it was requested.
    outdated: u64,
}

impl Certificates {
    /// The certificates of the attestor at this end.
    ///
    /// # Errors
    /// If the kernel's generator fails.
    pub(crate) fn new(attestor: Arc<Packets>, signer: Signer) -> io::Result<Arc<Self>> {
        let (replies, asked) = (watch::Sender::new(None), AtomicU64::new(id::first()?));
        let (current, outdated) = (Mutex::new(None), AtomicU64::new(0));
        Ok(Arc::new(Self { attestor, signer, current, replies, asked, outdated }))
    }

    /// Receives the attestor's messages, until an error occurs.
    pub(crate) async fn receive(&self) -> Result<(), MessageError> {
        let mut buffer = vec![0; LIMIT];
        loop {
            match self.attestor.next(&mut buffer).await?.0 {
                Reply::Outdated => drop(self.outdated.fetch_add(1, Ordering::Relaxed)),
                reply => drop(self.replies.send_replace(Some(reply))),
            }
        }
    }

    /// The configuration with a fresh certificate; `None` if the attestor has none.
    pub(crate) async fn config(&self) -> Option<Arc<ServerConfig>> {
        let mut current = self.current.lock().await;
        let outdated = self.outdated.load(Ordering::Relaxed);
        if let Some(current) = current.as_ref()
            && Instant::now() < current.until
            && current.outdated == outdated
        {
            return current.config.clone();
        }
        let began = Instant::now();
        let got = timeout(WAIT, self.ask()).await.ok().flatten();
        let got = got.and_then(|(der, fresh)| Some((Arc::new(self.configure(der)?), began + fresh)));
        let (config, until) =
            got.map_or((None, Instant::now() + FAILED), |(config, end)| (Some(config), end));
        *current = Some(Current { config: config.clone(), until, outdated });
        config
    }

    /// The attestor's certificate, and how long it is fresh.
    async fn ask(&self) -> Option<(Vec<u8>, Duration)> {
        let mut replies = self.replies.subscribe();
        let first = self.asked.load(Ordering::Relaxed);
        loop {
            let id = self.asked.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            self.attestor.report(&Question::Certificate { id }).await.ok()?;
            // The reply to each question since the first serves.
            let answered = replies.wait_for(|reply| match reply {
                Some(Reply::Certificate { id: of, .. } | Reply::None { id: of }) => *of > first && *of <= id,
                Some(Reply::Outdated) | None => false,
            });
            // A question that was not answered is repeated.
            let Ok(Ok(reply)) = timeout(REPEAT, answered).await else { continue };
            let Some(Reply::Certificate { der, fresh_ms, .. }) = &*reply else { return None };
            return Some((STANDARD.decode(der).ok()?, Duration::from_millis(*fresh_ms)));
        }
    }

    /// TLS 1.3 with this certificate. A session is never resumed: each handshake shows the certificate.
    fn configure(&self, der: Vec<u8>) -> Option<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = CertifiedKey::new(vec![CertificateDer::from(der)], Arc::new(self.signer.clone()));
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).ok()?;
        let resolver = Arc::new(SingleCertAndKey::from(key));
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Some(config)
    }
}

#[cfg(test)]
mod tests;
