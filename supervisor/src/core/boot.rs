//! From init's first message to the first turn.
//!
//! Invariant: the first supervisor serves the status even if the manifest is invalid or does not allow this machine; the error
//! is then a `fatal` state that the host can read. A restarted supervisor serves the status once it knows which services run, so that no reader
//! sees `booting` while the enclave serves.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use cloister_manifest::model::{Control, MAX_BYTES, Manifest, Root, Service};
use cloister_net::Entrance;
use cloister_wire::control::{Register, bounded};
use cloister_wire::hold::{Held, Welcome};
use tokio::sync::{mpsc, watch};

use super::equip::{Equipment, Resources};
use super::handshake::Handshake;
use super::notes::Notes;
use super::platform;
use super::turn::{Core, FromOutside, Inbox, Saved};
use super::{CoreError, Setup};
use crate::clock::Moment;
use crate::launcher::{Action, Event, Launcher};
use crate::logs::{self, Movers, Readers, Shared, Store};
use crate::notify::Notify;
use crate::owners::Owners;
use crate::reserve::reserve;
use crate::stash::Stash;
use crate::status::{self, Board, Context, time};
use crate::timekeeper;
use crate::world::{self, Addresses, Paths};

/// Maximum number of services: init holds two memfds for each, and a few more, and at most
/// [`MAX_STASHES`](cloister_wire::hold::MAX_STASHES).
const MAX_SERVICES: usize = 60;

/// Queued requests from the host and from inside.
const REQUEST_QUEUE: usize = 16;

/// The name under which init stores the launcher's state.
const STATE: &str = "state";

/// Maximum length of the text of a fatal error, in bytes of JSON: it may quote the manifest.
const MAX_FATAL_TEXT: usize = 4096;

/// The machine's host name, below `/proc` (`Documentation/admin-guide/sysctl/kernel.rst`), which all services share.
const HOST_NAME: &str = "sys/kernel/hostname";

