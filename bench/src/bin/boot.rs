//! The boot benchmark: the same kernel, machine and service, alternately in an enclave and under an init of ten lines.
//!
//! `boot KERNEL CMDLINE VSOCK OURS THEIRS ROUNDS CPUS` prints Markdown tables; OURS and THEIRS are bootable ramdisks.
//! `boot --join IMAGE RAMDISK` concatenates the two ramdisks of an enclave image, as `host-sleeve` does.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cloister_bench::client::{self, Connection};
use cloister_bench::figures::{median, table};
use cloister_bench::machine::{Machine, Parts};
use cloister_bench::ports;
use cloister_image::artifact::{Artifact, Part};
use cloister_net::Stream;
use cloister_net::channel::{self, Limits};
use cloister_wire::control::{Assembly, FinishedStage, FromGuest, Status};
use cloister_wire::hello::{Protocol, Role};
use tokio::runtime::Builder;

/// Time limit for a boot.
const LIMIT: Duration = Duration::from_mins(1);

/// The pause between two requests: short compared with the measured times, and the same for both variants.
const PAUSE: Duration = Duration::from_millis(2);

/// Time limit for one attempt: the device may have lost the connection.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum length of the service's line, which contains a few numbers.
const LONGEST_LINE: usize = 128;

fn main() -> ExitCode {
    let runtime = Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(measure())) {
        Ok(text) => {
            write!(io::stdout(), "{text}").unwrap_or_default();
            ExitCode::SUCCESS
        }
        Err(error) => {
            writeln!(io::stderr(), "boot: error: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

/// The two variants of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Cloister,
    TenLines,
}

/// One boot, in milliseconds.
#[derive(Debug)]
struct Boot {
    /// From QEMU's start until the guest's clock started.
    kernel: f64,
    /// From there until PID 1 started.
    init: f64,
    /// From there until the service started.
    service: f64,
    /// From there until the host had the first byte of the response.
    answer: f64,
    /// [`Machine::work`] until then, and its unit.
    work: (f64, &'static str),
    /// The stages of an enclave's boot.
    stages: Vec<FinishedStage>,
}

impl Boot {
    fn total(&self) -> f64 {
        self.kernel + self.init + self.service + self.answer
    }
}

async fn measure() -> io::Result<String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [join, image, ramdisk] = arguments.as_slice()
        && join == "--join"
    {
        return join_ramdisks(image.as_ref(), ramdisk.as_ref()).map(|()| String::new());
    }
    let argument = |at: usize| {
        let usage = "usage: boot KERNEL CMDLINE VSOCK OURS THEIRS ROUNDS CPUS";
        arguments.get(at).cloned().ok_or_else(|| io::Error::other(usage))
    };
    let parts = |ramdisk: String| -> io::Result<Parts> {
        let cpus = argument(6)?.parse().map_err(io::Error::other)?;
        let (kernel, cmdline, vsock) = (argument(0)?.into(), argument(1)?, argument(2)?.into());
        Ok(Parts { kernel, cmdline, vsock, ramdisk: ramdisk.into(), cpus })
    };
    let (ours, theirs) = (parts(argument(3)?)?, parts(argument(4)?)?);
    let rounds: u32 = argument(5)?.parse().map_err(io::Error::other)?;
    let (mut our_boots, mut their_boots) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        their_boots.push(boot(&theirs, Variant::TenLines).await?);
        our_boots.push(boot(&ours, Variant::Cloister).await?);
        let done = round.saturating_add(1);
        writeln!(io::stderr(), "boot: {done} of {rounds} rounds").unwrap_or_default();
    }
    Ok(report(&our_boots, &their_boots))
}

/// Archives in a ramdisk start at multiples of four bytes.
fn join_ramdisks(image: &Path, ramdisk: &Path) -> io::Result<()> {
    let artifact = Artifact::open(image).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    for part in [Part::OsRamdisk, Part::AppRamdisk] {
        artifact.copy(part, &mut bytes).map_err(io::Error::other)?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    std::fs::write(ramdisk, bytes)
}

async fn boot(parts: &Parts, variant: Variant) -> io::Result<Boot> {
    let machine = Machine::boot(parts)?;
    // The last line before the service can be reached.
    let last_line = if variant == Variant::Cloister { "serve: done" } else { "listening" };
    machine.wait_for_console(last_line).await?;
    let (line, answered) = loop {
        match tokio::time::timeout(ATTEMPT_TIMEOUT, request(&machine, variant)).await {
            Ok(Ok(found)) => break found,
            _ if machine.started().elapsed() > LIMIT => {
                return Err(io::Error::other(format!("the service does not answer:\n{}", machine.console())));
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    };
    let work = (machine.work()?, machine.unit_of_work());
    let times: Vec<f64> = line.split_whitespace().map(|word| word.parse().unwrap_or(f64::NAN)).collect();
    let &[reported_init, service, now] = times.as_slice() else {
        return Err(io::Error::other(format!("unexpected line from the service: {line:?}")));
    };
    let stages = if variant == Variant::Cloister { status(&machine).await?.boot } else { Vec::new() };
    let init = stages.first().map_or(reported_init, |first| micros(first.at_us));
    let total = answered.duration_since(machine.started()).as_secs_f64() * 1e3;
    Ok(Boot {
        kernel: total - now / 1e3,
        init: init / 1e3,
        service: (service - init) / 1e3,
        answer: (now - service) / 1e3,
        work,
        stages,
    })
}

/// Sends one request to the service: returns its line, and the time at which the first byte arrived.
async fn request(machine: &Machine, variant: Variant) -> io::Result<(String, Instant)> {
    let mut connection = if variant == Variant::Cloister {
        let mut connection =
            Connection::by_ingress(client::dial(&machine.vsock(), cloister_wire::ports::INGRESS).await?)?;
        connection.open().await?;
        connection
    } else {
        Connection::plain(client::dial(&machine.vsock(), ports::RAW).await?)
    };
    let (mut line, mut answered) = (Vec::new(), None);
    while !line.ends_with(b"\n") && line.len() < LONGEST_LINE {
        let mut piece = [0; LONGEST_LINE];
        let count = connection.recv(&mut piece).await?;
        answered.get_or_insert_with(Instant::now);
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend(piece.get(..count).unwrap_or_default());
    }
    let answered = answered.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((String::from_utf8(line).map_err(io::Error::other)?, answered))
}

/// The enclave's status, as any host reads it.
async fn status(machine: &Machine) -> io::Result<Status> {
    let stream: Stream = client::dial(&machine.vsock(), cloister_wire::ports::CONTROL).await?;
    let opened = channel::open(stream, Protocol::Control, Role::Host, Limits::HOST).await;
    let (mut receiver, _sender) = opened.map_err(io::Error::other)?;
    let mut assembly = Assembly::default();
    loop {
        let whole = match receiver.receive().await.map_err(io::Error::other)? {
            FromGuest::Status(head) => assembly.head(head).map_err(io::Error::other)?,
            FromGuest::Services(page) => assembly.page(page).map_err(io::Error::other)?,
            FromGuest::Reply { .. } => None,
        };
        if let Some(status) = whole {
            return Ok(status);
        }
    }
}

fn report(ours: &[Boot], theirs: &[Boot]) -> String {
    let of = |boots: &[Boot], what: fn(&Boot) -> f64| median(&boots.iter().map(what).collect::<Vec<_>>());
    let row = |name: &str, what: fn(&Boot) -> f64| {
        let (mine, other) = (of(ours, what), of(theirs, what));
        vec![
            name.to_owned(),
            format!("{mine:.1}"),
            format!("{other:.1}"),
            format!("{:+.1}", mine - other),
            format!("{:.2}", mine / other),
        ]
    };
    let rows = [
        row("QEMU's start → the kernel's clock, ms", |boot| boot.kernel),
        row("→ PID 1, ms", |boot| boot.init),
        row("→ the service's first instruction, ms", |boot| boot.service),
        row("→ first byte of the response at the host, ms", |boot| boot.answer),
        row("**total, ms**", Boot::total),
        row("PID 1 → first byte, ms", |boot| boot.service + boot.answer),
        row(ours.first().map_or("", |boot| boot.work.1), |boot| boot.work.0),
    ];
    let seen = table(&["", "Cloister", "ten lines", "difference", "ratio"], &rows);
    format!("{seen}\n{}", stages(ours))
}

/// The stages of init, medians.
fn stages(boots: &[Boot]) -> String {
    let names = boots.first().map(|boot| boot.stages.as_slice()).unwrap_or_default();
    let rows: Vec<Vec<String>> = names
        .iter()
        .enumerate()
        .map(|(at, stage)| {
            let of = |what: fn(&FinishedStage) -> u64| {
                let all = boots.iter().filter_map(|boot| boot.stages.get(at));
                median(&all.map(|stage| micros(what(stage)) / 1e3).collect::<Vec<_>>())
            };
            vec![
                stage.name.clone(),
                format!("{:.1}", of(|stage| stage.at_us)),
                format!("{:.1}", of(|stage| stage.took_us)),
            ]
        })
        .collect();
    table(&["stage of init", "start, ms of the guest's clock", "duration, ms"], &rows)
}

fn micros(value: u64) -> f64 {
    u32::try_from(value).map_or(f64::NAN, f64::from)
}
