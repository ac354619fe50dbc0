//! Performing the actions.
//!
//! Invariant: each action is a few calls, and its result is another event. Nothing is decided here.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use cloister_sys::signal;
use cloister_wire::causes;
use cloister_wire::hold::{FromInit, Spawn};
use rustix::fs::MemfdFlags;
use rustix::process::Pid;

use super::{Candidate, Handle, Holder, START_LIMIT};
use crate::boot::uptime;
use crate::cgroup::Cgroup;
use crate::channel;
use crate::console::Console;
use crate::end;
use crate::hold::{Action, Event, Failure};
use crate::root;
use crate::spawn::{self, At};

impl Holder {
    /// Welcomes the first supervisor.
    pub(super) fn begin(&mut self) {
        if let Some(started) = self.first.take() {
            self.take(started);
        }
    }

    /// Serves until the machine is shut down.
    pub fn run(mut self, console: Console) -> ! {
        self.console = console;
        loop {
            if let Err(error) = self.turn() {
                end::fatal("serve", &causes::line(&error));
            }
        }
    }

    /// Handles an event and all that follow from it.
    pub(super) fn take(&mut self, event: Event) {
        self.take_with(event, Vec::new());
    }

    /// The same, with the descriptors received with it.
    pub(super) fn take_with(&mut self, event: Event, mut fds: Vec<OwnedFd>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if matches!(event, Event::Lost(_)) {
                self.channel = None;
            }
            let now = u64::try_from(uptime().as_nanos()).unwrap_or(u64::MAX);
            for action in self.state.on(event, now) {
                events.extend(self.perform(action, &mut fds));
            }
        }
    }

    fn perform(&mut self, action: Action, fds: &mut Vec<OwnedFd>) -> Option<Event> {
        match action {
            Action::Send(message) => self.send(&message),
            Action::Print(line) => self.print(&line),
            Action::Launch { name, spec } => Some(self.launch(name, &spec, std::mem::take(fds))),
            Action::Signal { name, signal } => self.signal(&name, signal),
            Action::KillGroup { name } => {
                let killed = self.group_of(&name).map(Cgroup::kill);
                self.print_error(killed.and_then(Result::err))
            }
            Action::ClosePipes { name } => {
                self.handle(&name)?.output.clear();
                None
            }
            Action::RemoveGroup { name } => self.remove_group(&name),
            Action::Stash { name } => Some(self.add_stash(name, fds.pop())),
            Action::MountRoot { writable_bytes, reserved_bytes } => {
                self.writable_bytes = writable_bytes;
                let limited = self.groups.limit_services(reserved_bytes).map_err(|error| error.to_string());
                let mounted = || root::set_size(writable_bytes).map_err(|error| error.to_string());
                Some(Event::RootMounted(limited.and_then(|()| mounted())))
            }
            Action::StartSupervisor => Some(self.start_supervisor()),
            Action::StartSupervisorIn { pause_ms } => {
                self.start_at = Some(uptime().saturating_add(Duration::from_millis(pause_ms)));
                None
            }
            Action::KillSupervisor => {
                let killed = self.groups.supervisor().and_then(|group| group.kill());
                self.print_error(killed.err())
            }
            Action::PowerOff { state } => end::in_state(&state),
            Action::Fatal { stage, error } => end::fatal(stage, &error),
        }
    }

    fn send(&mut self, message: &FromInit) -> Option<Event> {
        let fds = self.descriptors(message);
        let sent = self.channel.as_mut()?.send(message, fds);
        sent.err().map(|error| Event::Lost(error.to_string()))
    }

    /// The descriptors of a message, in the order that the protocol specifies.
    fn descriptors(&self, message: &FromInit) -> Vec<Rc<OwnedFd>> {
        match message {
            FromInit::Welcome(welcome) => {
                let stash = welcome.stash.iter().filter_map(|name| self.stashed(name));
                let held = welcome.held.iter().filter(|held| held.fds > 0);
                stash.chain(held.flat_map(|held| self.output(&held.name))).collect()
            }
            FromInit::Spawned { name, .. } => self.output(name).collect(),
            FromInit::Stashed { name } => self.stashed(name).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn output(&self, name: &str) -> impl Iterator<Item = Rc<OwnedFd>> {
        let handle = self.handles.iter().find(|handle| handle.name == name);
        handle.into_iter().flat_map(|handle| handle.output.iter().cloned())
    }

    fn stashed(&self, name: &str) -> Option<Rc<OwnedFd>> {
        self.stash.iter().find(|(stash, _)| stash == name).map(|(_, fd)| Rc::clone(fd))
    }

    fn print(&mut self, line: &str) -> Option<Event> {
        self.console.print(line);
        None
    }

    /// Prints an error of an operation that should not fail; the machine keeps running.
    fn print_error(&mut self, error: Option<impl std::error::Error + 'static>) -> Option<Event> {
        error.and_then(|error| self.print(&format!("init: {}", causes::line(&error))))
    }

    fn launch(&mut self, name: String, spec: &Spawn, fds: Vec<OwnedFd>) -> Event {
        match spawn::service(&self.groups, &name, spec, fds, self.writable_bytes) {
            Ok(started) => {
                let (pid, cgroup) = (started.pid, started.group.number());
                self.handles.push(Handle {
                    name: name.clone(),
                    pid,
                    main: None,
                    report: started.report,
                    verdict: Some(started.verdict),
                    output: vec![Rc::new(started.stdout), Rc::new(started.stderr)],
                    group: started.group,
                });
                Event::Forked { name, pid, cgroup }
            }
            Err(failure) => Event::NotForked { name, failure },
        }
    }

    /// The main process is signalled by descriptor: its number could be another's by now, since its first process reaps it, and
    /// init learns of that later. A child of init keeps its number until init reaps it.
    fn signal(&mut self, name: &str, signal: u8) -> Option<Event> {
        let handle = self.handle(name)?;
        let sent = match &handle.main {
            Some(main) => signal::send_by(&main.fd, signal),
            None => signal::send(i32::try_from(handle.pid).ok().and_then(Pid::from_raw)?, signal),
        };
        // A process that is gone needs no signal: its exit will be an event.
        self.print_error(sent.err().filter(|error| error.raw_os_error() != Some(libc::ESRCH)))
    }

    fn remove_group(&mut self, name: &str) -> Option<Event> {
        let index = self.handles.iter().position(|handle| handle.name == name)?;
        let removed = self.handles.remove(index).group.remove();
        self.print_error(removed.err())
    }

    fn add_stash(&mut self, name: String, given: Option<OwnedFd>) -> Event {
        if !self.stash.iter().any(|(stash, _)| *stash == name) {
            let create = || rustix::fs::memfd_create(&name, MemfdFlags::CLOEXEC);
            match given.map_or_else(create, Ok) {
                Ok(fd) => self.stash.push((name.clone(), Rc::new(fd))),
                Err(error) => {
                    return Event::Lost(format!("init cannot stash {name:?}: {error}"));
                }
            }
        }
        Event::Stashed { name }
    }

    pub(super) fn start_supervisor(&mut self) -> Event {
        match self.fork_supervisor() {
            Ok(candidate) => {
                end::remember_supervisor();
                let pid = candidate.pid;
                self.supervisor = Some(candidate);
                Event::SupervisorStarted { pid }
            }
            Err(failure) => Event::NoSupervisor(failure),
        }
    }

    fn fork_supervisor(&mut self) -> Result<Candidate, Failure> {
        // Processes left behind by the previous supervisor must not run beside the next one.
        self.groups.supervisor()?.kill()?;
        let (channel, theirs) = channel::pair().at("channel", "socket pair")?;
        let (pid, verdict) = spawn::supervisor(&self.groups, theirs)?;
        self.channel = Some(channel);
        Ok(Candidate { pid, verdict, until: uptime().saturating_add(START_LIMIT) })
    }

    fn handle(&mut self, name: &str) -> Option<&mut Handle> {
        self.handles.iter_mut().find(|handle| handle.name == name)
    }

    pub(super) fn group_of(&self, name: &str) -> Option<&Cgroup> {
        self.handles.iter().find(|handle| handle.name == name).map(|handle| &handle.group)
    }
}
