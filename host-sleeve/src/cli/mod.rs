//! The command line: words of an operator in, typed requests out.
//!
//! Its law: what comes out of here needs no further parsing, and nothing here touches the machine. Each command's help
//! carries an example that can be pasted.

mod backend;
mod registry;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::values::{self, ImageLimit, Publish, duration, image_limit, publish, size};
pub(crate) use backend::BackendOptions;
pub(crate) use registry::Registries;

/// Builds enclave images, launches them and tells the truth about them.
#[derive(Debug, Parser)]
#[command(name = "host-sleeve", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// What to do
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXAMPLES: &str = "Examples:
  host-sleeve build --image oci:./layout --manifest cloister.yaml -o app.cloister
  host-sleeve run app.cloister --publish 8080:80
  host-sleeve doctor";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Turn a container image and a manifest into an enclave image
    #[command(after_help = "Example:
  host-sleeve build --image docker-archive:./app.tar --manifest cloister.yaml -o app.cloister --eif app.eif")]
    Build(Build),
    /// Explain how two enclave images differ, file by file
    #[command(after_help = "Exit code: 0 if they are the same, 1 if not.

Example:
  host-sleeve diff old.cloister new.cloister")]
    Diff(Diff),
    /// Say what the hardware will measure of an enclave image
    #[command(after_help = "Examples:
  host-sleeve measure app.cloister
  host-sleeve measure app.eif --json")]
    Measure(Measure),
    /// Check a manifest and report every fault at once
    #[command(after_help = "Example:
  host-sleeve check cloister.yaml")]
    Check(Check),
    /// Launch an enclave image
    #[command(
        after_help = "Exit code: the service's own; 128 and the signal's number if a signal ended it; 124 if a time limit passed; 125 if Cloister failed, with the reason on standard error.

Examples:
  host-sleeve run app.cloister --publish 8080:80
  host-sleeve run app.cloister --detach --name web --cpus 2 --memory 512MiB"
    )]
    Run(Run),
    /// List enclaves
    #[command(after_help = "Example:
  host-sleeve ps --all")]
    Ps(Ps),
    /// Print what the services of an enclave said
    #[command(after_help = "Example:
  host-sleeve logs -f web")]
    Logs(Logs),
    /// Stop enclaves in order, and kill what does not end in time
    #[command(after_help = "Example:
  host-sleeve stop web --grace 10s")]
    Stop(Stop),
    /// Forget ended enclaves and their logs
    #[command(after_help = "Example:
  host-sleeve rm web")]
    Rm(Rm),
    /// Remove pulled images from the cache that no build has used for some time
    #[command(after_help = "Examples:
  host-sleeve prune
  host-sleeve prune --unused-for 0h")]
    Prune(Prune),
    /// Tell all about an enclave or an enclave image
    #[command(after_help = "Examples:
  host-sleeve inspect web
  host-sleeve inspect app.cloister
  host-sleeve inspect app.eif
  host-sleeve inspect web --service nginx")]
    Inspect(Inspect),
    /// Start, stop, restart or signal one service, where the image's manifest allows it
    #[command(after_help = "Example:
  host-sleeve service restart web nginx")]
    Service(Service),
    /// Show what the services use
    #[command(after_help = "Example:
  host-sleeve stats web")]
    Stats(Stats),
    /// Serve metrics of every enclave of this user for Prometheus
    #[command(after_help = "Example:
  host-sleeve metrics --listen :9100")]
    Metrics(Metrics),
    /// Say what this host can run, and what would add what is missing
    #[command(after_help = "Example:
  host-sleeve doctor --json")]
    Doctor,
    /// Pack ramdisk 1 of a release of the operating system
    #[command(hide = true)]
    OsPack(OsPack),
    /// Stay with one enclave: the process behind `run --detach`
    #[command(hide = true)]
    Sleeve,
}

/// What `build` takes.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Where the application's files come from: `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`,
    /// `docker://HOST/NAME@sha256:…` or `dir:DIR`
    #[arg(long, value_name = "REFERENCE", required_unless_present = "from")]
    pub(crate) image: Option<String>,
    /// Build again what this record, or this enclave image, says, and fail if it does not come out the same
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// The manifest, in YAML
    #[arg(long, value_name = "FILE", default_value = "cloister.yaml")]
    pub(crate) manifest: PathBuf,
    /// The application's files as an archive that is unpacked into memory at boot: for comparing, and for trials
    #[arg(long, hide = true)]
    pub(crate) plain_root: bool,
    /// The enclave image to write. What the hardware will measure of it is written beside it
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Write the file that AWS Nitro boots, too
    #[arg(long, value_name = "FILE")]
    pub(crate) eif: Option<PathBuf>,
    /// Move a limit of what an image may be: `unpacked=SIZE`, `metadata=SIZE`, `names=COUNT` or `layers=COUNT`
    #[arg(long, value_name = "NAME=VALUE", value_parser = image_limit)]
    pub(crate) limit: Vec<ImageLimit>,
    /// Sign for AWS Nitro with this key: P-384, in PEM
    #[arg(long, value_name = "FILE", requires = "sign_certificate")]
    pub(crate) sign_key: Option<PathBuf>,
    /// The key's certificate, in PEM; its digest becomes PCR8
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    pub(crate) sign_certificate: Option<PathBuf>,
    /// How registries are reached
    #[command(flatten)]
    pub(crate) registries: Registries,
}

/// What `measure` takes.
#[derive(Debug, Args)]
pub(crate) struct Measure {
    /// An enclave image, or an enclave image file
    #[arg(value_name = "APP")]
    pub(crate) app: PathBuf,
}