/// Why the manifest's services cannot be started: the stage that failed and the error text.
type Fatal = (&'static str, String);

/// Supervises until init has been requested to power off and closes the socket.
///
/// # Errors
/// Those that a supervisor cannot survive; init starts a successor, which continues.
pub async fn run(setup: Setup) -> Result<(), CoreError> {
    // Init continues booting until it sends its first message: time enough to read the manifest.
    let began = Moment::now();
    let manifest = read_manifest(&setup.paths.manifest);
    let read = Moment::now();
    let (mut init, welcome) = Handshake::open(setup.init).await?;
    let manifest = permitted(manifest, &welcome.platform);
    let mut stages = Stages::begin();
    init.request(&[STATE.to_owned()])?;
    let inside = Inside::listen(&mut init, &setup.addresses, &setup.paths.proc)?;
    let board = first_status(&welcome, setup.registers, (began, read));
    let (allow, context, requests, status_sent) = inlet(&board);
    let serve_status = serve_status(setup.control, inside.control, context, welcome.restarts == 0);
    stages.end("status", &board);

    let (valid, places) = (manifest.as_ref().ok(), (&setup.addresses, &setup.paths));
    let (services, control, root) = valid.map_or_else(|| (Vec::new(), nothing(), Root::default()), parts);
    let equipment = Equipment::gather(&mut init, &welcome.platform, valid, setup.servants, places).await?;
    init.request(&logs::stash_names(&services, equipment.names().len()))?;
    init.request_root(valid, welcome.root_mounted)?;
    let (stash, saved) = Stash::<Saved>::resume(init.memfd(STATE).await?);
    let logs = open_logs(&mut init, &services, equipment.names()).await?;
    let readers = Readers::new(control.services.clone());
    serve_all(setup.logs, inside.logs, |listener| logs::serve(listener, logs.clone(), Arc::clone(&readers)));
    allow.send_replace(control);
    prepare(valid, &setup.paths, &logs);
    let (events, own_events) = mpsc::unbounded_channel();
    let may_step = nothing_has_started(saved.as_ref(), &welcome.held);
    timekeeper::start(setup.clock, &board, &logs, may_step, events.clone());
    let owners = Owners::default();
    let resources = Resources { logs: &logs, owners: &owners, board: &board };
    let (servants, servant_events) =
        equipment.servants(&init.hold, &resources, movers(&logs)?, services.len(), saved.as_ref())?;
    stages.end("logs", &board);

    let machine = launcher(manifest, init.root().await?, saved, setup.seed);
    stages.end("root", &board);
    let (machine, actions) = machine.map_or_else(fatal, |machine| (machine, Vec::new()));
    let core = Core {
        machine,
        services: services.into(),
        root,
        board,
        movers: movers(&logs)?,
        logs,
        readers,
        servants,
        hold: init.hold,
        paths: setup.paths,
        owners,
        oom_kills: BTreeMap::new(),
        probes: BTreeMap::new(),
        events,
        pending: VecDeque::new(),
        notes: Notes::default(),
        stash,
        saved: None,
    };
    let from_outside = FromOutside { requests, status_sent, notify: inside.notify };
    let inbox = Inbox { from_outside, own_events, servant_events, backlog: init.backlog };
    begin(core, inbox, welcome, init.pipes, actions, serve_status).await
}

/// The status before anything is known but what init has done, and when the manifest was read.
fn first_status(welcome: &Welcome, registers: Vec<Register>, (began, read): (Moment, Moment)) -> Arc<Board> {
    let board = Board::new(welcome.platform.clone(), welcome.boot.clone(), welcome.restarts);
    board.measured(registers);
    board.add_stage("manifest", began, read);
    Arc::new(board)
}

/// The manifest, if it is valid and allows the platform that init has detected.
fn permitted(manifest: Result<Manifest, Fatal>, found: &str) -> Result<Manifest, Fatal> {
    let manifest = manifest?;
    platform::check(&manifest.platforms, found).map_err(|error| ("platform", error))?;
    Ok(manifest)
}

/// The launcher, new or with the saved state, unless the manifest or the root is unusable.
fn launcher(
    manifest: Result<Manifest, Fatal>,
    root_error: Option<String>,
    saved: Option<Saved>,
    seed: u64,
) -> Result<Launcher, Fatal> {
    match (manifest, root_error) {
        (Ok(_), Some(error)) => Err(("root", error)),
        (Ok(manifest), None) => Launcher::new(&manifest, saved.map(|saved| saved.state), seed)
            .map_err(|error| ("manifest", error.to_string())),
        (Err(fatal), _) => Err(fatal),
    }
}

/// A launcher that starts nothing and reports the error.
fn fatal((stage, error): Fatal) -> (Launcher, Vec<Action>) {
    Launcher::fatal(stage, bounded(&error, MAX_FATAL_TEXT), Moment::now())
}

/// The sockets for programs inside.
struct Inside {
    /// For requests, and for questions about the time.
    control: (Entrance, Entrance),
    logs: Entrance,
    notify: Notify,
}

impl Inside {
    fn listen(init: &mut Handshake, at: &Addresses, proc: &Path) -> Result<Self, CoreError> {
        let control = init.socket("socket.control", || world::bind(&at.control))?;
        let logs = init.socket("socket.logs", || world::bind(&at.logs))?;
        let time = init.socket("socket.time", || world::bind(&at.time))?;
        let notify = init.socket("socket.notify", || Notify::bind(&at.notify))?;
        let failed = system("cannot listen for programs inside the enclave");
        Ok(Self {
            control: (
                world::serving(control, proc.to_owned()).map_err(&failed)?,
                world::serving(time, proc.to_owned()).map_err(&failed)?,
            ),
            logs: world::serving(logs, proc.to_owned()).map_err(&failed)?,
            notify: Notify::serving(notify).map_err(&failed)?,
        })
    }
}

/// Starts serving the status.
type ServeStatus = Box<dyn FnOnce()>;

/// Serves the status now, or returns the function that does so later.
fn serve_status(
    host: Entrance,
    (local, time): (Entrance, Entrance),
    context: Context,
    now: bool,
) -> Option<ServeStatus> {
    let serve: ServeStatus = Box::new(move || {
        let board = Arc::clone(&context.board);
        drop(tokio::spawn(time::serve(time, move || board.time())));
        serve_all(host, local, |listener| status::serve(listener, context.clone()));
    });
    if now {
        serve();
        return None;
    }
    Some(serve)
}

/// Opens the logs that init stores.
async fn open_logs(
    init: &mut Handshake,
    services: &[Service],
    servants: Vec<String>,
) -> Result<Shared, CoreError> {
    let names: Vec<String> = services.iter().map(|s| s.name.clone()).chain(servants).collect();
    let memfds = init.logs(names.len()).await?;
    let store = Store::resume(names, memfds, Moment::now()).map_err(system("cannot open the logs"))?;
    Ok(Shared::new(store))
}

/// The tasks that drain the services' outputs into the logs.
fn movers(logs: &Shared) -> Result<Movers, CoreError> {
    let sink = File::options().write(true).open("/dev/null").map_err(system("cannot open /dev/null"))?;
    Ok(Movers::new(logs.clone(), sink))
}

/// The supervisor's own boot stages, listed after init's.
struct Stages(Moment);

impl Stages {
    fn begin() -> Self {
        Self(Moment::now())
    }

    fn end(&mut self, name: &str, board: &Board) {
        let now = Moment::now();
        board.add_stage(name, self.0, now);
        self.0 = now;
    }
}

/// Reserves the services' ports, and sets the host name.
fn prepare(manifest: Option<&Manifest>, paths: &Paths, logs: &Shared) {
    let Some(manifest) = manifest else { return };
    if let Err(error) = reserve(&paths.proc, manifest) {
        logs.log(None, &format!("cannot reserve the services' ports: {error}"));
    }
    if let Err(error) = std::fs::write(paths.proc.join(HOST_NAME), &manifest.name) {
        logs.log(None, &format!("cannot set the host name {}: {error}", manifest.name));
    }
}

/// Whether no service has started since the boot, also under an earlier supervisor: the state is saved before the first one starts.
const fn nothing_has_started(saved: Option<&Saved>, held: &[Held]) -> bool {
    saved.is_none() && held.is_empty()
}

/// The first turn: the services are started, or those that init holds are taken over.
async fn begin(
    mut core: Core,
    inbox: Inbox,
    welcome: Welcome,
    mut pipes: BTreeMap<String, Vec<std::os::fd::OwnedFd>>,
    actions: Vec<Action>,
    serve_status: Option<ServeStatus>,
) -> Result<(), CoreError> {
    if welcome.restarts > 0 {
        core.machine.recovered(Moment::now());
        let line = format!("supervisor restarted after a crash (restart {})", welcome.restarts);
        core.logs.log(None, &line);
    }
    for held in welcome.held.iter().filter(|held| held.cgroup != 0) {
        core.owners.started(&held.name, held.cgroup);
    }
    // Before the launcher may request a drain.
    core.servants.adopt(&welcome.held, &mut pipes);
    // The pipes of a service that has not executed its program yet come with the report of its start.
    for held in welcome.held.iter().filter(|held| held.fds > 0) {
        let pipes = pipes.remove(&held.name).unwrap_or_default();
        core.take_over(held, pipes);
    }
    core.carry_out(actions)?;
    core.dispatch(Event::Adopt(welcome.held))?;
    if !core.machine.is_closing() {
        core.servants.start();
        core.carry_out(Vec::new())?;
    }
    if let Some(serve_status) = serve_status {
        serve_status();
    }
    core.serve(inbox).await
}

type Inlet = (watch::Sender<Control>, Context, mpsc::Receiver<status::PendingRequest>, mpsc::Receiver<()>);

/// The channels by which requests arrive: only reading is allowed until the manifest has been read.
fn inlet(board: &Arc<Board>) -> Inlet {
    let (requests, request_inbox) = mpsc::channel(REQUEST_QUEUE);
    let (status_sent, status_sent_inbox) = mpsc::channel(1);
    let (allow, control) = watch::channel(nothing());
    let context = Context { board: Arc::clone(board), control, requests, status_sent };
    (allow, context, request_inbox, status_sent_inbox)
}

fn nothing() -> Control {
    Control { host: Vec::new(), services: Vec::new() }
}

fn parts(manifest: &Manifest) -> (Vec<Service>, Control, Root) {
    (manifest.services.clone(), manifest.control.clone(), manifest.root.clone())
}

fn serve_all<S, F>(outer: Entrance, inner: Entrance, serve: S)
where
    S: Fn(Entrance) -> F,
    F: Future<Output = Infallible> + Send + 'static,
{
    for listener in [outer, inner] {
        drop(tokio::spawn(serve(listener)));
    }
}

fn read_manifest(path: &Path) -> Result<Manifest, Fatal> {
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| ("manifest", format!("{}: {error}", path.display())))?;
    let manifest = Manifest::from_json(&bytes).map_err(|error| ("manifest", error.to_string()))?;
    match manifest.services.len() {
        0 => Err(("manifest", "it defines no services".to_owned())),
        1..=MAX_SERVICES => Ok(manifest),
        count => Err(("manifest", format!("it defines {count} services, the limit is {MAX_SERVICES}"))),
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> CoreError {
    move |source| CoreError::System { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_may_be_set_until_a_supervisor_has_saved_a_state_or_a_process_is_held() {
        let saved =
            Saved { seq: 1, servants: BTreeMap::new(), state: crate::launcher::LauncherState::default() };
        let held =
            Held { name: "web".into(), pid: 7, at_ns: 1, ended: None, cgroup: 9, populated: true, fds: 2 };
        // Also for the successor of a supervisor that crashed before it did either.
        assert!(nothing_has_started(None, &[]));
        assert!(!nothing_has_started(Some(&saved), &[]));
        assert!(!nothing_has_started(None, &[held]));
    }
}
