//! The way from an order to a machine that runs.
//!
//! Its law: everything that can be refused is refused before anything starts, and whoever breaks off on the way leaves
//! nothing behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cloister_net::Listener;
use cloister_wire::control::Status;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::app::App;
use crate::backends::{Backend, Deployment, MachineLimits, Plan, list, memory, remains, size};
use crate::error::{Doing, Error, Result};
use crate::ingress;
use crate::logbook::rotating::Rotating;
use crate::logbook::{CONSOLE, CONSOLE_LIMIT, SERVICES, SERVICES_LIMIT};
use crate::metrics;
use crate::state::handle::Handle;
use crate::state::process::{ProcessId, boot_id};
use crate::state::record::{self, Platform, now_ms};
use crate::state::{Folder, Record, Root};
use crate::values::Publish;

use super::control;
use super::keeper::Keeper;
use super::life::{Event, Life, Limits};
use super::order::{Order, Watcher};
use super::{console, logs, pulse, requests};
use crate::client::Ask;

/// Events under way to the life: bounded, so that a busy enclave waits for us and not in our memory.
const EVENTS: usize = 64;

/// Requests under way to the enclave.
const ASKS: usize = 64;

/// A machine that runs, and everything that is done with it.
#[derive(Debug)]
pub(super) struct Launched {
    /// The enclave's folder.
    pub(super) keeper: Keeper,
    /// What is known.
    pub(super) record: Record,
    /// What decides.
    pub(super) life: Life,
    /// The machine.
    pub(super) deployment: Box<dyn Deployment>,
    /// How long it may take to remove what the machine leaves behind.
    pub(super) destroy_limit: Duration,
    /// What happened.
    pub(super) events: mpsc::Receiver<Event>,
    /// Where what happened is told.
    pub(super) speak: mpsc::Sender<Event>,
    /// Requests to the enclave.
    pub(super) asks: mpsc::Sender<Ask>,
    /// Tells the log reader to read to the end.
    pub(super) drain: watch::Sender<bool>,
    /// The console's reader.
    pub(super) console: Option<JoinHandle<()>>,
    /// Everything that ends with the run.
    pub(super) tasks: JoinSet<()>,
    /// The record for those who watch it.
    pub(super) shown: watch::Sender<Record>,
    /// What it said last of itself while it was not ready yet.
    pub(super) starting: Option<Status>,
}

/// A published port: where clients come from, and the ingress port behind it.
type Door = (Listener, u16);

/// What has been prepared: dropped, it leaves nothing.
struct Prepared {
    app: App,
    backend: Box<dyn Backend>,
    record: Record,
    listeners: Vec<Door>,
    /// Clients of theirs at once.
    most_clients: usize,
    metrics: Option<Listener>,
    requests: Requests,
    root: Root,
    folder: Provisional,
}

/// What other commands ask, from the moment that they can find the enclave.
struct Requests {
    speak: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    asks: mpsc::Sender<Ask>,
    asked: mpsc::Receiver<Ask>,
    /// Ended when it is dropped.
    serving: JoinSet<()>,
}

impl Requests {
    fn serve(folder: &Folder) -> Result<Self> {
        let (speak, events) = mpsc::channel(EVENTS);
        let (asks, asked) = mpsc::channel(ASKS);
        let mut serving = JoinSet::new();
        let doors = requests::Doors { events: speak.clone(), asks: asks.clone() };
        serving.spawn(requests::serve(requests::listen(folder)?, doors));
        Ok(Self { speak, events, asks, asked, serving })
    }

    /// Waits until somebody wants an enclave to end that does not run yet.
    async fn called_off(&mut self) -> Error {
        loop {
            match self.events.recv().await {
                Some(Event::Stop { .. } | Event::Kill { .. }) => {
                    return Error::killed("stopped before the boot");
                }
                Some(_) => {}
                // Not while `speak` is there.
                None => std::future::pending().await,
            }
        }
    }
}

/// A folder that is removed again unless the machine comes to run.
struct Provisional(Option<Folder>);

impl Provisional {
    fn get(&self) -> Result<&Folder> {
        self.0.as_ref().ok_or_else(|| Error::internal("the enclave's folder was handed over before"))
    }

    fn keep(mut self) -> Result<Folder> {
        self.0.take().ok_or_else(|| Error::internal("the enclave's folder was handed over before"))
    }
}

