//! `run --verify`: the sleeve verifies its own enclave, as any client could.
//!
//! Invariant: the enclave counts as verified only if evidence that was requested now, with a nonce, over its attestation port, passed
//! every check against the expected measurements. What cannot be verified is refused before it is launched.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloister_client::{Answer, Deadline, IMAGE_REGISTERS, Log, Reference, Refusal, Requirements, Roots};
use cloister_manifest::Platform;
use cloister_net::Stream;
use cloister_relay::Works;
use cloister_wire::causes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::app::{App, Source};
use crate::backends::Backend;
use crate::error::{Error, Result};
use crate::ingress;
use crate::module::DevelopmentRoot;
use crate::state::Verified;
use crate::state::record::now_ms;
use crate::transport::Transport;
use crate::values::show_duration;

use super::lifecycle::Event;
use super::order::{Expected, Order};

/// How long there may be no evidence. The sleeve connects the development security module within two seconds, and the enclave
/// may take ten for a document; a large image is hashed before the first one.
const LIMIT: Duration = Duration::from_mins(1);

/// Time limit for one request: an enclave may take ten seconds for its certificate, and as long again for the evidence.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(250);

/// The name of the server in the request. The enclave does not compare it with anything (RFC 2606, section 2).
const HOST: &str = "enclave.invalid";

/// What is required of one enclave.
#[derive(Debug)]
pub(super) struct Verification {
    /// The attestation port.
    port: u16,
    references: Vec<Reference>,
    roots: Roots,
    /// Whether the platform is `virtual`, which is launched and verified by the same host.
    allow_virtual: bool,
}

/// Why a request did not verify the enclave.
enum Failure {
    /// It has not answered, and may answer later.
    Unanswered(String),
    /// Its evidence was refused.
    Refused(String),
}

/// Whether an enclave of this image on this backend could be verified, before it has been.
pub(super) fn possible(app: &App, backend: &dyn Backend) -> Verified {
    if backend.unverifiable().is_some() || app.manifest.attestation.port.is_none() {
        return Verified::Impossible;
    }
    Verified::No
}

impl Verification {
    /// What the order requires, if anything. Reads the whole image if its own prediction is required.
    pub(super) async fn prepare(
        order: &Order,
        app: &App,
        backend: &dyn Backend,
        state: &Path,
    ) -> Result<Option<Self>> {
        let Some(expected) = order.verify.clone() else { return Ok(None) };
        if let Some(why) = backend.unverifiable() {
            return Err(Error::operator(format!("enclaves on {} cannot be verified", backend.name()))
                .because(std::io::Error::other(why))
                .hint("leave out --verify, or choose another backend"));
        }
        let Some(port) = app.manifest.attestation.port else {
            return Err(Error::author("the image cannot be verified: its manifest has no attestation port")
                .hint("add `attestation: {port: 443}` to the manifest and build it again"));
        };
        let (source, platform) = (app.source.clone(), backend.platform());
        let references = tokio::task::spawn_blocking(move || match expected {
            Expected::Prediction => Ok(vec![prediction(&source, platform)?]),
            Expected::AnyOf(documents) => {
                let read = |name: &str, text: &str| {
                    Reference::of_any_platform(name, text.as_bytes(), &IMAGE_REGISTERS)
                        .map_err(|error| Error::operator(format!("{name} cannot be used")).because(error))
                };
                documents.iter().map(|document| read(&document.name, &document.text)).collect()
            }
        });
        let references = references
            .await
            .map_err(|error| Error::internal("the measurement was aborted").because(error))??;
        let allow_virtual = platform == Platform::Virtual;
        let mut roots = Roots::aws();
        if allow_virtual {
            roots = roots.with_development(Sha256::digest(DevelopmentRoot::open(state)?.der()).into());
        }
        Ok(Some(Self { port, references, roots, allow_virtual }))
    }

