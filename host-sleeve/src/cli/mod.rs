//! The command line: arguments in, typed requests out.
//!
//! Invariant: the result needs no further parsing, and parsing has no side effects. Each command's help contains an example
//! that can be pasted.

mod backend;
mod evidence;
mod registry;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::values::{self, ImageLimit, duration, image_limit};
pub(crate) use backend::BackendOptions;
pub(crate) use evidence::{Connect, Measure, Skip, Verify, VirtualRoot};
pub(crate) use registry::Registries;
pub(crate) use run::Run;

/// Build, launch and inspect enclaves
#[derive(Debug, Parser)]
#[command(name = "host-sleeve", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// The command
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
    /// Build an enclave image from a container image and a manifest
    #[command(after_help = "Example:
  host-sleeve build --image docker-archive:./app.tar --manifest cloister.yaml -o app.cloister --eif app.eif")]
    Build(Build),
    /// Explain how two enclave images differ, file by file
    #[command(after_help = "Exit code: 0 if they are identical, 1 if not.

Example:
  host-sleeve diff old.cloister new.cloister")]
    Diff(Diff),
    /// Print the measurements the hardware will report for an enclave image
    #[command(after_help = "Examples:
  host-sleeve measure app.cloister
  host-sleeve measure app.eif --json
  host-sleeve measure app.cloister --virtual")]
    Measure(Measure),
    /// Verify an enclave's evidence: what it runs, and on which hardware
    #[command(
        after_help = "Exit code: 0 if it is verified, 1 if not, 125 if the verification could not be made.

Examples:
  host-sleeve verify evidence.cose --measurements app.measurements.json --nonce 00112233445566778899aabbccddeeff
  host-sleeve verify recorded.cose --at 1736180000 --skip nonce --skip measurements --skip events"
    )]
    Verify(Verify),
    /// Listen on a local port, and forward its connections to a port of an enclave, once the enclave is verified
    #[command(after_help = "Example:
  host-sleeve connect web 80 --listen :8080 --verify --measurements app.measurements.json")]
    Connect(Connect),
    /// Check a manifest and report all errors at once
    #[command(after_help = "Example:
  host-sleeve check cloister.yaml")]
    Check(Check),
    /// Launch an enclave from an enclave image
    #[command(
        after_help = "Exit code: the service's own; 128 + n if it was killed by signal n; 123 if --verify failed; 124 if a time limit passed; 125 if Cloister failed, with the reason on standard error.

Examples:
  host-sleeve run app.cloister --publish 8080:80
  host-sleeve run app.cloister --detach --name web --cpus 2 --memory 512MiB"
    )]
    Run(Run),
    /// List enclaves
    #[command(after_help = "Example:
  host-sleeve ps --all")]
    Ps(Ps),
    /// Print the log of an enclave's services
    #[command(after_help = "Example:
  host-sleeve logs -f web")]
    Logs(Logs),
    /// Stop enclaves cleanly, and kill those that do not stop in time
    #[command(after_help = "Example:
  host-sleeve stop web --grace 10s")]
    Stop(Stop),
    /// Remove stopped enclaves and their logs
    #[command(after_help = "Example:
  host-sleeve rm web")]
    Rm(Rm),
    /// Remove pulled images that no build has used recently from the cache
    #[command(after_help = "Examples:
  host-sleeve prune
  host-sleeve prune --unused-for 0h")]
    Prune(Prune),
    /// Show details of an enclave or an enclave image
    #[command(after_help = "Examples:
  host-sleeve inspect web
  host-sleeve inspect app.cloister
  host-sleeve inspect app.eif
  host-sleeve inspect web --service nginx")]
    Inspect(Inspect),
    /// Start, stop, restart or signal one service, if the image's manifest allows it
    #[command(after_help = "Example:
  host-sleeve service restart web nginx")]
    Service(Service),
    /// Show resource usage of the services
    #[command(after_help = "Example:
  host-sleeve stats web")]
    Stats(Stats),
    /// Serve metrics of all enclaves of this user for Prometheus
    #[command(after_help = "Example:
  host-sleeve metrics --listen :9100")]
    Metrics(Metrics),
    /// Report what this host can run, and how to install what is missing
    #[command(after_help = "Example:
  host-sleeve doctor --json")]
    Doctor,
    /// Print the root certificate that signs evidence of virtual enclaves on this host, which no hardware protects
    #[command(after_help = "Examples:
  host-sleeve virtual-root
  host-sleeve virtual-root --output virtual-root.der")]
    VirtualRoot(VirtualRoot),
    /// Pack ramdisk 1 of an OS release
    #[command(hide = true)]
    OsPack(OsPack),
    /// Run the sleeve of one enclave: the process behind `run --detach`
    #[command(hide = true)]
    Sleeve,
}

