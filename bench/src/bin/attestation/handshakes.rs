//! Handshakes with the terminator, whose certificate has evidence in it or has none.
//!
//! The client verifies the signature of the handshake and nothing else, so both variants differ in the certificate's length only.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use cloister_bench::figures::{median, table};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::certificate;
use crate::progress;
use crate::terminator::Terminator;

/// Numbers of clients, and handshakes of each of them in a round: few, so that other load of the machine affects both variants alike.
const LOADS: [(u32, u32); 2] = [(1, 25), (16, 4)];

/// A certificate without evidence is shorter than this, one with evidence is longer.
const PLAIN: usize = 1024;

/// One load with one of the certificates, and what was measured in each round.
struct Variant {
    clients: u32,
    each: u32,
    with_evidence: bool,
    per_second: Vec<f64>,
    /// Microseconds of the terminator's CPU time for each handshake.
    cpu: Vec<f64>,
}

/// Measures the terminator at this path, and returns the table.
pub(crate) fn measure(program: &Path, rounds: u32) -> io::Result<String> {
    let key = certificate::key()?;
    let client = Arc::new(config(certificate::public(&key)?)?);
    let terminator = Terminator::start(program, key)?;
    let mut variants = Vec::new();
    for (clients, each) in LOADS {
        for with_evidence in [false, true] {
            let (per_second, cpu) = (Vec::new(), Vec::new());
            variants.push(Variant { clients, each, with_evidence, per_second, cpu });
        }
    }
    for round in 0..rounds {
        // In turn in both orders: what is measured first may find the processor's caches in another state.
        for at in 0..variants.len() {
            let at = if round.is_multiple_of(2) { at } else { variants.len() - 1 - at };
            if let Some(variant) = variants.get_mut(at) {
                variant.measure(&terminator, &client)?;
            }
        }
        progress("handshakes", round, rounds);
    }
    let rows: Vec<_> = variants.chunks(2).filter_map(row).collect();
    let head = [
        "clients",
        "handshakes/s, plain",
        "with evidence",
        "ratio",
        "CPU of the terminator, µs, plain",
        "with evidence",
        "ratio",
    ];
    Ok(table(&head, &rows))
}

/// The row of both variants of a load: medians, and the median of each round's ratio.
fn row(variants: &[Variant]) -> Option<Vec<String>> {
    let [plain, evidence] = variants else { return None };
    let mut cells = vec![plain.clients.to_string()];
    for (plain, evidence) in [(&plain.per_second, &evidence.per_second), (&plain.cpu, &evidence.cpu)] {
        let ratios: Vec<f64> = plain.iter().zip(evidence).map(|(plain, evidence)| evidence / plain).collect();
        cells.extend([format!("{:.0}", median(plain)), format!("{:.0}", median(evidence))]);
        cells.push(format!("{:.2}", median(&ratios)));
    }
    Some(cells)
}

impl Variant {
    fn measure(&mut self, terminator: &Terminator, client: &Arc<ClientConfig>) -> io::Result<()> {
        terminator.present(self.with_evidence)?;
        // The terminator learns of the change in its own time.
        while (handshake(terminator, client)? > PLAIN) != self.with_evidence {}
        let (start, used) = (Instant::now(), terminator.cpu_time()?);
        thread::scope(|scope| {
            let each = self.each;
            let call = move || (0..each).try_for_each(|_| handshake(terminator, client).map(drop));
            let clients: Vec<_> = (0..self.clients).map(|_| scope.spawn(call)).collect();
            let joined = clients
                .into_iter()
                .map(|client| client.join().map_err(|_| io::Error::other("a client panicked"))?);
            joined.collect::<io::Result<()>>()
        })?;
        let count = f64::from(self.clients) * f64::from(self.each);
        self.per_second.push(count / start.elapsed().as_secs_f64());
        self.cpu.push((terminator.cpu_time()? - used) / count);
        Ok(())
    }
}

/// Shakes hands once, and returns the length of the certificate.
fn handshake(terminator: &Terminator, client: &Arc<ClientConfig>) -> io::Result<usize> {
    let name = ServerName::try_from("enclave.example").map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    let mut socket = terminator.connect()?;
    while connection.is_handshaking() || connection.wants_write() {
        let _bytes = connection.complete_io(&mut socket)?;
    }
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    certificate
        .map(|der| der.len())
        .ok_or_else(|| io::Error::other("the terminator presented no certificate"))
}

/// A client that accepts this key only, as `SubjectPublicKeyInfo` in DER, and resumes no session.
fn config(key: Vec<u8>) -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(KeyOnly { key: key.into(), provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(io::Error::other)?.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Verifies the handshake's signature alone.
#[derive(Debug)]
struct KeyOnly {
    key: SubjectPublicKeyInfoDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for KeyOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is used".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &self.key, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
