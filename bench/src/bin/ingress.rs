//! The ingress benchmark: one client, one service, and the paths between them, measured alternately.
//!
//! `ingress KERNEL CMDLINE GUEST VSOCK ROUNDS CPUS [PART OF A PATH'S NAME]...` prints Markdown tables.
//! Ratios are to the first path that is measured. With [`machine::COUNTER`], the guest's work is given in instructions
//! instead of CPU time.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;

use cloister_bench::client::{self, LIMIT, Route};
use cloister_bench::figures::{median, quantile, table};
use cloister_bench::machine::{self, Machine, Parts};
use cloister_bench::ports;
use cloister_net::{Listener, Stream};
use cloister_relay::{Options, Works, relay};
use cloister_wire::frame;
use cloister_wire::hello::VERSION;
use cloister_wire::ingress::{Framing, HEADER_LIMIT, Header};
use tokio::runtime::Builder;

/// Bytes of one bulk transfer: a few tenths of a second.
const BULK: u64 = 32_000_000;

/// Round trips of one sample.
const TRIPS: u32 = 500;

/// Connections of one sample.
const CONNECTIONS: u32 = 320;

/// Connections made in parallel in the parallel sample.
const PARALLEL: u32 = 16;

/// Idle connections for the memory figure.
const IDLE: u32 = 400;