/// The arguments of `build`.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The container image: `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `docker://HOST/NAME@sha256:…` or
    /// `dir:DIR`
    #[arg(long, value_name = "REFERENCE", required_unless_present = "from")]
    pub(crate) image: Option<String>,
    /// Repeat the build of this build record or enclave image, and fail if any result differs
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// The manifest, in YAML
    #[arg(long, value_name = "FILE", default_value = "cloister.yaml")]
    pub(crate) manifest: PathBuf,
    /// Store the application's files as an archive that is unpacked into memory at boot: for comparisons and experiments
    #[arg(long, hide = true)]
    pub(crate) plain_root: bool,
    /// The enclave image to write; its measurements are written next to it
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Also write the file that AWS Nitro boots
    #[arg(long, value_name = "FILE")]
    pub(crate) eif: Option<PathBuf>,
    /// Change a limit on the image: `unpacked=SIZE`, `metadata=SIZE`, `names=COUNT` or `layers=COUNT`. May be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = image_limit)]
    pub(crate) limit: Vec<ImageLimit>,
    /// Sign for AWS Nitro with this P-384 key, in PEM
    #[arg(long, value_name = "FILE", requires = "sign_certificate")]
    pub(crate) sign_key: Option<PathBuf>,
    /// The key's certificate, in PEM; its digest becomes PCR8
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    pub(crate) sign_certificate: Option<PathBuf>,
    /// The registry options
    #[command(flatten)]
    pub(crate) registries: Registries,
}

/// The arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The first enclave image
    #[arg(value_name = "FIRST")]
    pub(crate) first: PathBuf,
    /// The second enclave image
    #[arg(value_name = "SECOND")]
    pub(crate) second: PathBuf,
}

/// The arguments of `os-pack`.
#[derive(Debug, Args)]
pub(crate) struct OsPack {
    /// The list of contents, such as `rootfs/ramdisk1.list`
    #[arg(long, value_name = "FILE")]
    pub(crate) list: PathBuf,
    /// The directory of the programs in the list
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: PathBuf,
    /// The ramdisk to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// The arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The manifest, in YAML
    #[arg(value_name = "FILE", default_value = "cloister.yaml")]
    pub(crate) manifest: PathBuf,
    /// Also check it against this image: users, programs and paths
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) image: Option<String>,
    /// Change a limit on the image, as with `build`. May be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = image_limit)]
    pub(crate) limit: Vec<ImageLimit>,
    /// The registry options
    #[command(flatten)]
    pub(crate) registries: Registries,
}

/// The arguments of `ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also list enclaves that have ended
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// The arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The enclave
    pub(crate) name: String,
    /// Continue until the enclave ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N", value_parser = values::lines, allow_negative_numbers = true)]
    pub(crate) tail: Option<usize>,
    /// Prefix each line with its time
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Print the enclave's console instead of the log of its services
    #[arg(long, conflicts_with_all = ["service", "timestamps", "tail"])]
    pub(crate) console: bool,
}

/// The arguments of `stop`.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The enclaves
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Time to stop before they are killed [default: the manifest's limit plus five seconds]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) grace: Option<Duration>,
    /// Kill them immediately
    #[arg(long, conflicts_with = "grace")]
    pub(crate) kill: bool,
}

/// The arguments of `rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The enclaves
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) names: Vec<String>,
    /// Remove all enclaves that have ended
    #[arg(long)]
    pub(crate) all: bool,
    /// Kill running enclaves first
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// The arguments of `prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove images that were not used for this long
    #[arg(long, value_name = "DURATION", default_value = DEFAULT_UNUSED, value_parser = duration)]
    pub(crate) unused_for: Duration,
}

/// One month: images that a project still builds from are used more often than that.
const DEFAULT_UNUSED: &str = "30d";

/// The arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The name of an enclave, or the path of an enclave image
    pub(crate) target: String,
    /// Show how this service is confined, as reported by the enclave's kernel
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
}

/// The arguments of `service`.
#[derive(Debug, Args)]
pub(crate) struct Service {
    /// The action
    #[arg(value_parser = ["start", "stop", "restart", "signal"])]
    pub(crate) verb: String,
    /// The enclave
    pub(crate) name: String,
    /// The service
    #[arg(value_name = "SERVICE")]
    pub(crate) target: String,
    /// The signal for `signal`, by name or number
    #[arg(required_if_eq("verb", "signal"), value_parser = values::signal)]
    pub(crate) signal: Option<u8>,
}

/// The arguments of `stats`.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// The enclaves [default: all that are running]
    pub(crate) names: Vec<String>,
    /// Repeat every two seconds, with the CPU share used in between
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// The arguments of `metrics`.
#[derive(Debug, Args)]
pub(crate) struct Metrics {
    /// The address to listen on, `[ADDRESS]:PORT`; port 0 picks a free one [default address: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_METRICS, value_parser = values::listen)]
    pub(crate) listen: std::net::SocketAddr,
}

/// The first port of Prometheus' list of exporter ports. If it is in use, `metrics` fails with an error.
const DEFAULT_METRICS: &str = ":9100";

#[cfg(test)]
mod tests;
