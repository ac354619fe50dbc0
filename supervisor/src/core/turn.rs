//! One turn: wait for whatever comes next, decide, keep, perform, show.
//!
//! Its law: what comes from a service or from outside waits its turn in a bounded queue or in its socket, and makes
//! nobody else wait.

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
use crate::status::{Asked, Board};
use crate::world::Paths;

/// Errors of a start that may be gone a moment later: the machine lacked something, or (`EEXIST`) a process that failed
/// to start before a crash of the supervisor was not reaped yet. Others are the image's, but for
/// [`EXITED_BEFORE_EXEC`].
const PASSING: [i32; 8] = [
    libc::EAGAIN,
    libc::ENOMEM,
    libc::ENFILE,
    libc::EMFILE,
    libc::EBUSY,
    libc::EINTR,
    libc::ENOSPC,
    libc::EEXIST,
];

/// Steps of a start that may fail by what another service has done to the root that all share, and may undo.
const SHARED: [&str; 3] = ["mounts", "files", "cwd"];

/// What is kept across a crash of the supervisor, besides the logs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The last number of a status that may have been shown.
    pub(super) seq: u64,
    /// The servants and what they had counted, by name.
    pub(super) servants: BTreeMap<String, servant::Kept>,
    /// The launcher's state.
    pub(super) state: LauncherState,
}

/// What services and hosts say.
pub(super) struct FromOutside {
    pub(super) asked: mpsc::Receiver<Asked>,
    pub(super) told: mpsc::Receiver<()>,
    pub(super) notify: Notify,
}

/// Where events come from.
pub(super) struct Inbox {
    pub(super) from_outside: FromOutside,
    /// From the supervisor's own tasks.
    pub(super) own_events: mpsc::UnboundedReceiver<Event>,
    /// From the servants' duties.
    pub(super) servants_told: mpsc::Receiver<servant::Event>,
    /// What init said before the first turn.
    pub(super) backlog: VecDeque<Incoming>,
}

/// The supervisor's middle.
pub(super) struct Core {
    pub(super) machine: Launcher,
    pub(super) services: Arc<[Service]>,
    /// What every service's view is of.
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
    /// Processes of each service that were killed for want of memory in runs that are over, as far as this supervisor saw them.
    pub(super) oom_kills: BTreeMap<String, u64>,
    /// The probes of each service.
    pub(super) probes: BTreeMap<Id, Vec<AbortHandle>>,
    /// For the supervisor's own tasks. Unbounded, because each says a few words in its life.
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// What performing an action brought about at once.
    pub(super) pending: VecDeque<Event>,
    /// What services said and no turn has dealt with yet.
    pub(super) notes: Notes,
    pub(super) stash: Stash<Kept>,
    /// The state that is kept there and shown.
    pub(super) saved: Option<LauncherState>,
}

/// What a turn begins with.
enum Next {
    FromInit(Incoming),
    Happened(Event),
    /// A servant's duty has something to tell.
    Servant(servant::Event),
    Asked(Asked),
    Noted(u32, Vec<u8>),
    /// What services said of themselves is to be dealt with.
    NotesDue,
    /// A deadline of the launcher or of a servant has come.
    Due,
}

/// The most turns that a deadline which has come waits for what was there before it: more than the hold channel
/// ([`crate::hold`]) and the notify socket (`net.unix.max_dgram_qlen`, 10) hold together.
const TURNS_BEFORE_DUE: u32 = 128;

