//! An init for the tests: it speaks the hold protocol and holds real processes. Process groups replace cgroups.
//!
//! Invariant: like init, it outlives supervisors and hands everything to the next one.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloister_supervisor::clock::Moment;
use cloister_sys::child::dies_with_parent;
use cloister_sys::fdpass::{recv_with_fds, send_with_fds};
use cloister_wire::control::{Cause, Exit, State};
use cloister_wire::frame::{self, Decoder, HOLD_LIMIT};
use cloister_wire::hello::VERSION;
use cloister_wire::hold::{Ended, FromInit, FromSupervisor, Held, Place, SignalTarget, Spawn, Welcome};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// How often a process group is checked after its leader has exited: there is no event when a group becomes empty.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The number of every cgroup that a test does not set: the kernel assigns it to none of these tests.
const SOME_CGROUP: u64 = 4_242_424;

/// A number above those of a servant's descriptors, for the copies before they are moved there.
const ABOVE: i32 = 100;

/// A message and the descriptors it names.
type Outgoing = (FromInit, Vec<OwnedFd>);

/// What the stand-in holds, for one supervisor after the other.
#[derive(Default)]
struct Holdings {
    held: BTreeMap<String, (Held, Vec<OwnedFd>)>,
    stash: Vec<(String, OwnedFd)>,
    restarts: u32,
    root_mounted: bool,
    starts: u32,
}

/// The stand-in for init.
#[derive(Clone)]
pub(crate) struct StandIn {
    holdings: Arc<Mutex<Holdings>>,
    off: watch::Sender<Option<State>>,
    /// A directory that replaces `/proc`.
    proc: PathBuf,
    /// A directory that replaces the services' cgroups.
    cgroups: PathBuf,
    to_supervisor: Arc<Mutex<Option<mpsc::UnboundedSender<Outgoing>>>>,
    /// Reports of starts that are held back, if they are.
    held_back: Arc<Mutex<Option<Vec<Outgoing>>>>,
    /// The kernel's numbers of cgroups, by service.
    numbers: Arc<Mutex<BTreeMap<String, u64>>>,
    /// The platform that it reports.
    platform: Arc<Mutex<&'static str>>,
}

impl StandIn {
    pub(crate) fn new(proc: PathBuf, cgroups: PathBuf) -> Self {
        let off = watch::Sender::new(None);
        let (to_supervisor, held_back) = Default::default();
        let numbers = Arc::default();
        let platform = Arc::new(Mutex::new("virtual"));
        Self { holdings: Arc::default(), off, proc, cgroups, to_supervisor, held_back, numbers, platform }
    }

    /// Reports another platform from the next welcome on.
    pub(crate) fn pretend_to_be(&self, platform: &'static str) {
        *self.platform.lock().unwrap() = platform;
    }

    /// Sets the cgroup number of the service from its next start on.
    pub(crate) fn number_cgroup(&self, service: &str, number: u64) {
        self.numbers.lock().unwrap().insert(service.to_owned(), number);
    }

    /// Kills a held process as with a `SIGKILL` from outside.
    pub(crate) fn kill(&self, name: &str) {
        self.signal(name, 9, SignalTarget::Cgroup);
    }

    /// Suspends a held process.
    pub(crate) fn suspend(&self, name: &str) {
        self.signal(name, 19, SignalTarget::Cgroup);
    }

    /// Empties the memory in which the supervisor keeps its state.
    pub(crate) fn lose_state(&self) {
        let holdings = self.holdings.lock().unwrap();
        let (_, state) = holdings.stash.iter().find(|(name, _)| name == "state").unwrap();
        rustix::fs::ftruncate(state, 0).unwrap();
    }

    /// Delays reports of starts until [`Self::report_starts`].
    pub(crate) fn hold_back_starts(&self) {
        *self.held_back.lock().unwrap() = Some(Vec::new());
    }

    /// Reports the starts that were held back.
    pub(crate) fn report_starts(&self) {
        for (message, fds) in self.held_back.lock().unwrap().take().unwrap_or_default() {
            self.send(message, fds);
        }
    }

