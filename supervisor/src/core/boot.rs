//! From the first byte from init to the first turn.
//!
//! Its law: the first supervisor serves the status whatever is wrong with the manifest, and that is then a `fatal` that the
//! host can read. One that was started again serves it once it knows what runs, so that nobody reads `booting` of an
//! enclave that serves.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use cloister_manifest::model::{Control, MAX_BYTES, Manifest, Root, Service};
use cloister_net::Entrance;
use cloister_wire::control::bounded;
use cloister_wire::hold::Welcome;
use tokio::sync::{mpsc, watch};

use super::equip::{Around, Equipment};
use super::line::Line;
use super::notes::Notes;
use super::turn::{Core, FromOutside, Inbox, Kept};
use super::{CoreError, Setup};
use crate::clock::Moment;
use crate::launcher::{Action, Event, Launcher};
use crate::logs::{self, Movers, Readers, Shared, Store};
use crate::notify::Notify;
use crate::owners::Owners;
use crate::reserve::reserve;
use crate::stash::Stash;
use crate::status::{self, Asking, Board};
use crate::world::{self, Addresses, Paths};

/// The most services: init keeps two memfds for each, and a few more, within
/// [`MAX_STASHES`](cloister_wire::hold::MAX_STASHES).
const MAX_SERVICES: usize = 60;

/// Requests from the host and from inside that wait for their turn.
const ASKED_QUEUE: usize = 16;

/// The name under which init keeps the launcher's state.
const STATE: &str = "state";

/// The longest text of why nothing can be started, in bytes of JSON: it may quote the manifest.
const MAX_FAULT: usize = 4096;
/// The machine's host name, below `/proc` (`Documentation/admin-guide/sysctl/kernel.rst`), which all services share.
const HOST_NAME: &str = "sys/kernel/hostname";

