//! The launch: from an order to a running machine.
//!
//! Invariant: everything that can be refused is refused before anything starts, and an aborted launch leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use cloister_net::Listener;
use cloister_wire::control::Status;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::app::App;
use crate::backends::{Backend, Deployment, MachineLimits, Plan, leftovers, list, memory, platform, size};
use crate::error::{Error, ErrorContext, Result};
use crate::ingress;
use crate::logbook::rotating::{Content, Rotating};
use crate::logbook::{CONSOLE, CONSOLE_LIMIT, SERVICES, SERVICES_LIMIT};
use crate::metrics;
use crate::state::handle::Handle;
use crate::state::process::{ProcessId, boot_id};
use crate::state::record::{self, Platform, now_ms};
use crate::state::{EnclaveDir, Record, Root};
use crate::values::Publish;

use super::control;
use super::keeper::Keeper;
use super::lifecycle::{Check, Event, Lifecycle, Limits};
use super::order::{Order, Watcher};
use super::published::{cannot_listen, check_ports, listen, ports};
use super::requests::{self, Channels};
use super::verification::{self, Verification};
use super::{console, logs, module, pulse};
use crate::client::EnclaveRequest;

/// Queued events: bounded, so that a busy enclave is slowed down instead of using up the host's memory.
const EVENTS: usize = 64;

/// Queued requests to the enclave.
const REQUESTS: usize = 64;

/// A running machine, and everything that communicates with it.
#[derive(Debug)]
pub(super) struct Launched {
    /// The enclave's directory.
    pub(super) keeper: Keeper,
    /// The enclave's record.
    pub(super) record: Record,
    /// The state machine that makes the decisions.
    pub(super) lifecycle: Lifecycle,
    /// The machine.
    pub(super) deployment: Box<dyn Deployment>,
    /// Time limit for removing what the machine leaves behind.
    pub(super) destroy_limit: Duration,
    /// Events for the lifecycle.
    pub(super) events: mpsc::Receiver<Event>,
    /// Where events and requests are sent.
    pub(super) channels: Channels,
    /// Makes the log reader read to the end.
    pub(super) drain: watch::Sender<bool>,
    /// The console's reader.
    pub(super) console: Option<JoinHandle<()>>,
    /// Tasks that are aborted when the run ends.
    pub(super) tasks: JoinSet<()>,
    /// The record, for the tasks that watch it.
    pub(super) shown: watch::Sender<Record>,
    /// The last status from before it was ready.
    pub(super) starting: Option<Status>,
    /// What it must prove before it is reported as ready.
    pub(super) verification: Option<Verification>,
}

/// Everything prepared for a launch. Dropping it leaves nothing behind.
struct Prepared {
    app: App,
    backend: Box<dyn Backend>,
    record: Record,
    listeners: Vec<ingress::Port>,
    /// Maximum number of concurrent clients of the listeners.
    max_clients: usize,
    metrics: Option<Listener>,
    verification: Option<Verification>,
    requests: Requests,
    root: Root,
    directory: Provisional,
}

/// Serves requests of other commands from the moment that they can find the enclave.
struct Requests {
    channels: Channels,
    events: mpsc::Receiver<Event>,
    inbox: mpsc::Receiver<EnclaveRequest>,
    /// Aborted when it is dropped.
    serving: JoinSet<()>,
}

impl Requests {
    fn serve(directory: &EnclaveDir, ports: Vec<u16>) -> Result<Self> {
        let (sender, events) = mpsc::channel(EVENTS);
        let (outbox, inbox) = mpsc::channel(REQUESTS);
        let channels = Channels::new(sender, outbox, ports);
        let mut serving = JoinSet::new();
        serving.spawn(requests::serve(requests::listen(directory)?, channels.clone()));
        Ok(Self { channels, events, inbox, serving })
    }

    /// Waits for a request to stop the enclave before it runs.
    async fn cancelled(&mut self) -> Error {
        loop {
            match self.events.recv().await {
                Some(Event::Stop { .. } | Event::Kill { .. }) => {
                    return Error::killed("stopped before the boot");
                }
                Some(_) => {}
                // Impossible while `channels` exists.
                None => std::future::pending().await,
            }
        }
    }
}

/// A directory that is removed again unless the machine starts.
struct Provisional(Option<EnclaveDir>);

impl Provisional {
    fn get(&self) -> Result<&EnclaveDir> {
        self.0.as_ref().ok_or_else(|| Error::internal("the enclave's directory was already handed over"))
    }

    fn keep(mut self) -> Result<EnclaveDir> {
        self.0.take().ok_or_else(|| Error::internal("the enclave's directory was already handed over"))
    }
}

impl Drop for Provisional {
    fn drop(&mut self) {
        if let Some(directory) = self.0.take() {
            // If it cannot be removed, `ps --all` shows it and `rm` removes it.
            drop(directory.remove_locked());
        }
    }
}

/// Launches a machine for an order.
pub(super) async fn launch(order: &Order, watcher: &mut dyn Watcher) -> Result<Launched> {
    let mut prepared = prepare(order).await?;
    watcher.launching(prepared.directory.get()?, &prepared.app)?;
    let plan = plan(order, &prepared);
    let creating = async {
        let directory = prepared.directory.get()?;
        tokio::try_join!(prepared.backend.deploy(&plan, directory), prepared.backend.measure(&plan))
    };
    let (deployment, pcrs) = tokio::select! {
        biased;
        error = prepared.requests.cancelled() => return Err(error),
        created = creating => created?,
    };
    prepared.record.machine = Some(Platform { pcrs, ..deployment.platform() });
    prepared.record.handle = Some(deployment.handle());
    // Written again: the handle of the running machine is on the disk before anything waits for the machine.
    prepared.directory.get()?.writer().write(0, &prepared.record)?;
    start_tasks(order, prepared, deployment)
}