    /// Makes the process a member of the service's cgroup.
    pub(crate) fn join_cgroup(&self, pid: u32, service: &str) {
        let folder = self.proc.join(pid.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        // Complete at any time, like the kernel's file: the supervisor may read it now.
        std::fs::write(folder.join("cgroup.new"), format!("0::/cloister/{service}\n")).unwrap();
        std::fs::rename(folder.join("cgroup.new"), folder.join("cgroup")).unwrap();
        let cgroup = self.cgroups.join(service);
        std::fs::create_dir_all(&cgroup).unwrap();
        let mut members =
            File::options().create(true).append(true).open(cgroup.join("cgroup.procs")).unwrap();
        writeln!(members, "{pid}").unwrap();
        for file in ["status", "mountinfo", "limits", "oom_score_adj", "fd"] {
            let real = PathBuf::from(format!("/proc/{pid}")).join(file);
            std::os::unix::fs::symlink(real, folder.join(file)).unwrap_or_default();
        }
    }

    /// The state with which the supervisor powered off.
    pub(crate) async fn powered_off(&self) -> State {
        let mut off = self.off.subscribe();
        let state = off.wait_for(Option::is_some).await.unwrap();
        state.clone().unwrap()
    }

    /// Held processes that have not exited, by name.
    pub(crate) fn running(&self) -> BTreeMap<String, u32> {
        let holdings = self.holdings.lock().unwrap();
        let alive = holdings.held.values().filter(|(held, _)| held.ended.is_none());
        alive.map(|(held, _)| (held.name.clone(), held.pid)).collect()
    }

    /// The number of starts that supervisors have requested.
    pub(crate) fn starts(&self) -> u32 {
        self.holdings.lock().unwrap().starts
    }

    /// A socket for the next supervisor, served from now on.
    pub(crate) fn connect(&self) -> StdStream {
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(self.welcome()).unwrap();
        *self.to_supervisor.lock().unwrap() = Some(sender);
        tokio::spawn(self.clone().serve(UnixStream::from_std(ours).unwrap(), receiver));
        theirs
    }

    fn welcome(&self) -> Outgoing {
        let mut holdings = self.holdings.lock().unwrap();
        let mut fds: Vec<OwnedFd> = holdings.stash.iter().map(|(_, fd)| fd.try_clone().unwrap()).collect();
        for (_, pipes) in holdings.held.values() {
            fds.extend(pipes.iter().map(|fd| fd.try_clone().unwrap()));
        }
        let welcome = Welcome {
            version: VERSION,
            platform: (*self.platform.lock().unwrap()).to_owned(),
            boot: vec![],
            restarts: holdings.restarts,
            root_mounted: holdings.root_mounted,
            stash: holdings.stash.iter().map(|(name, _)| name.clone()).collect(),
            held: holdings.held.values().map(|(held, _)| held.clone()).collect(),
        };
        holdings.restarts += 1;
        (FromInit::Welcome(welcome), fds)
    }

    async fn serve(self, stream: UnixStream, mut outgoing: mpsc::UnboundedReceiver<Outgoing>) {
        let (read, write) = stream.into_split();
        let sending = tokio::spawn(async move {
            while let Some((message, fds)) = outgoing.recv().await {
                let frame = frame::encode(&message, HOLD_LIMIT).unwrap();
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                let stream: &UnixStream = write.as_ref();
                stream.writable().await.unwrap();
                // Small frames are written completely to an empty socket.
                if send_with_fds(stream, &frame, &fds).is_err() {
                    return;
                }
            }
        });
        let mut decoder = Decoder::new(HOLD_LIMIT);
        let mut buffer = vec![0; 65536];
        let mut arrived = VecDeque::new();
        let stream: &UnixStream = read.as_ref();
        while stream.readable().await.is_ok() {
            match stream.try_io(Interest::READABLE, || recv_with_fds(stream, &mut buffer)) {
                Ok((0, _)) => break,
                Ok((count, fds)) => {
                    decoder.push(&buffer[..count]);
                    arrived.extend(fds);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => break,
            }
            while let Some(message) = decoder.next_message::<FromSupervisor>().unwrap() {
                if let FromSupervisor::PowerOff { state } = message {
                    self.off.send_replace(Some(state));
                    sending.abort();
                    return;
                }
                let count = match &message {
                    FromSupervisor::Spawn { spec, .. } => spec.fds,
                    FromSupervisor::Stash { fds, .. } => *fds,
                    _ => 0,
                };
                let fds = arrived.drain(..usize::from(count)).collect();
                self.perform(message, fds);
            }
        }
        sending.abort();
    }

    fn send(&self, message: FromInit, fds: Vec<OwnedFd>) {
        if let Some(supervisor) = &*self.to_supervisor.lock().unwrap() {
            supervisor.send((message, fds)).unwrap_or_default();
        }
    }

    fn perform(&self, message: FromSupervisor, fds: Vec<OwnedFd>) {
        match message {
            FromSupervisor::Spawn { name, spec } => self.spawn(name, &spec, fds),
            FromSupervisor::Signal { name, signal, to } => self.signal(&name, signal, to),
            FromSupervisor::Forget { name } => {
                self.holdings.lock().unwrap().held.remove(&name);
            }
            FromSupervisor::Stash { name, .. } => {
                let made = || memfd_create(&name, MemfdFlags::CLOEXEC).unwrap();
                let fd = fds.into_iter().next().unwrap_or_else(made);
                self.holdings.lock().unwrap().stash.push((name.clone(), fd.try_clone().unwrap()));
                self.send(FromInit::Stashed { name }, vec![fd]);
            }
            FromSupervisor::MountRoot { .. } => {
                self.holdings.lock().unwrap().root_mounted = true;
                self.send(FromInit::RootMounted { error: None }, vec![]);
            }
            FromSupervisor::PowerOff { .. } => {}
        }
    }

    fn spawn(&self, name: String, spec: &Spawn, fds: Vec<OwnedFd>) {
        let mut holdings = self.holdings.lock().unwrap();
        assert!(!holdings.held.contains_key(&name), "{name} is already held");
        holdings.starts += 1;
        drop(holdings);
        match start(spec, fds) {
            Err(error) => self.send(
                FromInit::SpawnFailed {
                    name,
                    step: "exec".into(),
                    errno: error.raw_os_error().unwrap_or(0),
                    error: format!("exec {}: {error}", spec.argv[0]),
                },
                vec![],
            ),
            Ok((child, pipes)) => {
                let at_ns = Moment::now().nanos();
                let pid = child.id();
                self.join_cgroup(pid, &name);
                let twins: Vec<OwnedFd> = pipes.iter().map(|fd| fd.try_clone().unwrap()).collect();
                let cgroup = self.numbers.lock().unwrap().get(&name).copied().unwrap_or(SOME_CGROUP);
                let held =
                    Held { name: name.clone(), pid, at_ns, ended: None, cgroup, populated: true, fds: 2 };
                self.holdings.lock().unwrap().held.insert(name.clone(), (held, pipes));
                let spawned = FromInit::Spawned { name: name.clone(), pid, at_ns, cgroup };
                match &mut *self.held_back.lock().unwrap() {
                    Some(late) => late.push((spawned, twins)),
                    None => self.send(spawned, twins),
                }
                tokio::spawn(self.clone().reap(name, child));
            }
        }
    }

    async fn reap(self, name: String, mut child: Child) {
        let pid = child.id();
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(u8::try_from(code).unwrap()),
            (None, signal) => {
                Exit::Signal { signal: u8::try_from(signal.unwrap()).unwrap(), cause: Cause::Sent }
            }
        };
        let ended = Ended { name: name.clone(), pid, exit, at_ns: Moment::now().nanos() };
        self.note(&name, |held| held.ended = Some(ended.clone()));
        self.send(FromInit::Exited(ended), vec![]);
        let group = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        while test_kill_process_group(group).is_ok() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        self.note(&name, |held| held.populated = false);
        self.send(FromInit::Emptied { name }, vec![]);
    }

    fn note<F: FnOnce(&mut Held)>(&self, name: &str, change: F) {
        if let Some((held, _)) = self.holdings.lock().unwrap().held.get_mut(name) {
            change(held);
        }
    }

    fn signal(&self, name: &str, signal: u8, to: SignalTarget) {
        let holdings = self.holdings.lock().unwrap();
        let Some((held, _)) = holdings.held.get(name) else { return };
        let pid = Pid::from_raw(i32::try_from(held.pid).unwrap()).unwrap();
        let signal = Signal::from_named_raw(i32::from(signal)).unwrap();
        match to {
            SignalTarget::Main if held.ended.is_some() => {}
            SignalTarget::Main => kill_process(pid, signal).unwrap_or_default(),
            SignalTarget::Cgroup => kill_process_group(pid, signal).unwrap_or_default(),
        }
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        for (held, _) in self.held.values() {
            if let Some(pid) = Pid::from_raw(i32::try_from(held.pid).unwrap()) {
                kill_process_group(pid, Signal::KILL).unwrap_or_default();
            }
        }
    }
}

fn start(spec: &Spawn, fds: Vec<OwnedFd>) -> io::Result<(Child, Vec<OwnedFd>)> {
    let (out_read, out_write) = io::pipe()?;
    let (err_read, err_write) = io::pipe()?;
    let mut command = match &spec.place {
        Place::Root(view) => service(spec, &view.cwd),
        Place::Empty => servant(&spec.argv, fds)?,
    };
    let child = command.stdin(Stdio::null()).stdout(out_write).stderr(err_write).spawn()?;
    Ok((child, vec![out_read.into(), err_read.into()]))
}

fn service(spec: &Spawn, cwd: &str) -> Command {
    let env = spec.env.iter().filter_map(|pair| pair.split_once('='));
    let mut command = Command::new(&spec.argv[0]);
    command.args(&spec.argv[1..]).env_clear().envs(env).current_dir(cwd).process_group(0);
    command
}

/// A servant: the program of that name among this package's examples, with its descriptors as 3, 4, ….
fn servant(argv: &[String], fds: Vec<OwnedFd>) -> io::Result<Command> {
    let folder =
        std::env::current_exe()?.parent().and_then(|deps| deps.parent()).map(|at| at.join("examples"));
    let name = PathBuf::from(&argv[0]).file_name().map(std::ffi::OsStr::to_owned).unwrap_or_default();
    let program = folder.unwrap_or_default().join(name);
    assert!(program.exists(), "build {} first: cargo build --examples", program.display());
    let above = |fd: OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, ABOVE);
    let fds = fds.into_iter().map(above).collect::<Result<Vec<_>, _>>()?;
    let places: Vec<String> =
        (3..).zip(&fds).map(|(number, fd)| format!(" {number}<&{0} {0}<&-", fd.as_raw_fd())).collect();
    let mut command = Command::new("bash");
    let run = format!("exec \"$0\" \"$@\"{}", places.concat());
    command.arg("-c").arg(run).arg(program).args(&argv[1..]).env_clear();
    dies_with_parent(&mut command, fds);
    Ok(command)
}