/// Why the manifest's services cannot be started: where it failed and the words.
type Fault = (&'static str, String);

/// Supervises until init is told to power off and closes the socket.
///
/// # Errors
/// What a supervisor cannot survive; init starts another, which goes on.
pub async fn run(setup: Setup) -> Result<(), CoreError> {
    // Init goes on with its boot until it says its first word: time enough to read the manifest.
    let began = Moment::now();
    let manifest = read_manifest(&setup.paths.manifest);
    let read = Moment::now();
    let (mut line, welcome) = Line::open(setup.init).await?;
    let mut stages = Stages::begin();
    line.request(&[STATE.to_owned()])?;
    let inside = Inside::listen(&mut line, &setup.addresses, &setup.paths.proc)?;
    let board = Board::new(welcome.platform.clone(), welcome.boot.clone(), welcome.restarts);
    board.measured(setup.registers);
    board.add_stage("manifest", began, read);
    let board = Arc::new(board);
    let (allow, asking, asked, told) = desk(&board);
    let serve_status = serve_status(setup.control, inside.control, asking, welcome.restarts == 0);
    stages.end("status", &board);

    let (services, control, root) =
        manifest.as_ref().map_or_else(|_| (Vec::new(), nothing(), Root::default()), parts);
    let equipment = Equipment::gather(&mut line, manifest.as_ref().ok(), setup.ingress)?;
    line.request(&logs::stash_names(&services, equipment.names().len()))?;
    line.request_root(manifest.as_ref().ok(), welcome.root_mounted)?;
    let (stash, kept) = Stash::<Kept>::resume(line.memfd(STATE).await?);
    let logs = open_logs(&mut line, &services, equipment.names()).await?;
    let readers = Readers::new(control.services.clone());
    serve_all(setup.logs, inside.logs, |listener| logs::serve(listener, logs.clone(), Arc::clone(&readers)));
    allow.send_replace(control);
    prepare(manifest.as_ref().ok(), &setup.paths, &logs);
    let owners = Owners::default();
    let around = Around { logs: &logs, owners: &owners, board: &board };
    let (servants, servants_told) =
        equipment.servants(&line.hold, &around, movers(&logs)?, services.len(), kept.as_ref())?;
    stages.end("logs", &board);

    let machine = decide(manifest, line.root().await?, kept, setup.seed);
    stages.end("root", &board);
    let (machine, actions) = machine.map_or_else(doomed, |machine| (machine, Vec::new()));
    let movers = movers(&logs)?;
    let (events, own_events) = mpsc::unbounded_channel();
    let core = Core {
        machine,
        services: services.into(),
        root,
        board,
        logs,
        movers,
        readers,
        servants,
        hold: line.hold,
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
    let from_outside = FromOutside { asked, told, notify: inside.notify };
    let inbox = Inbox { from_outside, own_events, servants_told, backlog: line.backlog };
    begin(core, inbox, welcome, line.pipes, actions, serve_status).await
}

/// The launcher's machine, as it was left or new, unless the manifest or the root is at fault.
fn decide(
    manifest: Result<Manifest, Fault>,
    root: Option<String>,
    kept: Option<Kept>,
    seed: u64,
) -> Result<Launcher, Fault> {
    match (manifest, root) {
        (Ok(_), Some(error)) => Err(("root", error)),
        (Ok(manifest), None) => Launcher::new(&manifest, kept.map(|kept| kept.state), seed)
            .map_err(|error| ("manifest", error.to_string())),
        (Err(fault), _) => Err(fault),
    }
}

/// A machine that starts nothing and says why.
fn doomed((stage, error): Fault) -> (Launcher, Vec<Action>) {
    Launcher::doomed(stage, bounded(&error, MAX_FAULT), Moment::now())
}

/// Where programs inside are heard.
struct Inside {
    control: Entrance,
    logs: Entrance,
    notify: Notify,
}

impl Inside {
    fn listen(line: &mut Line, at: &Addresses, proc: &Path) -> Result<Self, CoreError> {
        let control = line.socket("socket.control", || world::bind(&at.control))?;
        let logs = line.socket("socket.logs", || world::bind(&at.logs))?;
        let notify = line.socket("socket.notify", || Notify::bind(&at.notify))?;
        let heard = system("programs inside cannot be heard");
        Ok(Self {
            control: world::serving(control, proc.to_owned()).map_err(&heard)?,
            logs: world::serving(logs, proc.to_owned()).map_err(&heard)?,
            notify: Notify::serving(notify).map_err(&heard)?,
        })
    }
}

/// Begins to serve the status.
type ServeStatus = Box<dyn FnOnce()>;

/// Serves the status now, or gives what does so later.
fn serve_status(host: Entrance, local: Entrance, asking: Asking, now: bool) -> Option<ServeStatus> {
    let serve: ServeStatus =
        Box::new(move || serve_all(host, local, |listener| status::serve(listener, asking.clone())));
    if now {
        serve();
        return None;
    }
    Some(serve)
}

/// Goes on with the logs that init keeps.
async fn open_logs(
    line: &mut Line,
    services: &[Service],
    servants: Vec<String>,
) -> Result<Shared, CoreError> {
    let names: Vec<String> = services.iter().map(|s| s.name.clone()).chain(servants).collect();
    let memfds = line.logs(names.len()).await?;
    let store = Store::resume(names, memfds, Moment::now()).map_err(system("the logs cannot be kept"))?;
    Ok(Shared::new(store))
}

/// What drains the services' outputs into the logs.
fn movers(logs: &Shared) -> Result<Movers, CoreError> {
    let sink = File::options().write(true).open("/dev/null").map_err(system("/dev/null cannot be opened"))?;
    Ok(Movers::new(logs.clone(), sink))
}

/// The supervisor's own boot stages, told behind init's.
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

/// Keeps the services' ports for them, and gives the machine its name.
fn prepare(manifest: Option<&Manifest>, paths: &Paths, logs: &Shared) {
    let Some(manifest) = manifest else { return };
    if let Err(error) = reserve(&paths.proc, manifest) {
        logs.say(None, &format!("the services' ports cannot be kept for them: {error}"));
    }
    if let Err(error) = std::fs::write(paths.proc.join(HOST_NAME), &manifest.name) {
        logs.say(None, &format!("the host name {} cannot be set: {error}", manifest.name));
    }
}

/// The first turn: the services start, or those that init holds are taken over.
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
        let line =
            format!("the supervisor was started again after a crash, for the {}. time", welcome.restarts);
        core.logs.say(None, &line);
    }
    for held in welcome.held.iter().filter(|held| held.cgroup != 0) {
        core.owners.started(&held.name, held.cgroup);
    }
    // Before the launcher may ask them to drain.
    core.servants.adopt(&welcome.held, &mut pipes);
    // The pipes of one that is still on its way to its program come with the report of its start.
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

type Desk = (watch::Sender<Control>, Asking, mpsc::Receiver<status::Asked>, mpsc::Receiver<()>);

/// Where requests are taken: nothing beyond reading is allowed until the manifest says so.
fn desk(board: &Arc<Board>) -> Desk {
    let (asked, asked_inbox) = mpsc::channel(ASKED_QUEUE);
    let (told, told_inbox) = mpsc::channel(1);
    let (allow, control) = watch::channel(nothing());
    let asking = Asking { board: Arc::clone(board), control, asked, told };
    (allow, asking, asked_inbox, told_inbox)
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

fn read_manifest(path: &Path) -> Result<Manifest, Fault> {
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| ("manifest", format!("{}: {error}", path.display())))?;
    let manifest = Manifest::from_json(&bytes).map_err(|error| ("manifest", error.to_string()))?;
    match manifest.services.len() {
        0 => Err(("manifest", "it names no service".to_owned())),
        1..=MAX_SERVICES => Ok(manifest),
        count => Err(("manifest", format!("it names {count} services, more than {MAX_SERVICES}"))),
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> CoreError {
    move |source| CoreError::System { what, source }
}
