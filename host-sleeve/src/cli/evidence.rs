//! The options of the commands about evidence: `measure`, `verify`, `connect` and `virtual-root`.
//!
//! Invariant: no check is left out by omission: one that is not to be made is named with `--skip`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cloister_evidence::hex;

use crate::values::{duration, listen};

/// The arguments of `measure`.
#[derive(Debug, Args)]
pub(crate) struct Measure {
    /// The enclave image, or an enclave image file
    #[arg(value_name = "APP")]
    pub(crate) app: PathBuf,
    /// Those of the platform `virtual` (backend `qemu`), which no hardware vouches for
    #[arg(long = "virtual")]
    pub(crate) development: bool,
}

/// The arguments of `virtual-root`.
#[derive(Debug, Args)]
pub(crate) struct VirtualRoot {
    /// Also write the certificate, in DER, to this file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// The arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The evidence: a document of AWS Nitro or of the platform virtual, a report of SEV-SNP, or a quote of TDX; `-` reads
    /// standard input; https://HOST:PORT requests it from a running enclave's attestation server, and the name of a running enclave
    /// through its sleeve
    #[arg(value_name = "FILE|URL|NAME")]
    pub(crate) evidence: PathBuf,
    /// The measurements of an image that is accepted: Nitro, as written by `build`, or virtual, as printed by `measure --virtual
    /// --json`. May be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) measurements: Vec<PathBuf>,
    /// More requirements, in JSON; SEV-SNP and TDX need one
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The nonce that the evidence was requested with, in hexadecimal digits: 16 to 64 bytes
    #[arg(long, value_name = "HEX", value_parser = bytes)]
    pub(crate) nonce: Option<Bytes>,
    /// The public key that the evidence must be for, in DER (`SubjectPublicKeyInfo`) [default: none]
    #[arg(long, value_name = "FILE", requires = "nonce")]
    pub(crate) public_key: Option<PathBuf>,
    /// The user data that the evidence must be for [default: none]
    #[arg(long, value_name = "FILE", requires = "nonce")]
    pub(crate) user_data: Option<PathBuf>,
    /// The enclave's event log [default: the end of the boot and nothing else]
    #[arg(long, value_name = "FILE", conflicts_with = "report_data")]
    pub(crate) event_log: Option<PathBuf>,
    /// The report data itself, 64 bytes in hexadecimal digits, in place of Cloister's binding of nonce, key, log and user data:
    /// SEV-SNP and TDX
    #[arg(long, value_name = "HEX", value_parser = bytes, conflicts_with = "nonce")]
    pub(crate) report_data: Option<Bytes>,
    /// The certificates of a SEV-SNP report, in PEM or DER: VCEK or VLEK, then ASK or ASVK, then ARK. May be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Vec<PathBuf>,
    /// AMD's list of revoked certificates, in DER
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Option<PathBuf>,
    /// Intel's collateral of a TDX quote, in JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) collateral: Option<PathBuf>,
    /// A root to trust for the platform virtual, in PEM or DER. May be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) trust_root: Vec<PathBuf>,
    /// Accept the platform virtual, which no hardware protects
    #[arg(long, requires = "trust_root")]
    pub(crate) allow_virtual: bool,
    /// How old the evidence may be: Nitro and virtual [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) max_age: Option<Duration>,
    /// Verify recorded evidence as of this time, in seconds since 1970 [default: now]
    #[arg(long, value_name = "UNIXTIME")]
    pub(crate) at: Option<u64>,
    /// Do not make this check. May be repeated
    #[arg(long, value_name = "CHECK")]
    pub(crate) skip: Vec<Skip>,
}

/// The arguments of `connect`.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// The enclave
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The ingress port of its manifest
    #[arg(value_name = "PORT")]
    pub(crate) port: u16,
    /// The address to listen on, `[ADDRESS]:PORT`; port 0 picks a free one [default address: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", default_value = ANY_PORT, value_parser = listen)]
    pub(crate) listen: SocketAddr,
    /// Verify the enclave before each connection
    #[arg(long, requires = "measurements")]
    pub(crate) verify: bool,
    /// The measurements of an image that is accepted, as with `verify`. May be repeated
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) measurements: Vec<PathBuf>,
    /// The event log that is required [default: any that the evidence confirms]
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) event_log: Option<PathBuf>,
    /// A root to trust for the platform virtual, in PEM or DER. May be repeated
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) trust_root: Vec<PathBuf>,
    /// Accept the platform virtual, which no hardware protects
    #[arg(long, requires = "trust_root")]
    pub(crate) allow_virtual: bool,
    /// How old the evidence may be [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "verify")]
    pub(crate) max_age: Option<Duration>,
}

/// Any free port.
const ANY_PORT: &str = ":0";

/// A check that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Skip {
    /// The nonce, and with it the binding: evidence of another request is accepted
    Nonce,
    /// The binding of key and user data: nothing ties the evidence to a connection
    Binding,
    /// The measurements: the enclave may run anything
    Measurements,
    /// The events since the boot
    Events,
}

/// Bytes on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

fn bytes(text: &str) -> Result<Bytes, String> {
    let wrong = || "bytes are written as pairs of hexadecimal digits in lower case, such as 00ff".to_owned();
    hex::bytes(text).map(Bytes).ok_or_else(wrong)
}
