//! One turn: wait for the next event, decide, store, perform, publish.
//!
//! Invariant: input from a service or from outside waits in a bounded queue or in its socket, and delays no one else.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister_manifest::model::{Ready, Root, Service};
use cloister_net::identity;
use cloister_wire::control::{MAX_ERROR_TEXT, State as Enclave, bounded};
use cloister_wire::hold::{EXITED_BEFORE_EXEC, FromInit, Held};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::CoreError;
use super::notes::Notes;
use crate::clock::Moment;
use crate::hold::{Hold, HoldError, Incoming};
use crate::launcher::{Action, Event, Id, Launcher, LauncherState, Retry};
use crate::logs::{Movers, Readers, Shared};
use crate::notify::{self, Note, Notify};
use crate::owners::Owners;
use crate::servant::{self, Servants};
use crate::stash::Stash;
use crate::status::{Board, PendingRequest};
use crate::world::Paths;

/// Transient errors of a start: a lack of resources, or (`EEXIST`) a process that failed to start before a crash of the
/// supervisor and has not been reaped yet. The image causes all others, except [`EXITED_BEFORE_EXEC`].
const TRANSIENT: [i32; 8] = [
    libc::EAGAIN,
    libc::ENOMEM,
    libc::ENFILE,
    libc::EMFILE,
    libc::EBUSY,
    libc::EINTR,
    libc::ENOSPC,
    libc::EEXIST,
];

/// Steps of a start that may fail because another service changed the shared root; it may undo that.
const SHARED_STEPS: [&str; 3] = ["mounts", "files", "cwd"];

/// The state that survives a crash of the supervisor, besides the logs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The last number of a status that may have been published.
    pub(super) seq: u64,
    /// The servants' states and counters, by name.
    pub(super) servants: BTreeMap<String, servant::Saved>,
    /// The launcher's state.
    pub(super) state: LauncherState,
}

/// Input from services and hosts.
pub(super) struct FromOutside {
    pub(super) requests: mpsc::Receiver<PendingRequest>,
    /// A host has been sent a status.
    pub(super) status_sent: mpsc::Receiver<()>,
    pub(super) notify: Notify,
}

/// Where events come from.
pub(super) struct Inbox {
    pub(super) from_outside: FromOutside,
    /// From the supervisor's own tasks.
    pub(super) own_events: mpsc::UnboundedReceiver<Event>,
    /// From the servants' duties.
    pub(super) servant_events: mpsc::Receiver<servant::Event>,
    /// Messages that init sent before the first turn.
    pub(super) backlog: VecDeque<Incoming>,
}

/// The supervisor's core.
pub(super) struct Core {
    pub(super) machine: Launcher,
    pub(super) services: Arc<[Service]>,
    /// The root that every service gets a view of.
    pub(super) root: Root,
    pub(super) board: Arc<Board>,
    pub(super) logs: Shared,
    pub(super) movers: Movers,
    pub(super) readers: Arc<Readers>,
    pub(super) servants: Servants,
    pub(super) hold: Hold,
    pub(super) paths: Paths,
    /// The services' cgroups.
    pub(super) owners: Owners,
    /// Out-of-memory kills in past runs of each service, as far as this supervisor saw them.
    pub(super) oom_kills: BTreeMap<String, u64>,
    /// The probes of each service.
    pub(super) probes: BTreeMap<Id, Vec<AbortHandle>>,
    /// For the supervisor's own tasks. Unbounded, because each task sends only a few events.
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// Events caused immediately by performing an action.
    pub(super) pending: VecDeque<Event>,
    /// Notifications that no turn has handled yet.
    pub(super) notes: Notes,
    pub(super) stash: Stash<Saved>,
    /// The state that was last stored and published.
    pub(super) saved: Option<LauncherState>,
}

/// What starts a turn.
enum Next {
    FromInit(Incoming),
    Own(Event),
    /// An event from a servant's duty.
    Servant(servant::Event),
    Request(PendingRequest),
    /// A datagram, and the process that sent it.
    Notification(u32, Vec<u8>),
    /// Pending notifications are due.
    NotesDue,
    /// A deadline of the launcher or of a servant has expired.
    Due,
}

/// Maximum number of turns by which earlier input delays an expired deadline: more than the hold channel
/// ([`crate::hold`]) and the notify socket (`net.unix.max_dgram_qlen`, 10) queue together.
const TURNS_BEFORE_DUE: u32 = 128;

