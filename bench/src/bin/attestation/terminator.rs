//! The terminator as it ships, as a process on this host, with stand-ins for its neighbours: the gateway, which hands it clients, and the
//! attestor, which signs and provides the certificate.
//!
//! Invariant: the process ends when the value that represents it is dropped.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_net::packets::{self, MessageError, Packets};
use cloister_wire::packet::LIMIT;
use cloister_wire::terminator::{HandOver, Question, Reply, Sign, Signed};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::certificate;

/// Executes a program with its four descriptors at their numbers (`cloister_wire::terminator`), from other numbers.
const START: &str = r#"exec "$0" 3<&"$1" 4<&"$2" 5<&"$3" 6<&"$4""#;

/// Those other numbers are above the former.
const ABOVE: i32 = 7;

/// How long a certificate is presented: longer than a benchmark, unless it is called outdated.
const FRESH_MS: u64 = 3_600_000;

/// A running terminator.
#[derive(Debug)]
pub(crate) struct Terminator {
    process: Child,
    /// The end of the pair from the gateway.
    clients: OwnedFd,
    /// The end of the pair to the supervisor, which the terminator must find open.
    _channel: OwnedFd,
    with_evidence: Arc<AtomicBool>,
    outdated: UnboundedSender<()>,
}

impl Terminator {
    /// Starts the program at this path, whose certificates are signed with this key.
    pub(crate) fn start(program: &Path, key: SigningKey) -> io::Result<Self> {
        let [supervisor, gateway, attestor, signer] =
            [packets::pair()?, packets::pair()?, packets::pair()?, packets::pair()?];
        let passed = [&supervisor, &gateway, &attestor, &signer].map(|(_, theirs)| inheritable(theirs));
        let passed = passed.into_iter().collect::<io::Result<Vec<_>>>()?;
        let numbers = passed.iter().map(|end| end.as_raw_fd().to_string());
        // A shell accepts descriptors of one digit only: see ABOVE.
        let process = Command::new("bash")
            .args(["-c", START])
            .arg(program)
            .args(numbers)
            .stdin(Stdio::null())
            .spawn()?;
        drop(passed);
        let with_evidence = Arc::new(AtomicBool::new(false));
        let (outdated, changes) = unbounded_channel();
        let stand_in = Attestor {
            der: [certificate::issue(&key, false)?, certificate::issue(&key, true)?]
                .map(|der| STANDARD.encode(der)),
            key,
            with_evidence: Arc::clone(&with_evidence),
        };
        drop(thread::spawn(move || stand_in.serve(attestor.0, signer.0, changes)));
        Ok(Self { process, clients: gateway.0, _channel: supervisor.0, with_evidence, outdated })
    }

    /// Presents the certificate with or without evidence to handshakes that begin a moment later.
    pub(crate) fn present(&self, with_evidence: bool) -> io::Result<()> {
        self.with_evidence.store(with_evidence, Ordering::Relaxed);
        self.outdated.send(()).map_err(io::Error::other)
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        loop {
            match packets::pass(&self.clients, &HandOver::Client, theirs.as_fd()) {
                Ok(()) => return Ok(ours),
                Err(MessageError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::yield_now();
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Microseconds of CPU time that it has used: the first number of `schedstat` is nanoseconds
    /// (`Documentation/scheduler/sched-stats.rst` of Linux), of its only thread.
    pub(crate) fn cpu_time(&self) -> io::Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.process.id()))?;
        let spent = text.split(' ').next().and_then(|number| number.parse::<f64>().ok());
        spent
            .map(|nanoseconds| nanoseconds / 1e3)
            .ok_or_else(|| io::Error::other("there is no CPU time in schedstat"))
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        // Both fail if the process has already exited.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A copy of this end that a child process inherits.
fn inheritable(end: &OwnedFd) -> io::Result<OwnedFd> {
    let copy = fcntl_dupfd_cloexec(end, ABOVE)?;
    fcntl_setfd(&copy, FdFlags::empty())?;
    Ok(copy)
}

/// What the terminator asks the attestor for.
struct Attestor {
    key: SigningKey,
    /// The certificate without evidence, and that with evidence, in base64.
    der: [String; 2],
    with_evidence: Arc<AtomicBool>,
}

impl Attestor {
    /// Serves until the terminator exits.
    fn serve(
        &self,
        questions: OwnedFd,
        signatures: OwnedFd,
        changes: UnboundedReceiver<()>,
    ) -> io::Result<()> {
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            let (questions, signatures) = (Packets::new(questions)?, Packets::new(signatures)?);
            let ended = tokio::select! {
                ended = self.answer(&questions, changes) => ended,
                ended = self.sign(&signatures) => ended,
            };
            ended.map_err(io::Error::other)
        })
    }

    async fn answer(&self, pair: &Packets, mut changes: UnboundedReceiver<()>) -> Result<(), MessageError> {
        let mut buffer = vec![0; LIMIT];
        loop {
            let question = tokio::select! {
                question = pair.next(&mut buffer) => question?.0,
                Some(()) = changes.recv() => {
                    pair.report(&Reply::Outdated).await?;
                    continue;
                }
            };
            // No client of this benchmark sends a request.
            let Question::Certificate { id } = question else { continue };
            let [without, with] = &self.der;
            let der = if self.with_evidence.load(Ordering::Relaxed) { with } else { without };
            pair.report(&Reply::Certificate { id, der: der.clone(), fresh_ms: FRESH_MS }).await?;
        }
    }

    async fn sign(&self, pair: &Packets) -> Result<(), MessageError> {
        let mut buffer = vec![0; LIMIT];
        loop {
            let Sign { id, content } = pair.next(&mut buffer).await?.0;
            let signature = STANDARD.decode(content).ok().map(|content| {
                let signature: DerSignature = self.key.sign(&content);
                STANDARD.encode(signature)
            });
            pair.report(&Signed { id, signature }).await?;
        }
    }
}