    /// Requests evidence until there is some, and reports what it is.
    pub(super) async fn run(self, transport: Arc<dyn Transport>, events: mpsc::Sender<Event>) {
        let end = Instant::now() + LIMIT;
        let mut why = "it did not answer".to_owned();
        let event = loop {
            match timeout_at(end, self.attempt(&*transport)).await {
                Ok(Ok(())) => break Event::Verified,
                Ok(Err(Failure::Refused(why))) => break Event::NotVerified { why },
                Ok(Err(Failure::Unanswered(reason))) => why = reason,
                Err(_) => {}
            }
            if Instant::now() >= end {
                let limit = show_duration(LIMIT);
                break Event::NotVerified { why: format!("there was no evidence within {limit}: {why}") };
            }
            sleep(PAUSE).await;
        };
        // If the receiver is gone, the run is over.
        drop(events.send(event).await);
    }

    async fn attempt(&self, transport: &dyn Transport) -> std::result::Result<(), Failure> {
        let answer = ask(transport, self.port).await.map_err(Failure::Unanswered)?;
        self.check(&answer).map_err(Failure::Refused)
    }

    fn check(&self, answer: &Answer) -> std::result::Result<(), String> {
        // The enclave may record events before it is ready. The evidence confirms the log, and the image is the expected one.
        let log = Log::parse(&answer.events).map_err(|error| error.to_string())?;
        let (roots, allow_virtual) = (self.roots.clone(), self.allow_virtual);
        let requirements =
            Requirements { roots, allow_virtual, log, ..Requirements::of(self.references.clone()) };
        let verified = answer.verify(&requirements, now_ms() / 1000);
        verified.map(drop).map_err(|refusal: Refusal| refusal.to_string())
    }
}

/// The measurements that the platform will report for this image.
fn prediction(source: &Source, platform: Platform) -> Result<Reference> {
    let artifact = source.artifact()?;
    let measured = match platform {
        Platform::Virtual => artifact.development_measurements(),
        // The others cannot be verified before they are launched, which `prepare` has refused.
        Platform::Nitro | Platform::Tdx | Platform::Snp => artifact.measurements(),
    };
    let failed = || Error::operator(format!("{} cannot be measured", artifact.path().display()));
    let measured = measured.map_err(|error| failed().because(error))?;
    let document = serde_json::to_vec(&measured).map_err(|error| failed().because(error))?;
    Reference::of_any_platform("the image", &document, &IMAGE_REGISTERS)
        .map_err(|error| failed().because(error))
}

/// Evidence from the attestation port, through the enclave's ingress.
async fn ask(transport: &dyn Transport, port: u16) -> std::result::Result<Answer, String> {
    let unreachable = |error: std::io::Error| format!("the enclave cannot be reached: {error}");
    let enclave = ingress::connect(transport).await.map_err(unreachable)?;
    let (inner, outer) = Stream::pair().map_err(|error| error.to_string())?;
    let end = (Instant::now() + REQUEST_LIMIT).into_std();
    let asking = tokio::task::spawn_blocking(move || {
        let socket = UnixStream::from(outer);
        socket.set_nonblocking(false)?;
        Answer::request(Deadline::new(socket, end), HOST, port)
    });
    let carrying = async {
        let carried = ingress::carry(&enclave, port, &inner, None, &Works::new()).await;
        // The request ends with an error if it has not ended before: its other end is closed.
        drop(inner);
        carried
    };
    tokio::pin!(asking);
    let asked = tokio::select! {
        // What the enclave does with its connection after the response is not waited for.
        asked = &mut asking => asked,
        carried = carrying => {
            carried.map_err(unreachable)?;
            asking.await
        }
    };
    asked.map_err(|error| error.to_string())?.map_err(|error| causes::line(&error))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::transport::Pending;

    /// An enclave in which nothing listens.
    #[derive(Debug)]
    struct Refusing;

    impl Transport for Refusing {
        fn connect(&self, _: u32) -> Pending<'_, io::Result<Stream>> {
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_enclave_without_evidence_is_not_verified_after_a_minute() {
        let (sender, mut events) = mpsc::channel(1);
        let verification =
            Verification { port: 443, references: Vec::new(), roots: Roots::aws(), allow_virtual: false };
        let started = Instant::now();
        verification.run(Arc::new(Refusing), sender).await;
        assert!(started.elapsed() >= LIMIT && started.elapsed() <= LIMIT + PAUSE);
        let Some(Event::NotVerified { why }) = events.recv().await else { panic!("verified") };
        let expected =
            "there was no evidence within 1 min 0 s: the enclave cannot be reached: connection refused";
        assert_eq!(why, expected);
    }
}
