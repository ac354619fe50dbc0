//! The boot benchmark: the same kernel, machine and service, once in an enclave and once under an init of ten lines, in
//! turns.
//!
//! `boot KERNEL CMDLINE VSOCK OURS THEIRS ROUNDS CPUS` prints Markdown tables; the ramdisks are ready to boot.
//! `boot --join IMAGE RAMDISK` writes the two ramdisks of an enclave image one after the other, as `host-sleeve` does.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cloister_bench::client::{self, Talk};
use cloister_bench::figures::{median, table};
use cloister_bench::machine::{Machine, Parts};
use cloister_bench::ports;
use cloister_image::artifact::{Artifact, Part};
use cloister_net::Stream;
use cloister_wire::control::{FinishedStage, FromGuest, Status};
use cloister_wire::frame::{self, Decoder, HOST_LIMIT};
use cloister_wire::hello::{Hello, Protocol, Role};
use tokio::runtime::Builder;

/// The longest boot that is waited for.
const LIMIT: Duration = Duration::from_mins(1);

/// Between two questions whether the service answers: short beside what is measured, and the same for both.
const PAUSE: Duration = Duration::from_millis(2);

/// An attempt that has no answer by now is given up: the device may have lost it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest line of the service: a few numbers.
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

/// The two ways to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Cloister,
    TenLines,
}

/// One boot, in milliseconds.
#[derive(Debug)]
struct Boot {
    /// From QEMU's start until the guest's clock began.
    kernel: f64,
    /// From there until PID 1 began.
    init: f64,
    /// From there until the service began.
    service: f64,
    /// From there until the host had the first byte of an answer.
    answer: f64,
    /// Processor seconds of QEMU until then.
    work: f64,
    /// The stages of an enclave's boot.
    stages: Vec<FinishedStage>,
}

impl Boot {
    fn whole(&self) -> f64 {
        self.kernel + self.init + self.service + self.answer
    }
}

async fn measure() -> io::Result<String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [join, image, ramdisk] = words.as_slice()
        && join == "--join"
    {
        return join_ramdisks(image.as_ref(), ramdisk.as_ref()).map(|()| String::new());
    }
    let word = |at: usize| {
        let usage = "KERNEL CMDLINE VSOCK OURS THEIRS ROUNDS CPUS";
        words.get(at).cloned().ok_or_else(|| io::Error::other(usage))
    };
    let parts = |ramdisk: String| -> io::Result<Parts> {
        let cpus = word(6)?.parse().map_err(io::Error::other)?;
        let (kernel, cmdline, vsock) = (word(0)?.into(), word(1)?, word(2)?.into());
        Ok(Parts { kernel, cmdline, vsock, ramdisk: ramdisk.into(), cpus })
    };
    let (ours, theirs) = (parts(word(3)?)?, parts(word(4)?)?);
    let rounds: u32 = word(5)?.parse().map_err(io::Error::other)?;
    let (mut our_boots, mut their_boots) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        their_boots.push(boot(&theirs, Way::TenLines).await?);
        our_boots.push(boot(&ours, Way::Cloister).await?);
        let done = round.saturating_add(1);
        writeln!(io::stderr(), "boot: {done} of {rounds} rounds").unwrap_or_default();
    }
    Ok(report(&our_boots, &their_boots))
}

/// Archives in a ramdisk begin on multiples of four bytes.
fn join_ramdisks(image: &Path, ramdisk: &Path) -> io::Result<()> {
    let artifact = Artifact::open(image).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    for part in [Part::OsRamdisk, Part::AppRamdisk] {
        artifact.copy(part, &mut bytes).map_err(io::Error::other)?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    std::fs::write(ramdisk, bytes)
}

async fn boot(parts: &Parts, way: Way) -> io::Result<Boot> {
    let machine = Machine::boot(parts)?;
    // What is said last before the service can be there.
    machine.says(if way == Way::Cloister { "serve: done" } else { "listening" }).await?;
    let (line, answered) = loop {
        match tokio::time::timeout(PATIENCE, ask(&machine, way)).await {
            Ok(Ok(found)) => break found,
            _ if machine.started().elapsed() > LIMIT => {
                return Err(io::Error::other(format!("the service does not answer:\n{}", machine.console())));
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    };
    let work = machine.work()?;
    let times: Vec<f64> = line.split_whitespace().map(|word| word.parse().unwrap_or(f64::NAN)).collect();
    let &[told_init, service, now] = times.as_slice() else {
        return Err(io::Error::other(format!("the service says {line:?}")));
    };
    let stages = if way == Way::Cloister { status(&machine).await?.boot } else { Vec::new() };
    let init = stages.first().map_or(told_init, |first| micros(first.at_us));
    let whole = answered.duration_since(machine.started()).as_secs_f64() * 1e3;
    Ok(Boot {
        kernel: whole - now / 1e3,
        init: init / 1e3,
        service: (service - init) / 1e3,
        answer: (now - service) / 1e3,
        work,
        stages,
    })
}

/// Asks the service once: its line, and when its first byte had come.
async fn ask(machine: &Machine, way: Way) -> io::Result<(String, Instant)> {
    let mut talk = if way == Way::Cloister {
        let mut talk =
            Talk::by_ingress(client::dial(&machine.vsock(), cloister_wire::ports::INGRESS).await?)?;
        talk.open().await?;
        talk
    } else {
        Talk::plain(client::dial(&machine.vsock(), ports::RAW).await?)
    };
    let (mut line, mut answered) = (Vec::new(), None);
    while !line.ends_with(b"\n") && line.len() < LONGEST_LINE {
        let mut piece = [0; LONGEST_LINE];
        let count = talk.recv(&mut piece).await?;
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
    let hello =
        frame::encode(&Hello::new(Protocol::Control, Role::Host), HOST_LIMIT).map_err(io::Error::other)?;
    stream.send_all(&hello).await?;
    let mut decoder = Decoder::new(HOST_LIMIT);
    let mut frames = 0_u32;
    loop {
        let bytes = stream.recv_some(HOST_LIMIT).await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        decoder.push(&bytes);
        while let Some(body) = decoder.next_frame().map_err(io::Error::other)? {
            frames = frames.saturating_add(1);
            // The first is the hello.
            if frames > 1
                && let FromGuest::Status(status) = frame::decode(body).map_err(io::Error::other)?
            {
                return Ok(status);
            }
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
        row("→ first byte of an answer at the host, ms", |boot| boot.answer),
        row("**whole, ms**", Boot::whole),
        row("PID 1 → first byte, ms", |boot| boot.service + boot.answer),
        row("processor time of QEMU, ms", |boot| boot.work * 1000.0),
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
    table(&["stage of init", "began, ms of the guest's clock", "took, ms"], &rows)
}

fn micros(value: u64) -> f64 {
    u32::try_from(value).map_or(f64::NAN, f64::from)
}
