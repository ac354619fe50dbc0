//! One run, from an order to its end.
//!
//! Its law: until the machine runs, any way out leaves nothing behind; from then on, every way out ends the machine and
//! writes the end into the record.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cloister_relay::Listener;
use cloister_wire::control::{Request, Status};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};

use crate::app::App;
use crate::backends::{self, Deployment, Ending, Plan, qemu};
use crate::cli::values::Publish;
use crate::error::{Doing, Error, Result};
use crate::ingress;
use crate::logbook::rotating::Rotating;
use crate::logbook::{CONSOLE, CONSOLE_LIMIT, SERVICES, SERVICES_LIMIT};
use crate::memory;
use crate::state::process::ProcessId;
use crate::state::record::{self, now_ms};
use crate::state::{End, Folder, Record, Root};

use super::control::{self, Ask};
use super::life::{Act, Event, Life, Limits};
use super::{console, logs, requests};

/// Events under way to the life: bounded, so that a busy enclave waits for us and not in our memory.
const EVENTS: usize = 64;

/// Requests under way to the enclave.
const ASKS: usize = 64;

/// The shortest time between two writes of the record: an enclave that changes its state all the time costs no more.
const WRITE_PAUSE: Duration = Duration::from_millis(20);

/// How long the console may take to reach its end after the machine has ended.
const CONSOLE_LIMIT_AFTER_END: Duration = Duration::from_secs(1);

/// What a boot may take besides what the manifest's services may take.
const BOOT_LIMIT: Duration = Duration::from_mins(1);

/// What is to be run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The enclave image.
    pub(crate) app: PathBuf,
    /// The name, if one was asked for.
    pub(crate) name: Option<String>,
    /// Whether to take the name over from an enclave that has ended.
    pub(crate) replace: bool,
    /// Whether to forget the enclave when it ends.
    pub(crate) rm: bool,
    /// The ports.
    pub(crate) publish: Vec<Publish>,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Memory in bytes, if asked for.
    pub(crate) memory: Option<u64>,
    /// A limit for the whole run.
    pub(crate) timeout: Option<Duration>,
    /// A limit until ready.
    pub(crate) ready_timeout: Option<Duration>,
    /// The backend's name.
    pub(crate) backend: String,
    /// QEMU's machine.
    pub(crate) machine: qemu::Machine,
    /// How QEMU runs the CPUs.
    pub(crate) accel: qemu::AccelChoice,
    /// Whether the console is copied to standard error.
    pub(crate) console: bool,
}

/// Who wants to know how a run goes.
pub(crate) trait Watcher {
    /// The enclave has a name and a folder, and will be booted.
    fn launching(&mut self, folder: &Folder, app: &App) -> Result<()>;
    /// It is ready.
    fn ready(&mut self, record: &Record);
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The last record.
    pub(crate) record: Record,
    /// The end, which is in the record too.
    pub(crate) end: End,
    /// The enclave's folder, still locked.
    pub(crate) folder: Folder,
}

/// The signals that a sleeve answers to.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// What happens to the process itself.
enum Sent {
    Interrupt,
    Terminate,
}

/// Runs an order to its end.
pub(crate) async fn run(order: Order, watcher: &mut dyn Watcher) -> Result<Ran> {
    let mut signals = Signals::new().doing(|| "cannot listen to signals".to_owned())?;
    let launched = {
        let launch = launch(&order, watcher);
        tokio::select! {
            biased;
            _ = signals.next() => return Err(Error::operator("interrupted before the boot")),
            launched = launch => launched?,
        }
    };
    launched.live(&mut signals, watcher).await
}

/// A machine that runs, and everything that is done with it.
struct Launched {
    folder: Folder,
    record: Record,
    life: Life,
    deployment: Box<dyn Deployment>,
    events: mpsc::Receiver<Event>,
    speak: mpsc::Sender<Event>,
    asks: mpsc::Sender<Ask>,
    drain: watch::Sender<bool>,
    console: Option<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
    write_at: Option<Instant>,
    last_write: Instant,
}

/// Removes a folder unless the machine came to run.
struct Provisional(Option<Folder>);

