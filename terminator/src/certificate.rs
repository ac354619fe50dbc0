//! The certificate that is presented, and the configuration of TLS around it.
//!
//! Invariant: a handshake begins with a certificate that the attestor has called fresh. Clients that arrive while one is being
//! requested wait for it together.

use std::sync::Arc;
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

use crate::signer::Signer;

/// The only application protocol (RFC 7301).
const PROTOCOL: &[u8] = b"http/1.1";

/// How long a certificate is waited for: as long as the attestor waits for the security module.
const WAIT: Duration = Duration::from_secs(10);

/// After this time the question is repeated: the attestor that received it may be gone.
const REPEAT: Duration = Duration::from_secs(1);

/// The certificates.
pub(crate) struct Certificates {
    attestor: Arc<Packets>,
    signer: Signer,
    /// What is presented, and until when.
    current: Mutex<Option<(Arc<ServerConfig>, Instant)>>,
    replies: watch::Sender<Option<Reply>>,
    /// The ID of the last question.
    asked: std::sync::atomic::AtomicU64,
}

impl Certificates {
    pub(crate) fn new(attestor: Arc<Packets>, signer: Signer) -> Arc<Self> {
        let asked = (u64::from(std::process::id()) << 32).into();
        let replies = watch::Sender::new(None);
        Arc::new(Self { attestor, signer, current: Mutex::new(None), replies, asked })
    }

    /// Receives the attestor's replies, until an error occurs.
    pub(crate) async fn receive(&self) -> Result<(), MessageError> {
        let mut buffer = vec![0; LIMIT];
        loop {
            let (reply, _) = self.attestor.next(&mut buffer).await?;
            self.replies.send_replace(Some(reply));
        }
    }

    /// The configuration with a fresh certificate; `None` if the attestor has none.
    pub(crate) async fn config(&self) -> Option<Arc<ServerConfig>> {
        let mut current = self.current.lock().await;
        if let Some((config, end)) = current.as_ref()
            && Instant::now() < *end
        {
            return Some(Arc::clone(config));
        }
        let began = Instant::now();
        let (der, fresh) = timeout(WAIT, self.ask()).await.ok()??;
        let config = Arc::new(self.configure(der)?);
        *current = Some((Arc::clone(&config), began + fresh));
        Some(config)
    }

    /// The attestor's certificate, and how long it is fresh.
    async fn ask(&self) -> Option<(Vec<u8>, Duration)> {
        let mut replies = self.replies.subscribe();
        loop {
            let id = self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed).wrapping_add(1);
            self.attestor.report(&Question::Certificate { id }).await.ok()?;
            let answered = replies.wait_for(|reply| match reply {
                Some(Reply::Certificate { id: of, .. } | Reply::None { id: of }) => *of == id,
                None => false,
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