impl Core {
    /// Takes turns until init closes the socket after the last one.
    pub(super) async fn serve(mut self, mut inbox: Inbox) -> Result<(), CoreError> {
        let mut turns_overdue = 0u32;
        loop {
            let is_due = self.next_deadline().is_some_and(|due| due <= Moment::now());
            turns_overdue = if is_due { turns_overdue.saturating_add(1) } else { 0 };
            let next =
                if turns_overdue > TURNS_BEFORE_DUE { Ok(Next::Due) } else { self.next(&mut inbox).await };
            let next = match next {
                Ok(next) => next,
                Err(CoreError::Hold(HoldError::Closed)) if self.machine.is_off() => return Ok(()),
                Err(error) => return Err(error),
            };
            match next {
                Next::FromInit(incoming) => self.received(incoming)?,
                Next::Own(event) => self.dispatch(event)?,
                Next::Servant(event) => {
                    self.servants.handle_event(event);
                    self.carry_out(Vec::new())?;
                }
                Next::Request(request) => self.requested(request)?,
                Next::Notification(pid, datagram) => self.notified(pid, &datagram)?,
                Next::NotesDue => self.handle_notes()?,
                Next::Due => {
                    turns_overdue = 0;
                    self.due()?;
                }
            }
        }
    }

    /// The next input. The launcher does not depend on which of two sockets is read first ([`crate::launcher`]), but
    /// deadlines do: input that arrived before a deadline counts as in time, even after a pause of the whole machine.
    /// So the clock is checked last. Init comes first, since it only reports on what was requested from it; the others
    /// are treated equally.
    async fn next(&mut self, inbox: &mut Inbox) -> Result<Next, CoreError> {
        if let Some(incoming) = inbox.backlog.pop_front() {
            return Ok(Next::FromInit(incoming));
        }
        let due = until(self.next_deadline());
        let notes_due = until(self.notes.due());
        tokio::select! {
            biased;
            incoming = self.hold.receive() => Ok(Next::FromInit(incoming?)),
            Some(event) = inbox.own_events.recv() => Ok(Next::Own(event)),
            Some(event) = inbox.servant_events.recv() => Ok(Next::Servant(event)),
            next = inbox.from_outside.next() => next,
            () = notes_due => Ok(Next::NotesDue),
            () = due => Ok(Next::Due),
        }
    }

    fn next_deadline(&self) -> Option<Moment> {
        self.machine.next_deadline().into_iter().chain(self.servants.next_deadline()).min()
    }

    /// Handles expired deadlines: the servants', then the launcher's.
    fn due(&mut self) -> Result<(), CoreError> {
        if self.servants.next_deadline().is_some_and(|due| due <= Moment::now()) {
            self.servants.tick();
            self.carry_out(Vec::new())?;
        }
        self.dispatch(Event::Tick)
    }

    /// Decides, stores the decision, performs it and publishes the result; then the same for the events that this
    /// caused.
    pub(super) fn dispatch(&mut self, event: Event) -> Result<(), CoreError> {
        self.dispatch_all(vec![event])
    }

    /// The same for several events: all are decided before anything is stored. Earlier notifications go first, in the
    /// same turn, so that they count for the run that sent them.
    fn dispatch_all(&mut self, events: Vec<Event>) -> Result<(), CoreError> {
        self.pending.extend(self.notes.take());
        self.turn(events)
    }

    fn turn(&mut self, events: Vec<Event>) -> Result<(), CoreError> {
        self.pending.extend(events);
        while !self.pending.is_empty() {
            let mut actions = Vec::new();
            while let Some(event) = self.pending.pop_front() {
                actions.extend(self.machine.on(event, Moment::now()));
            }
            self.carry_out(actions)?;
        }
        Ok(())
    }

    /// Stores the decision, performs it and publishes it. An unchanged state is stored and published already: writing
    /// it again would cost as much as the largest change.
    pub(super) fn carry_out(&mut self, actions: Vec<Action>) -> Result<(), CoreError> {
        // A host acknowledges the number of the final state, which therefore stays the last one.
        let new_time = self.board.has_new_time() && !self.machine.is_closing();
        let changed =
            self.servants.take_changed() || self.saved.as_ref() != Some(self.machine.state()) || new_time;
        if changed {
            let state = self.machine.state().clone();
            let (seq, servants) = (self.board.read().seq, self.servants.saved());
            self.stash.save(&Saved { seq, servants, state: state.clone() })?;
            self.saved = Some(state);
        }
        for action in actions {
            self.perform(action)?;
        }
        if changed {
            self.board.publish(self.enclave(), self.machine.statuses(), self.servants.statuses());
        }
        Ok(())
    }

    /// The enclave's state: the launcher's, degraded by problems of servants.
    fn enclave(&self) -> Enclave {
        let (state, problem) = (self.machine.enclave(), self.servants.problem());
        match (state, problem) {
            (Enclave::Ready, Some(why)) => Enclave::Degraded { why: bounded(&why, MAX_ERROR_TEXT) },
            (Enclave::Degraded { why }, Some(more)) => {
                Enclave::Degraded { why: format!("{why}; {}", bounded(&more, MAX_ERROR_TEXT)) }
            }
            (state, _) => state,
        }
    }