impl Drop for Provisional {
    fn drop(&mut self) {
        if let Some(folder) = self.0.take() {
            // What cannot be removed is shown by `ps --all` and removed by `rm`.
            drop(folder.remove_locked());
        }
    }
}

async fn launch(order: &Order, watcher: &mut dyn Watcher) -> Result<Launched> {
    let path = order.app.clone();
    let app = blocking(move || App::open(&path)).await?;
    check_ports(&order.publish, &app)?;
    let memory = memory::choose(&app, order.memory)?;
    let backend = backends::by_name(&order.backend)?;
    let root = Root::open()?;
    let folder = root.claim(order.name.as_deref(), &app.manifest.name, order.replace)?;
    let mut provisional = Provisional(Some(folder));
    let Some(folder) = provisional.0.as_ref() else {
        return Err(Error::host("the enclave's folder is gone"));
    };
    let (listeners, publish) = listen(&order.publish)?;
    let mut record = new_record(order, &app, folder.name(), memory, publish);
    folder.write(&record)?;
    watcher.launching(folder, &app)?;
    let plan = plan(order, &app, memory);
    let mut deployment = backend.deploy(&plan, folder).await?;
    record.machine = Some(deployment.facts());
    folder.write(&record)?;
    let (speak, events) = mpsc::channel(EVENTS);
    let (asks, asked) = mpsc::channel(ASKS);
    let (drain, draining) = watch::channel(false);
    let open = |name, limit| {
        Rotating::create(folder.file(name), limit)
            .doing(|| format!("cannot write {}", folder.file(name).display()))
    };
    let (service_log, console_log) = (open(SERVICES, SERVICES_LIMIT)?, open(CONSOLE, CONSOLE_LIMIT)?);
    let socket = UnixListener::bind(folder.socket(requests::SOCKET))
        .doing(|| format!("cannot listen at {}", folder.file(requests::SOCKET).display()))?;
    let doors = requests::Doors { events: speak.clone(), asks: asks.clone() };
    let transport = deployment.transport();
    let console = deployment
        .console()
        .map(|stream| tokio::spawn(console::run(stream, console_log, order.console, speak.clone())));
    let tasks = vec![
        tokio::spawn(requests::serve(socket, doors)),
        tokio::spawn(control::run(Arc::clone(&transport), asked, speak.clone())),
        tokio::spawn(logs::run(Arc::clone(&transport), service_log, draining, speak.clone())),
        tokio::spawn(ingress::run(listeners, transport)),
    ];
    let now = Instant::now();
    let life = Life::new(limits(order, &app), now);
    let Some(folder) = provisional.0.take() else {
        return Err(Error::host("the enclave's folder is gone"));
    };
    Ok(Launched {
        folder,
        record,
        life,
        deployment,
        events,
        speak,
        asks,
        drain,
        console,
        tasks,
        write_at: None,
        last_write: now,
    })
}

impl Launched {
    async fn live(mut self, signals: &mut Signals, watcher: &mut dyn Watcher) -> Result<Ran> {
        let mut ended = false;
        let verdict = loop {
            if let Some(verdict) = self.life.verdict() {
                break verdict.clone();
            }
            let (deadline, write_at) = (self.life.deadline(), self.write_at);
            let event = tokio::select! {
                Some(event) = self.events.recv() => event,
                ending = self.deployment.ended(), if !ended => {
                    ended = true;
                    self.after_console(ending);
                    continue;
                }
                sent = signals.next() => match sent {
                    Sent::Interrupt => Event::Interrupt,
                    Sent::Terminate => Event::Stop { why: "the sleeve was asked to end".to_owned(), grace: None },
                },
                () = until(deadline) => Event::Tick,
                () = until(write_at) => {
                    self.write();
                    continue;
                }
            };
            if let Event::Status(status) = &event {
                self.take_status(status);
            }
            for act in self.life.on(event, Instant::now()) {
                self.perform(act, watcher).await;
            }
        };
        self.deployment.destroy().await;
        for task in &self.tasks {
            task.abort();
        }
        let end = End { code: verdict.code, outcome: verdict.outcome, at_ms: now_ms() };
        self.record.end = Some(end.clone());
        self.write();
        Ok(Ran { record: self.record, end, folder: self.folder })
    }

