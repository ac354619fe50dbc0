//! The options of `run`.
//!
//! Invariant: what an option requires of another one is stated here, and refused before anything is read.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::BackendOptions;
use crate::values::{self, Publish, duration, publish, size};

/// The arguments of `run`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
pub(crate) struct Run {
    /// The enclave image, or an enclave image file
    #[arg(value_name = "APP")]
    pub(crate) app: PathBuf,
    /// Publish an ingress port on this host: `[ADDRESS:]PORT:INGRESS_PORT`; port 0 picks a free one. May be repeated
    /// [default address: 127.0.0.1]
    #[arg(short, long, value_name = "PORTS", value_parser = publish)]
    pub(crate) publish: Vec<Publish>,
    /// Run in the background, and return when the enclave is ready
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// The enclave's name: lower-case letters, digits and hyphens [default: the manifest's name and a number]
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub(crate) name: Option<String>,
    /// Take over the name of an enclave that has ended
    #[arg(long, requires = "name")]
    pub(crate) replace: bool,
    /// Delete the enclave's record and its logs when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Number of virtual CPUs
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CPUS, value_parser = clap::value_parser!(u32).range(1..=MAX_CPUS))]
    pub(crate) cpus: u32,
    /// Memory of the enclave, such as 512MiB [default: 512 MiB, or what the image needs plus 256 MiB]
    #[arg(short, long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// Stop the enclave after this time, and exit with 124
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Time limit for becoming ready [default: one minute plus the sum of the services' start limits]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ready_timeout: Option<Duration>,
    /// Where to run it: `qemu`, or `qemu-nitro`, which emulates an AWS Nitro enclave [default: qemu, or qemu-nitro for an
    /// enclave image file]
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// The options of the backends
    #[command(flatten)]
    pub(crate) options: BackendOptions,
    /// Serve metrics for Prometheus on `[ADDRESS]:PORT` at /metrics [default address: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", value_parser = values::listen)]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    /// Also show the enclave's console on standard error
    #[arg(long)]
    pub(crate) console: bool,
    /// Report it as ready only after its evidence was verified; if that fails, end it and exit with 123. The image needs an
    /// attestation port
    #[arg(long)]
    pub(crate) verify: bool,
    /// With --verify: the measurements of an image that is accepted, in place of those predicted for APP. May be repeated
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) measurements: Vec<PathBuf>,
}

/// Enough that the supervisor does not slow the service down, few enough for a laptop.
const DEFAULT_CPUS: u32 = 2;

/// The guest kernel's configured maximum is of this order; a larger number is a typing error.
const MAX_CPUS: i64 = 255;