fn main() -> ExitCode {
    let runtime = Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(measure())) {
        Ok(text) => {
            write!(io::stdout(), "{text}").unwrap_or_default();
            ExitCode::SUCCESS
        }
        Err(error) => {
            log(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn log(line: &str) {
    writeln!(io::stderr(), "ingress: {line}").unwrap_or_default();
}

/// A path and its samples.
struct Measured {
    name: &'static str,
    route: Route,
    up: Vec<f64>,
    down: Vec<f64>,
    trips: Vec<f64>,
    one: Vec<f64>,
    many: Vec<f64>,
    /// [`Machine::work`] for each sample, in the order of [`STEPS`].
    work: [Vec<f64>; 5],
    /// Bytes per idle connection, and waits per round trip.
    footprint: Option<(f64, f64)>,
}

/// What the guest's work is divided by, and how often a sample contains it.
const STEPS: [(&str, f64); 5] = [
    ("per MB in", 32.0),
    ("per MB out", 32.0),
    ("per round trip", 500.0),
    ("per connection, sequential", 320.0),
    ("16 in parallel", 320.0),
];

async fn measure() -> io::Result<String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize| {
        let usage = "usage: ingress KERNEL CMDLINE GUEST VSOCK ROUNDS CPUS";
        arguments.get(at).cloned().ok_or_else(|| io::Error::other(usage))
    };
    let rounds: u32 = argument(4)?.parse().map_err(io::Error::other)?;
    let folder = tempfile::tempdir()?;
    let ramdisk = folder.path().join("ramdisk");
    let socat = socat();
    let mut programs: Vec<(PathBuf, PathBuf)> =
        socat.iter().map(|file| (file.clone(), file.clone())).collect();
    programs.push((PathBuf::from("/init"), argument(2)?.into()));
    machine::pack(&programs, &ramdisk)?;
    let parts = Parts {
        kernel: argument(0)?.into(),
        cmdline: argument(1)?,
        ramdisk,
        vsock: argument(3)?.into(),
        cpus: argument(5)?.parse().map_err(io::Error::other)?,
    };
    let machine = Machine::boot(&parts)?;
    let mut paths = paths(&machine, !socat.is_empty())?;
    let wanted = arguments.get(6..).unwrap_or_default();
    paths.retain(|path| wanted.is_empty() || wanted.iter().any(|part| path.name.contains(part.as_str())));
    machine.wait_for_console("all programs started").await?;
    for path in &paths {
        if let Route::Vsock(_, port) | Route::Ingress(_, port) = &path.route {
            machine.wait_for_port(*port).await?;
        }
    }
    for round in 0..rounds {
        for path in &mut paths {
            log(&format!("round {} of {rounds}: {}", round.saturating_add(1), path.name));
            if let Err(error) =
                tokio::time::timeout(LIMIT, path.sample(&machine)).await.map_err(io::Error::from).flatten()
            {
                return Err(io::Error::other(format!("{}: {error}\n{}", path.name, machine.console())));
            }
        }
    }
    for path in &mut paths {
        path.footprint = footprint(&machine, path).await?;
    }
    Ok(report(&paths, machine.unit_of_work()))
}

fn paths(machine: &Machine, with_socat: bool) -> io::Result<Vec<Measured>> {
    let socket = machine.vsock();
    let vsock = |port| Route::Vsock(socket.clone(), port);
    let inside = Route::Ingress(socket.clone(), cloister_wire::ports::INGRESS);
    let published = Route::Published(publish(&socket)?);
    let mut paths = vec![
        Measured::new("raw vsock, no relay", vsock(ports::RAW)),
        Measured::new("Cloister, in the enclave", inside),
        Measured::new("Cloister, host and enclave", published),
        Measured::new("minimal relay", vsock(ports::FLOOR)),
        Measured::new("Tokio copy, 8 KiB", vsock(ports::COPY)),
    ];
    if with_socat {
        paths.push(Measured::new("socat", vsock(ports::SOCAT)));
    }
    Ok(paths)
}

impl Measured {
    fn new(name: &'static str, route: Route) -> Self {
        Self {
            name,
            route,
            up: Vec::new(),
            down: Vec::new(),
            trips: Vec::new(),
            one: Vec::new(),
            many: Vec::new(),
            work: Default::default(),
            footprint: None,
        }
    }

    async fn sample(&mut self, machine: &Machine) -> io::Result<()> {
        let mut work = vec![machine.work()?];
        self.up.push(self.route.upload(BULK).await?);
        work.push(machine.work()?);
        self.down.push(self.route.download(BULK).await?);
        work.push(machine.work()?);
        self.trips.extend(self.route.round_trips(TRIPS).await?);
        work.push(machine.work()?);
        self.one.push(self.route.connections(CONNECTIONS, 1).await?);
        work.push(machine.work()?);
        self.many.push(self.route.connections(CONNECTIONS, PARALLEL).await?);
        work.push(machine.work()?);
        for (step, pair) in self.work.iter_mut().zip(work.windows(2)) {
            step.push(pair.last().copied().unwrap_or(f64::NAN) - pair.first().copied().unwrap_or(f64::NAN));
        }
        Ok(())
    }

    /// The guest's work, and its ratio to the raw path's.
    fn work_row(&self, raw: &Self) -> Vec<String> {
        let steps = STEPS.iter().zip(self.work.iter().zip(&raw.work));
        let cells = steps.map(|((_, per), (mine, theirs))| {
            let (mine, theirs) = (median(mine), median(theirs));
            format!("{:.1} ({:.3})", mine / per, mine / theirs)
        });
        std::iter::once(self.name.to_owned()).chain(cells).collect()
    }

    fn row(&self, raw: &Self) -> Vec<String> {
        let of = |mine: f64, theirs: f64| format!("{mine:.0} ({:.2})", mine / theirs);
        let trip = |percent| quantile(&self.trips, percent);
        let ratio = trip(50) / quantile(&raw.trips, 50);
        vec![
            self.name.to_owned(),
            of(median(&self.up), median(&raw.up)),
            of(median(&self.down), median(&raw.down)),
            format!("{:.3} ({ratio:.2})", trip(50)),
            format!("{:.3}", trip(90)),
            format!("{:.3}", trip(99)),
            of(median(&self.one), median(&raw.one)),
            of(median(&self.many), median(&raw.many)),
            self.footprint.map_or_else(String::new, |(bytes, _)| format!("{bytes:.0}")),
            self.footprint.map_or_else(String::new, |(_, waits)| format!("{waits:.1}")),
        ]
    }
}

fn report(paths: &[Measured], unit: &str) -> String {
    let head = [
        "path",
        "in, MB/s",
        "out, MB/s",
        "round trip p50, ms",
        "p90",
        "p99",
        "connections/s, sequential",
        "16 in parallel",
        "bytes per idle connection",
        "waits per round trip",
    ];
    let Some(raw) = paths.first() else { return String::new() };
    let seen = table(&head, &paths.iter().map(|path| path.row(raw)).collect::<Vec<_>>());
    let head: Vec<&str> = std::iter::once(unit).chain(STEPS.map(|(what, _)| what)).collect();
    let done = table(&head, &paths.iter().map(|path| path.work_row(raw)).collect::<Vec<_>>());
    format!("{seen}\n{done}")
}

/// Bytes that one idle connection costs the relay's process in the guest, and the number of waits of that process per round
/// trip.
async fn footprint(machine: &Machine, path: &Measured) -> io::Result<Option<(f64, f64)>> {
    let role = match &path.route {
        Route::Ingress(..) => "cloister",
        Route::Vsock(_, ports::COPY) => "copy",
        Route::Vsock(_, ports::FLOOR) => "floor",
        Route::Vsock(_, ports::RAW) => "service",
        _ => return Ok(None),
    };
    let start = facts(machine, role).await?;
    path.route.round_trips(TRIPS).await?;
    let (before, waits) = facts(machine, role).await?;
    let mut open = Vec::new();
    for _ in 0..IDLE {
        open.push(path.route.open_echo().await?);
    }
    let (after, _) = facts(machine, role).await?;
    Ok(Some(((after - before) / f64::from(IDLE), (waits - start.1) / f64::from(TRIPS))))
}

/// A program's private memory in bytes, and the number of its waits.
async fn facts(machine: &Machine, role: &str) -> io::Result<(f64, f64)> {
    let stream = client::dial(&machine.vsock(), ports::FACTS).await?;
    let mut found = (f64::NAN, f64::NAN);
    loop {
        let line = String::from_utf8(stream.recv_line(64).await?).map_err(io::Error::other)?;
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { return Ok(found) };
        if name == role {
            let mut next = || words.next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN);
            found = (next(), next());
        }
    }
}

/// Publishes the ingress port as `host-sleeve` does, on a separate thread.
fn publish(socket: &Path) -> io::Result<std::net::SocketAddr> {
    let (send, receive) = std::sync::mpsc::channel();
    let socket = socket.to_owned();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = Listener::tcp(([127, 0, 0, 1], 0).into())?;
            if send.send(listener.tcp_address()).is_err() {
                return Ok(());
            }
            let works = Arc::new(Works::new());
            loop {
                let (client, _) = listener.accept().await?;
                let (socket, works) = (socket.clone(), Arc::clone(&works));
                tokio::spawn(async move { drop(forward(client, &socket, &works).await) });
            }
            #[expect(unreachable_code, reason = "it determines the type that `?` needs")]
            io::Result::Ok(())
        })
    });
    receive.recv().ok().flatten().ok_or_else(|| io::Error::other("the port could not be published"))
}

async fn forward(client: Stream, socket: &Path, works: &Works) -> io::Result<()> {
    let enclave = client::dial(socket, cloister_wire::ports::INGRESS).await?;
    let framing = Framing::Chunked;
    let header = Header { version: VERSION, port: ports::INGRESS, client: None, framing };
    let lead_out = frame::encode(&header, HEADER_LIMIT).map_err(io::Error::other)?;
    relay(&enclave, &client, works, Options { lead_out, ..Options::new(framing) }).await;
    Ok(())
}

/// socat and its libraries, if this machine has them.
fn socat() -> Vec<PathBuf> {
    let program = PathBuf::from("/usr/bin/socat");
    let Ok(listed) = Command::new("ldd").arg(&program).output() else { return Vec::new() };
    let libraries = String::from_utf8_lossy(&listed.stdout).into_owned();
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    if program.exists() { std::iter::once(program).chain(paths).collect() } else { Vec::new() }
}
