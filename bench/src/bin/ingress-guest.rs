//! The guest half of the ingress benchmark: PID 1, the service, and each relay in a separate process.
//!
//! Invariant: nothing runs here except the programs that are measured.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode};

use cloister_bench::{floor, ports, service};
use cloister_gateway::ingress::Ingress;
use cloister_net::{Listener, Stream, connection_capacity};
use cloister_wire::gateway::{MAX_CONNECTIONS, RESERVED_DESCRIPTORS, Target};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// This program's path in the guest.
const SELF: &str = "/init";

/// The service's name.
const SERVICE: &str = "bench";

/// The service's cgroup: ingress connects only to sockets that were created in it.
const CGROUP: &str = "/sys/fs/cgroup/bench";

/// The cgroup that contains everything at first.
const ROOT: &str = "/sys/fs/cgroup";

/// socat's path, if it is included.
const SOCAT: &str = "/usr/bin/socat";

fn main() -> ExitCode {
    let role = std::env::args().nth(1).unwrap_or_default();
    let done = match role.as_str() {
        "service" => run(serve()),
        "cloister" => run(cloister()),
        "copy" => run(copy()),
        "floor" => floor::serve(ports::FLOOR, ports::SERVICE),
        _ => init(),
    };
    if let Err(error) = done {
        writeln!(io::stderr(), "{role}: {error}").unwrap_or_default();
    }
    ExitCode::FAILURE
}

fn run(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    runtime()?.block_on(work)
}

/// The runtime of the gateway on one processor: one thread.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// PID 1: the minimum that the others need.
fn init() -> io::Result<()> {
    for (kind, at) in
        [("proc", "/proc"), ("devtmpfs", "/dev"), ("sysfs", "/sys"), ("cgroup2", "/sys/fs/cgroup")]
    {
        fs::create_dir_all(at)?;
        rustix::mount::mount(kind, at, kind, rustix::mount::MountFlags::empty(), None)?;
    }
    cloister_sys::net::loopback_up()?;
    fs::create_dir_all(CGROUP)?;
    enter(CGROUP)?;
    let mut programs = vec![("service", Command::new(SELF).arg("service").spawn()?)];
    enter(ROOT)?;
    for role in ["cloister", "copy", "floor"] {
        programs.push((role, Command::new(SELF).arg(role).spawn()?));
    }
    if fs::exists(SOCAT)? {
        let listen = format!("VSOCK-LISTEN:{},fork,reuseaddr,backlog=128", ports::SOCAT);
        let connect = format!("TCP:127.0.0.1:{},nodelay", ports::SERVICE);
        programs.push(("socat", Command::new(SOCAT).args([listen, connect]).spawn()?));
    }
    writeln!(io::stdout(), "all programs started")?;
    run(report_facts(&programs))
}

/// Programs that this process starts from now on are in this cgroup.
fn enter(cgroup: &str) -> io::Result<()> {
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0")
}

/// Answers every connection with a line for each program: its name, its private memory in bytes, and the number of its waits.
async fn report_facts(programs: &[(&str, Child)]) -> io::Result<()> {
    let listener = Listener::vsock(ports::FACTS)?;
    loop {
        let (stream, _) = listener.accept().await?;
        for (role, child) in programs {
            let pid = child.id();
            let memory = number(&format!("/proc/{pid}/smaps_rollup"), "Private_Dirty:")?.saturating_mul(1024);
            let waits = number(&format!("/proc/{pid}/status"), "voluntary_ctxt_switches:")?;
            let line = format!("{role} {memory} {waits}\n");
            stream.send_all(line.as_bytes()).await?;
        }
        stream.send_all(b"\n").await?;
        // The host closes when it has read everything.
        drop(stream.recv(&mut [0]).await);
    }
}

/// The number after `name` in a file of `/proc`.
fn number(file: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().map_err(io::Error::other)
}

/// The service: on TCP for the relays, on vsock for the raw path.
async fn serve() -> io::Result<()> {
    let tcp = Listener::tcp(([127, 0, 0, 1], ports::SERVICE).into())?;
    let raw = Listener::vsock(ports::RAW)?;
    tokio::join!(service::serve(tcp), service::serve(raw));
    Ok(())
}

/// The gateway's ingress, in one thread.
async fn cloister() -> io::Result<()> {
    let cgroup = fs::metadata(CGROUP)?.ino();
    let (ingress, mut messages) =
        Ingress::new(connection_capacity(MAX_CONNECTIONS, RESERVED_DESCRIPTORS), None);
    ingress.set_table(
        vec![Target {
            port: ports::INGRESS,
            target: ports::SERVICE,
            service: SERVICE.to_owned(),
            cgroup: Some(cgroup),
            proxy_protocol: false,
        }],
        None,
    );
    drop(tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            writeln!(io::stderr(), "{message:?}").unwrap_or_default();
        }
    }));
    let listener = Listener::vsock(cloister_wire::ports::INGRESS)?;
    match ingress.serve(listener).await {}
}

/// A typical relay: `copy_bidirectional` with its buffers of 8 KiB.
async fn copy() -> io::Result<()> {
    let listener = Listener::vsock(ports::COPY)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection that breaks ends only itself.
        drop(tokio::spawn(async move { drop(copy_one(stream).await) }));
    }
}

async fn copy_one(mut stream: Stream) -> io::Result<()> {
    let mut service = TcpStream::connect(("127.0.0.1", ports::SERVICE)).await?;
    service.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut stream, &mut service).await?;
    Ok(())
}