impl Core {
    /// Takes turns until init closes the socket after the last of them.
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
                Next::FromInit(incoming) => self.heard(incoming)?,
                Next::Happened(event) => self.dispatch(event)?,
                Next::Servant(event) => {
                    self.servants.told(event);
                    self.carry_out(Vec::new())?;
                }
                Next::Asked(asked) => self.asked(asked)?,
                Next::Noted(pid, datagram) => self.noted(pid, &datagram)?,
                Next::NotesDue => self.take_notes()?,
                Next::Due => {
                    turns_overdue = 0;
                    self.due()?;
                }
            }
        }
    }

    /// What comes next. The launcher does not depend on which of two sockets is read first ([`crate::launcher`]); time does:
    /// what was there when a deadline came counts as in time, after a pause of the whole machine too. So the clock is looked
    /// at last. Init comes first, since it speaks only of what it was asked to do; the others take equal turns.
    async fn next(&mut self, inbox: &mut Inbox) -> Result<Next, CoreError> {
        if let Some(incoming) = inbox.backlog.pop_front() {
            return Ok(Next::FromInit(incoming));
        }
        let due = until(self.next_deadline());
        let notes_due = until(self.notes.due());
        tokio::select! {
            biased;
            incoming = self.hold.receive() => Ok(Next::FromInit(incoming?)),
            Some(event) = inbox.own_events.recv() => Ok(Next::Happened(event)),
            Some(event) = inbox.servants_told.recv() => Ok(Next::Servant(event)),
            next = inbox.from_outside.next() => next,
            () = notes_due => Ok(Next::NotesDue),
            () = due => Ok(Next::Due),
        }
    }

    fn next_deadline(&self) -> Option<Moment> {
        self.machine.next_deadline().into_iter().chain(self.servants.next_deadline()).min()
    }

    /// Does what is due: of the servants, then of the launcher.
    fn due(&mut self) -> Result<(), CoreError> {
        if self.servants.next_deadline().is_some_and(|due| due <= Moment::now()) {
            self.servants.tick();
            self.carry_out(Vec::new())?;
        }
        self.dispatch(Event::Tick)
    }

    /// Decides, keeps the decision, performs it and shows what became of it; then the same for what that brought about.
    pub(super) fn dispatch(&mut self, event: Event) -> Result<(), CoreError> {
        self.dispatch_all(vec![event])
    }

    /// The same for several events at once: what they bring about is decided before anything is kept. What services said
    /// before goes first, in the same turn, so that it counts for the run that said it.
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

    /// Keeps what was decided, performs it and shows it. A state that has not changed is kept and shown already: writing it
    /// again would cost as much as the largest change.
    pub(super) fn carry_out(&mut self, actions: Vec<Action>) -> Result<(), CoreError> {
        let changed = self.servants.take_changed() || self.saved.as_ref() != Some(self.machine.state());
        if changed {
            let state = self.machine.state().clone();
            let (seq, servants) = (self.board.read().seq, self.servants.keep());
            self.stash.save(&Kept { seq, servants, state: state.clone() })?;
            self.saved = Some(state);
        }
        for action in actions {
            self.perform(action)?;
        }
        if changed {
            self.board.show(self.enclave(), self.machine.statuses(), self.servants.statuses());
        }
        Ok(())
    }

    /// The enclave's state: the launcher's, and what is amiss with a servant degrades it.
    fn enclave(&self) -> Enclave {
        let (state, trouble) = (self.machine.enclave(), self.servants.trouble());
        match (state, trouble) {
            (Enclave::Ready, Some(why)) => Enclave::Degraded { why: bounded(&why, MAX_ERROR_TEXT) },
            (Enclave::Degraded { why }, Some(more)) => {
                Enclave::Degraded { why: format!("{why}; {}", bounded(&more, MAX_ERROR_TEXT)) }
            }
            (state, _) => state,
        }
    }

    /// Goes on draining the pipes of what init held before this supervisor.
    pub(super) fn take_over(&mut self, held: &Held, pipes: Vec<OwnedFd>) {
        if let Ok(id) = self.machine.find(&held.name) {
            self.drain_pipes(id, pipes, Some(Moment::from_nanos(held.at_ns)));
        }
    }

    fn heard(&mut self, incoming: Incoming) -> Result<(), CoreError> {
        if let Some(name) = incoming.about().filter(|name| Servants::is_name(name)).map(str::to_owned) {
            self.servants.heard(&name, incoming);
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

    /// Takes a datagram from a service. What it says waits for its turn, but for what must not be lost by a crash in between.
    fn noted(&mut self, pid: u32, datagram: &[u8]) -> Result<(), CoreError> {
        let sender = identity::of_process(&self.paths.proc, pid);
        let id = sender.service().and_then(|name| self.machine.find(name).ok());
        let Some(id) = id else { return Ok(()) };
        let Some(run) = self.machine.run(id) else { return Ok(()) };
        // A service that has a check is ready when that succeeds, whatever the program says besides.
        let says_when = self.services.get(id.index()).is_some_and(|service| service.ready == Ready::Notify);
        let mut notes = notify::read(datagram);
        notes.retain(|note| says_when || *note != Note::Ready);
        self.notes.add(id, run, notes);
        if self.notes.due().is_some_and(|due| due <= Moment::now()) {
            return self.take_notes();
        }
        let lasting = self.notes.take_lasting(id, Moment::now());
        self.turn(lasting)
    }

    /// Deals with all that services said of themselves since the last time.
    fn take_notes(&mut self) -> Result<(), CoreError> {
        let began = Moment::now();
        self.dispatch_all(Vec::new())?;
        self.notes.rest(began, Moment::now());
        Ok(())
    }
}

impl FromOutside {
    /// What comes next, none of them before another.
    async fn next(&mut self) -> Result<Next, CoreError> {
        tokio::select! {
            Some(asked) = self.asked.recv() => Ok(Next::Asked(asked)),
            Some(()) = self.told.recv() => Ok(Next::Happened(Event::Told)),
            noted = self.notify.receive() => {
                let what = "notifications cannot be received";
                let (pid, datagram) = noted.map_err(|source| CoreError::System { what, source })?;
                Ok(Next::Noted(pid, datagram))
            }
        }
    }
}

/// What the step and the error number of a start that failed say of the next.
fn retry(step: &str, errno: i32) -> Retry {
    match errno {
        EXITED_BEFORE_EXEC => Retry::ByPolicy,
        errno if PASSING.contains(&errno) => Retry::Soon,
        _ if SHARED.contains(&step) => Retry::ByPolicy,
        _ => Retry::Never,
    }
}

/// Waits for a moment, or for ever if there is none.
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
    fn what_another_service_can_cause_is_tried_again_by_policy() {
        for step in ["mounts", "files", "cwd"] {
            assert_eq!(retry(step, libc::ENOENT), Retry::ByPolicy, "{step}");
            assert_eq!(retry(step, libc::ENOMEM), Retry::Soon, "{step}");
        }
        assert_eq!(retry("exec", libc::ENOENT), Retry::Never, "it is the image");
        assert_eq!(retry("exec", EXITED_BEFORE_EXEC), Retry::ByPolicy);
    }
}