    /// Continues draining the pipes of a service that init held before this supervisor.
    pub(super) fn take_over(&mut self, held: &Held, pipes: Vec<OwnedFd>) {
        if let Ok(id) = self.machine.find(&held.name) {
            self.drain_pipes(id, pipes, Some(Moment::from_nanos(held.at_ns)));
        }
    }

    fn received(&mut self, incoming: Incoming) -> Result<(), CoreError> {
        if let Some(name) = incoming.about().filter(|name| Servants::is_name(name)).map(str::to_owned) {
            self.servants.handle_report(&name, incoming);
            return self.carry_out(Vec::new());
        }
        if let FromInit::Spawned { name, cgroup, .. } = &incoming.message {
            self.owners.started(name, *cgroup);
            self.servants.owners_changed();
        }
        let find = |name: &str| self.machine.find(name).ok();
        let event = match incoming.message {
            FromInit::Spawned { name, pid, at_ns, .. } => find(&name).map(|id| {
                if !self.movers.drains(id) {
                    self.drain_pipes(id, incoming.fds, None);
                }
                Event::Spawned { id, pid, at: Moment::from_nanos(at_ns) }
            }),
            FromInit::SpawnFailed { name, step, errno, error } => find(&name).map(|id| {
                let error = bounded(&error, MAX_ERROR_TEXT);
                Event::SpawnFailed { id, retry: retry(&step, errno), error }
            }),
            FromInit::Exited(ended) => find(&ended.name).map(|id| Event::Exited {
                id,
                pid: ended.pid,
                exit: ended.exit,
                at: Moment::from_nanos(ended.at_ns),
            }),
            FromInit::Emptied { name } => find(&name).map(|id| Event::Emptied { id }),
            FromInit::StopRequested { why } => Some(Event::Stop { why }),
            FromInit::Welcome(_) | FromInit::RootMounted { .. } | FromInit::Stashed { .. } => None,
        };
        event.map_or(Ok(()), |event| self.dispatch(event))
    }

    /// Takes a datagram from a service. Its notifications wait, except those that a crash must not lose.
    fn notified(&mut self, pid: u32, datagram: &[u8]) -> Result<(), CoreError> {
        let sender = identity::of_process(&self.paths.proc, pid);
        let id = sender.service().and_then(|name| self.machine.find(name).ok());
        let Some(id) = id else { return Ok(()) };
        let Some(run) = self.machine.run(id) else { return Ok(()) };
        // A service with a readiness check is ready when the check succeeds, regardless of its notifications.
        let notifies = self.services.get(id.index()).is_some_and(|service| service.ready == Ready::Notify);
        let mut notes = notify::read(datagram);
        notes.retain(|note| notifies || *note != Note::Ready);
        self.notes.add(id, run, notes);
        if self.notes.due().is_some_and(|due| due <= Moment::now()) {
            return self.handle_notes();
        }
        let lasting = self.notes.take_lasting(id, Moment::now());
        self.turn(lasting)
    }

    /// Handles all pending notifications.
    fn handle_notes(&mut self) -> Result<(), CoreError> {
        let began = Moment::now();
        self.dispatch_all(Vec::new())?;
        self.notes.rest(began, Moment::now());
        Ok(())
    }
}

impl FromOutside {
    /// The next input, without priorities.
    async fn next(&mut self) -> Result<Next, CoreError> {
        tokio::select! {
            Some(request) = self.requests.recv() => Ok(Next::Request(request)),
            Some(()) = self.status_sent.recv() => Ok(Next::Own(Event::StatusSent)),
            received = self.notify.receive() => {
                let what = "cannot receive notifications";
                let (pid, datagram) = received.map_err(|source| CoreError::System { what, source })?;
                Ok(Next::Notification(pid, datagram))
            }
        }
    }
}

/// Whether to retry a start that failed at this step with this error number.
fn retry(step: &str, errno: i32) -> Retry {
    match errno {
        EXITED_BEFORE_EXEC => Retry::ByPolicy,
        errno if TRANSIENT.contains(&errno) => Retry::Soon,
        _ if SHARED_STEPS.contains(&step) => Retry::ByPolicy,
        _ => Retry::Never,
    }
}

/// Waits for a moment, or forever if there is none.
async fn until(moment: Option<Moment>) {
    match moment {
        Some(moment) => sleep(moment.since(Moment::now())).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_failures_that_another_service_can_cause_are_retried_by_policy() {
        for step in ["mounts", "files", "cwd"] {
            assert_eq!(retry(step, libc::ENOENT), Retry::ByPolicy, "{step}");
            assert_eq!(retry(step, libc::ENOMEM), Retry::Soon, "{step}");
        }
        assert_eq!(retry("exec", libc::ENOENT), Retry::Never, "the image causes it");
        assert_eq!(retry("exec", EXITED_BEFORE_EXEC), Retry::ByPolicy);
    }
}