impl Drop for Provisional {
    fn drop(&mut self) {
        if let Some(folder) = self.0.take() {
            // What cannot be removed is shown by `ps --all` and removed by `rm`.
            drop(folder.remove_locked());
        }
    }
}

/// Makes a machine out of an order.
pub(super) async fn launch(order: &Order, watcher: &mut dyn Watcher) -> Result<Launched> {
    let mut prepared = prepare(order).await?;
    watcher.launching(prepared.folder.get()?, &prepared.app)?;
    let plan = plan(order, &prepared);
    let making = async {
        let folder = prepared.folder.get()?;
        tokio::try_join!(prepared.backend.deploy(&plan, folder), prepared.backend.measure(&plan))
    };
    let (deployment, pcrs) = tokio::select! {
        biased;
        error = prepared.requests.called_off() => return Err(error),
        made = making => made?,
    };
    prepared.record.machine = Some(Platform { pcrs, ..deployment.platform() });
    prepared.record.handle = Some(deployment.handle());
    // Replaced once more: what runs is on the disk before anybody waits for it.
    prepared.folder.get()?.pen().write(0, &prepared.record)?;
    attend(order, prepared, deployment)
}

async fn prepare(order: &Order) -> Result<Prepared> {
    let path = order.app.clone();
    let app = blocking(move || App::open(&path)).await?;
    check_ports(&order.publish, &app)?;
    let backend = list::open(backend_name(order, &app), &order.options)?;
    backend.accepts(&app.source)?;
    size::check_launch(&app, &*backend)?;
    let memory = memory::choose(&app, order.memory, &*backend)?;
    let root = Root::open()?;
    make_way(order, &app, &root).await?;
    let claimed = root.claim(order.name.as_deref(), &app.manifest.name, order.replace)?;
    let folder = Provisional(Some(claimed));
    let (listeners, publish) = listen(&order.publish)?;
    let metrics = match order.metrics {
        Some(address) => Some(Listener::tcp(address).map_err(|error| cannot_listen(address, error))?),
        None => None,
    };
    let most_clients = if listeners.is_empty() { 0 } else { ingress::make_room() };
    let mut record = new_record(order, &app, &*backend, folder.get()?.name(), memory, publish);
    record.metrics = metrics.as_ref().and_then(Listener::tcp_address);
    let requests = Requests::serve(folder.get()?)?;
    folder.get()?.pen().write(0, &record)?;
    Ok(Prepared { app, backend, record, listeners, most_clients, metrics, requests, root, folder })
}

/// Ends what is left of enclaves whose records go now: the one whose name is taken over, and those beyond the number that is
/// kept. One of the latter that cannot be ended keeps its record.
async fn make_way(order: &Order, app: &App, root: &Root) -> Result<()> {
    let Some(name) = order.name.as_deref() else {
        for folder in root.surplus(&app.manifest.name) {
            if remains::end(&folder).await.is_ok() {
                // A record that stays harms nobody.
                drop(folder.remove());
            }
        }
        return Ok(());
    };
    match root.find(name) {
        Ok(folder) if order.replace => remains::end(&folder).await,
        _ => Ok(()),
    }
}

/// Starts everything that talks to the machine.
fn attend(order: &Order, prepared: Prepared, mut deployment: Box<dyn Deployment>) -> Result<Launched> {
    let Requests { speak, events, asks, asked, serving } = prepared.requests;
    let (drain, draining) = watch::channel(false);
    let folder = prepared.folder.get()?;
    let service_log = open_log(folder, SERVICES, SERVICES_LIMIT)?;
    let console_log = open_log(folder, CONSOLE, CONSOLE_LIMIT)?;
    let transport = deployment.transport();
    let console = deployment
        .console()
        .map(|stream| tokio::spawn(console::run(stream, console_log, order.console, speak.clone())));
    let (shown, record) = watch::channel(prepared.record.clone());
    let mut tasks = serving;
    tasks.spawn(control::run(Arc::clone(&transport), asked, speak.clone()));
    tasks.spawn(logs::run(Arc::clone(&transport), service_log, draining, speak.clone()));
    tasks.spawn(ingress::run(prepared.listeners, prepared.most_clients, transport));
    tasks.spawn(pulse::run(asks.clone(), speak.clone()));
    if let Some(listener) = prepared.metrics {
        let source = metrics::Source::One { record, asks: asks.clone() };
        tasks.spawn(metrics::serve(listener, source));
    }
    let (now, machine) = (Instant::now(), prepared.backend.limits());
    Ok(Launched {
        life: Life::new(limits(order, &prepared.app, machine), now),
        destroy_limit: machine.destroy,
        keeper: Keeper::new(prepared.root, prepared.folder.keep()?),
        record: prepared.record,
        deployment,
        events,
        speak,
        asks,
        drain,
        console,
        tasks,
        shown,
        starting: None,
    })
}