async fn prepare(order: &Order) -> Result<Prepared> {
    let path = order.app.clone();
    let app = blocking(move || App::open(&path)).await?;
    check_ports(&order.publish, &app)?;
    let backend = list::open(backend_name(order, &app), &order.options)?;
    backend.accepts(&app.source)?;
    platform::check_launch(&app, &*backend)?;
    size::check_launch(&app, &*backend)?;
    let memory = memory::choose(&app, order.memory, &*backend)?;
    let root = Root::open()?;
    let verification = Verification::prepare(order, &app, &*backend, root.path()).await?;
    end_predecessors(order, &app, &root).await?;
    let claimed = root.claim(order.name.as_deref(), &app.manifest.name, order.replace)?;
    let directory = Provisional(Some(claimed));
    let (listeners, publish) = listen(&order.publish, &app)?;
    let metrics = match order.metrics {
        Some(address) => Some(Listener::tcp(address).map_err(|error| cannot_listen(address, error))?),
        None => None,
    };
    let max_clients = if listeners.is_empty() { 0 } else { ingress::prepare_for_clients() };
    let mut record = new_record(order, &app, &*backend, directory.get()?.name(), memory, publish);
    record.metrics = metrics.as_ref().and_then(Listener::tcp_address);
    let requests = Requests::serve(directory.get()?, ports(&app))?;
    directory.get()?.writer().write(0, &record)?;
    Ok(Prepared {
        app,
        backend,
        record,
        listeners,
        max_clients,
        metrics,
        verification,
        requests,
        root,
        directory,
    })
}

/// Ends what is left of enclaves whose records are deleted now: the one whose name is taken over, and those beyond the number
/// of records that is retained. If one of the latter cannot be ended, its record is retained.
async fn end_predecessors(order: &Order, app: &App, root: &Root) -> Result<()> {
    let Some(name) = order.name.as_deref() else {
        for directory in root.surplus(&app.manifest.name) {
            if leftovers::terminate(&directory).await.is_ok() {
                // A record that is left does no harm.
                drop(directory.remove(false));
            }
        }
        return Ok(());
    };
    match root.find(name) {
        Ok(directory) if order.replace => leftovers::terminate(&directory).await,
        _ => Ok(()),
    }
}

/// Starts everything that communicates with the machine.
fn start_tasks(order: &Order, prepared: Prepared, mut deployment: Box<dyn Deployment>) -> Result<Launched> {
    let Requests { channels, events, inbox, serving } = prepared.requests;
    let (drain, draining) = watch::channel(false);
    let directory = prepared.directory.get()?;
    let service_log = open_log(directory, SERVICES, Content::Records, SERVICES_LIMIT)?;
    let console_log = open_log(directory, CONSOLE, Content::Text, CONSOLE_LIMIT)?;
    let transport = deployment.transport();
    // It is set only here.
    channels.transport.set(Arc::clone(&transport)).unwrap_or_default();
    let console = deployment.console().map(|stream| {
        tokio::spawn(console::run(stream, console_log, order.console, channels.events.clone()))
    });
    let (shown, record) = watch::channel(prepared.record.clone());
    let mut tasks = serving;
    tasks.spawn(control::run(Arc::clone(&transport), inbox, channels.events.clone()));
    tasks.spawn(logs::run(Arc::clone(&transport), service_log, draining, channels.events.clone()));
    if let Some(parts) = deployment.booted() {
        tasks.spawn(module::run(Arc::clone(&transport), parts, prepared.root.path().to_owned()));
    }
    tasks.spawn(ingress::run(prepared.listeners, prepared.max_clients, transport));
    tasks.spawn(pulse::run(channels.requests.clone(), channels.events.clone()));
    if let Some(listener) = prepared.metrics {
        let source = metrics::Source::One { record, requests: channels.requests.clone() };
        tasks.spawn(metrics::serve(listener, source));
    }
    let (now, machine) = (Instant::now(), prepared.backend.limits());
    let check = Check::of(prepared.verification.is_some());
    Ok(Launched {
        lifecycle: Lifecycle::new(limits(order, &prepared.app, machine), check, now),
        destroy_limit: machine.destroy,
        keeper: Keeper::new(prepared.root, prepared.directory.keep()?),
        record: prepared.record,
        deployment,
        events,
        channels,
        drain,
        console,
        tasks,
        shown,
        starting: None,
        verification: prepared.verification,
    })
}

fn open_log(directory: &EnclaveDir, name: &'static str, content: Content, limit: u64) -> Result<Rotating> {
    let log = Rotating::create(directory.home().clone(), name, content, limit);
    log.context(|| format!("cannot write {}", directory.file(name).display()))
}

/// Does blocking work on another thread, so that signals are handled meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("a background task of host-sleeve failed").because(error)),
    }
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
        // Recorded before anything is created, so that the record always names the backend that can find what is left.
        handle: Some(Handle::creating(backend.name())),
        cpus: order.cpus,
        memory,
        publish,
        metrics: None,
        created_ms: now_ms(),
        booted_ms: None,
        ready_ms: None,
        verified: verification::possible(app, backend),
        attestation_port: app.manifest.attestation.port,
        sleeve: ProcessId::own(),
        boot: boot_id(),
        stop_timeout_ms: app.manifest.stop_timeout_ms,
        status: None,
        unresponsive_since_ms: None,
        end: None,
    }
}

fn backend_name<'a>(order: &'a Order, app: &App) -> &'a str {
    order.backend.as_deref().unwrap_or_else(|| list::for_app(app))
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