/// What `diff` takes.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// An enclave image
    #[arg(value_name = "FIRST")]
    pub(crate) first: PathBuf,
    /// Another one
    #[arg(value_name = "SECOND")]
    pub(crate) second: PathBuf,
}

/// What `os-pack` takes.
#[derive(Debug, Args)]
pub(crate) struct OsPack {
    /// What goes in, as `rootfs/ramdisk1.list` has it
    #[arg(long, value_name = "FILE")]
    pub(crate) list: PathBuf,
    /// Where the programs lie that the list names
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: PathBuf,
    /// The ramdisk to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// What `check` takes.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The manifest, in YAML
    #[arg(value_name = "FILE", default_value = "cloister.yaml")]
    pub(crate) manifest: PathBuf,
    /// Check it against this image too: its users, programs and paths
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) image: Option<String>,
    /// Move a limit of what that image may be, as `build` takes it
    #[arg(long, value_name = "NAME=VALUE", value_parser = image_limit)]
    pub(crate) limit: Vec<ImageLimit>,
    /// How registries are reached
    #[command(flatten)]
    pub(crate) registries: Registries,
}

/// What `run` takes.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
pub(crate) struct Run {
    /// The enclave image, or an enclave image file
    #[arg(value_name = "APP")]
    pub(crate) app: PathBuf,
    /// Make a port of the enclave reachable: `[ADDRESS:]PORT:INGRESS_PORT`. The address is 127.0.0.1 unless given; port 0
    /// takes a free one
    #[arg(short, long, value_name = "PORTS", value_parser = publish)]
    pub(crate) publish: Vec<Publish>,
    /// Run in the background, and return when the enclave is ready
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// The enclave's name: lower-case letters, digits and hyphens. Otherwise the manifest's name and a number
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub(crate) name: Option<String>,
    /// Take the name over from an enclave that has ended
    #[arg(long, requires = "name")]
    pub(crate) replace: bool,
    /// Forget the enclave and its logs when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CPUS, value_parser = clap::value_parser!(u32).range(1..=MAX_CPUS))]
    pub(crate) cpus: u32,
    /// Memory, such as 512MiB. Otherwise 512 MiB, or more where the image needs it
    #[arg(short, long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// Stop the enclave after this time, and end with 124
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// How long it may take to become ready. Otherwise one minute and what the manifest's services may take
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ready_timeout: Option<Duration>,
    /// Where to run it: `qemu`, or `qemu-nitro`, which emulates an AWS Nitro enclave. Otherwise qemu, and qemu-nitro for an
    /// enclave image file
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// What the backends offer
    #[command(flatten)]
    pub(crate) options: BackendOptions,
    /// Serve metrics for Prometheus at this address, `[ADDRESS]:PORT`, path /metrics. The address is 127.0.0.1 unless given
    #[arg(long, value_name = "ADDRESS", value_parser = values::listen)]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    /// Show the enclave's console on standard error as well
    #[arg(long)]
    pub(crate) console: bool,
}

/// Enough to keep the supervisor out of the service's way, few enough for a laptop.
const DEFAULT_CPUS: u32 = 2;

/// What the guest kernel is configured for at most is of this order; more is a typing error.
const MAX_CPUS: i64 = 255;

/// What `ps` takes.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Ended enclaves too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What `logs` takes.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The enclave
    pub(crate) name: String,
    /// Go on until the enclave ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Only about the last N lines of what is kept
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// Put the time in front of each line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// The enclave's console instead of its services
    #[arg(long, conflicts_with_all = ["service", "timestamps", "tail"])]
    pub(crate) console: bool,
}

/// What `stop` takes.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The enclaves
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// How long they may take before they are killed. Otherwise what their manifest says
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) grace: Option<Duration>,
    /// Kill them at once
    #[arg(long, conflicts_with = "grace")]
    pub(crate) kill: bool,
}

/// What `rm` takes.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The enclaves
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) names: Vec<String>,
    /// Every enclave that has ended
    #[arg(long)]
    pub(crate) all: bool,
    /// Kill those that still run first
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// What `prune` takes.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove what was not used for this long
    #[arg(long, value_name = "DURATION", default_value = DEFAULT_UNUSED, value_parser = duration)]
    pub(crate) unused_for: Duration,
}

/// A month: what a project builds from is used more often, what it has left behind is not.
const DEFAULT_UNUSED: &str = "30d";

/// What `inspect` takes.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The name of an enclave, or the path of an enclave image
    pub(crate) target: String,
    /// What confines this service, read back from the enclave's kernel
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
}

/// What `service` takes.
#[derive(Debug, Args)]
pub(crate) struct Service {
    /// What to do
    #[arg(value_parser = ["start", "stop", "restart", "signal"])]
    pub(crate) verb: String,
    /// The enclave
    pub(crate) name: String,
    /// The service
    #[arg(value_name = "SERVICE")]
    pub(crate) target: String,
    /// The signal, by name or number, for `signal`
    #[arg(required_if_eq("verb", "signal"), value_parser = values::signal)]
    pub(crate) signal: Option<u8>,
}

/// What `stats` takes.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// The enclaves; all that run unless named
    pub(crate) names: Vec<String>,
    /// Show it again every two seconds, with the share of a CPU used in between
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// What `metrics` takes.
#[derive(Debug, Args)]
pub(crate) struct Metrics {
    /// Where to listen, `[ADDRESS]:PORT`. The address is 127.0.0.1 unless given; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_METRICS, value_parser = values::listen)]
    pub(crate) listen: std::net::SocketAddr,
}

/// Where the exporters of a host begin by Prometheus' list of ports; where another one is there already, it is said.
const DEFAULT_METRICS: &str = ":9100";

#[cfg(test)]
mod tests;