fn open_log(folder: &Folder, name: &'static str, limit: u64) -> Result<Rotating> {
    let log = Rotating::create(folder.home().clone(), name, limit);
    log.doing(|| format!("cannot write {}", folder.file(name).display()))
}

/// Does blocking work beside the runtime, so that a signal is heard meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("a part of host-sleeve broke off").because(error)),
    }
}

fn check_ports(publish: &[Publish], app: &App) -> Result<()> {
    let known: Vec<u16> = app.manifest.ingress.iter().map(|ingress| ingress.port).collect();
    match publish.iter().find(|port| !known.contains(&port.ingress)) {
        None => Ok(()),
        Some(port) => {
            let list: Vec<String> = known.iter().map(ToString::to_string).collect();
            let hint = match list.as_slice() {
                [] => "the image's manifest has no ingress".to_owned(),
                ports => format!("its ingress ports: {}", ports.join(", ")),
            };
            Err(Error::operator(format!("the image has no ingress port {}", port.ingress)).hint(hint))
        }
    }
}

/// Listens on every published port. The ports are answered as they are, where any free one was asked for.
fn listen(publish: &[Publish]) -> Result<(Vec<Door>, Vec<Publish>)> {
    let (mut listeners, mut real) = (Vec::new(), Vec::new());
    for port in publish {
        let listener = Listener::tcp(port.listen).map_err(|error| cannot_listen(port.listen, error))?;
        let listen = listener.tcp_address().unwrap_or(port.listen);
        real.push(Publish { listen, ingress: port.ingress });
        listeners.push((listener, port.ingress));
    }
    Ok((listeners, real))
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Error {
    let taken = error.kind() == std::io::ErrorKind::AddrInUse;
    let hint = if taken { "choose another port, or 0 for any free one" } else { "choose another address" };
    Error::operator(format!("cannot listen on {address}")).because(error).hint(hint)
}

fn new_record(
    order: &Order,
    app: &App,
    backend: &dyn Backend,
    name: &str,
    memory: u64,
    publish: Vec<Publish>,
) -> Record {
    Record {
        version: record::VERSION,
        name: name.to_owned(),
        image: record::Image {
            path: app.path().to_owned(),
            digest: app.digest().to_string(),
            name: app.manifest.name.clone(),
        },
        backend: backend.name().to_owned(),
        machine: None,
        // Before anything is made: whoever finds this record knows whom to ask what is left.
        handle: Some(Handle::creating(backend.name())),
        cpus: order.cpus,
        memory,
        publish,
        metrics: None,
        created_ms: now_ms(),
        booted_ms: None,
        ready_ms: None,
        sleeve: ProcessId::own(),
        boot: boot_id(),
        stop_timeout_ms: app.manifest.stop_timeout_ms,
        status: None,
        silent_since_ms: None,
        end: None,
    }
}

fn backend_name<'a>(order: &'a Order, app: &App) -> &'a str {
    order.backend.as_deref().unwrap_or_else(|| list::for_source(&app.source))
}

fn plan(order: &Order, prepared: &Prepared) -> Plan {
    Plan {
        source: prepared.app.source.clone(),
        cmdline: prepared.app.cmdline.clone(),
        cpus: order.cpus,
        memory: prepared.record.memory,
    }
}

fn limits(order: &Order, app: &App, machine: MachineLimits) -> Limits {
    let services: u64 = app.manifest.services.iter().map(|service| service.start_timeout_ms).sum();
    Limits {
        answer: order.ready_timeout.unwrap_or(machine.boot),
        ready: order.ready_timeout.unwrap_or(machine.boot + Duration::from_millis(services)),
        run: order.timeout,
        stop: Duration::from_millis(app.manifest.stop_timeout_ms),
        power_off: machine.power_off,
        kill: machine.kill,
    }
}