    /// Tells the life of the machine's end as soon as the console is read to its end.
    fn after_console(&mut self, ending: Ending) {
        let (speak, console) = (self.speak.clone(), self.console.take());
        tokio::spawn(async move {
            if let Some(console) = console {
                // A console that something else keeps open has said what it has to say.
                drop(time::timeout(CONSOLE_LIMIT_AFTER_END, console).await);
            }
            // A life that is over needs no end.
            drop(speak.send(Event::Ended(ending)).await);
        });
    }

    async fn perform(&mut self, act: Act, watcher: &mut dyn Watcher) {
        // A full queue means that the enclave does not listen: its deadline deals with that.
        let tell = |request| drop(self.asks.try_send(Ask { request, answer: None }));
        match act {
            Act::AskStop => tell(Request::Stop),
            Act::Seen(seq) => tell(Request::Seen { seq }),
            Act::Drain => {
                self.drain.send_replace(true);
            }
            Act::Kill => self.deployment.destroy().await,
            Act::Ready => {
                self.record.ready_ms.get_or_insert_with(now_ms);
                self.write();
                watcher.ready(&self.record);
            }
        }
    }

    fn take_status(&mut self, status: &Status) {
        let booted = || now_ms().saturating_sub(status.uptime_ms);
        self.record.booted_ms.get_or_insert_with(booted);
        self.record.status = Some(status.clone());
        self.write_at.get_or_insert(Instant::now().max(self.last_write + WRITE_PAUSE));
    }

    /// Writes the record. A disk that is full costs the outside its view, never the enclave its life.
    fn write(&mut self) {
        self.write_at = None;
        self.last_write = Instant::now();
        if let Err(error) = self.folder.write(&self.record) {
            crate::output::error(&error);
        }
    }
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Sent {
        tokio::select! {
            _ = self.interrupt.recv() => Sent::Interrupt,
            _ = self.terminate.recv() => Sent::Terminate,
            _ = self.hangup.recv() => Sent::Terminate,
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Does blocking work beside the runtime, so that a signal is heard meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::host("a part of host-sleeve broke off").because(error)),
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
fn listen(publish: &[Publish]) -> Result<(Vec<(Listener, u16)>, Vec<Publish>)> {
    let (mut listeners, mut real) = (Vec::new(), Vec::new());
    for port in publish {
        let listener = Listener::tcp(port.listen).map_err(|error| {
            let taken = error.kind() == std::io::ErrorKind::AddrInUse;
            let hint =
                if taken { "choose another port, or 0 for any free one" } else { "choose another address" };
            Error::operator(format!("cannot listen on {}", port.listen)).because(error).hint(hint)
        })?;
        let listen = listener.tcp_address().unwrap_or(port.listen);
        real.push(Publish { listen, ingress: port.ingress });
        listeners.push((listener, port.ingress));
    }
    Ok((listeners, real))
}

fn new_record(order: &Order, app: &App, name: &str, memory: u64, publish: Vec<Publish>) -> Record {
    Record {
        version: record::VERSION,
        name: name.to_owned(),
        image: record::Image {
            path: app.path().to_owned(),
            digest: app.artifact.digest().to_string(),
            name: app.manifest.name.clone(),
        },
        backend: order.backend.clone(),
        machine: None,
        cpus: order.cpus,
        memory,
        publish,
        metrics: None,
        created_ms: now_ms(),
        booted_ms: None,
        ready_ms: None,
        sleeve: ProcessId::own(),
        stop_timeout_ms: app.manifest.stop_timeout_ms,
        status: None,
        warnings: Vec::new(),
        end: None,
    }
}

fn plan(order: &Order, app: &App, memory: u64) -> Plan {
    Plan {
        artifact: app.artifact.clone(),
        cmdline: app.cmdline.clone(),
        cpus: order.cpus,
        memory,
        machine: order.machine,
        accel: order.accel,
    }
}

fn limits(order: &Order, app: &App) -> Limits {
    let services: u64 = app.manifest.services.iter().map(|service| service.start_timeout_ms).sum();
    Limits {
        ready: order.ready_timeout.unwrap_or(BOOT_LIMIT + Duration::from_millis(services)),
        run: order.timeout,
        stop: Duration::from_millis(app.manifest.stop_timeout_ms),
    }
}
