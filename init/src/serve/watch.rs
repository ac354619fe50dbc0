//! Collecting events: one wait, then every source in turn.
//!
//! Invariant: only this module reaps. A source with many events is read for a bounded turn.

use std::io;
use std::time::Duration;

use cloister_sys::process::{detach, resume};
use cloister_wire::control::Exit;
use cloister_wire::first::Note;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::{Handle, Holder, START_LIMIT, cause};
use crate::boot::uptime;
use crate::hold::Event;
use crate::spawn::{Report, byte};

/// Children reaped before other sources get their turn: a service can create orphans faster than they are reaped.
const REAPED_AT_ONCE: usize = 256;

/// The signals that request a shutdown (signal(7)).
const STOP_SIGNALS: [(u32, &str); 3] =
    [(15, "SIGTERM to init"), (2, "SIGINT to init"), (30, "SIGPWR to init")];

/// `SIGCHLD` of signal(7).
const SIGCHLD: u32 = 17;

/// What ended the wait.
struct Ready {
    signals: bool,
    channel: PollFlags,
    /// Positions in the list of handles whose cgroup changed.
    groups: Vec<usize>,
}

impl Holder {
    /// Waits for events and handles them.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        let ready = self.wait()?;
        if ready.signals {
            self.take_signals()?;
        }
        if let Some(why) = self.buttons.pressed() {
            self.take(Event::StopRequested(why));
        }
        self.take_verdicts();
        self.take_timers(uptime());
        if self.more_to_reap {
            self.reap()?;
        }
        self.take_emptied(&ready.groups);
        if !ready.channel.is_empty() {
            self.take_requests(ready.channel);
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut list = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let channel = self.channel.as_ref().map(|channel| {
            let waiting = if channel.is_waiting() { PollFlags::OUT } else { PollFlags::empty() };
            list.push(PollFd::new(channel, PollFlags::IN | waiting));
            list.len().saturating_sub(1)
        });
        let first_group = list.len();
        for handle in &self.handles {
            list.push(PollFd::from_borrowed_fd(handle.group.events(), PollFlags::PRI));
        }
        let verdicts = self.handles.iter().filter_map(|handle| handle.verdict.as_ref());
        for verdict in verdicts.chain(self.supervisor.as_ref().map(|candidate| &candidate.verdict)) {
            // Its closing wakes us (POLLHUP), not each step of the child.
            list.push(PollFd::new(verdict, PollFlags::empty()));
        }
        for button in self.buttons.files() {
            list.push(PollFd::new(button, PollFlags::IN));
        }
        // More children to reap: check the other sources, then continue.
        let pause = if self.more_to_reap { Some(Duration::ZERO) } else { self.until_next_timer() };
        let pause = pause.map(Timespec::try_from).transpose().unwrap_or_default();
        match poll(&mut list, pause.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = |index: usize| list.get(index).map_or(PollFlags::empty(), PollFd::revents);
        Ok(Ready {
            signals: !happened(0).is_empty(),
            channel: channel.map_or(PollFlags::empty(), happened),
            groups: (0..self.handles.len())
                .filter(|number| happened(first_group.saturating_add(*number)).contains(PollFlags::PRI))
                .collect(),
        })
    }

    /// How long until a timer expires.
    fn until_next_timer(&self) -> Option<Duration> {
        let late = self.supervisor.as_ref().map(|candidate| candidate.until);
        let next = self.start_at.into_iter().chain(late).min();
        next.map(|at| at.saturating_sub(uptime()))
    }

    /// Retries a failed fork of the supervisor when the pause is over, and times out one that is late.
    fn take_timers(&mut self, now: Duration) {
        if self.start_at.is_some_and(|at| at <= now) {
            self.start_at = None;
            let started = self.start_supervisor();
            self.take(started);
        }
        if let Some(candidate) = self.supervisor.as_mut().filter(|candidate| candidate.until <= now) {
            candidate.until = now.saturating_add(START_LIMIT);
            let what = format!("program not started within {} s", START_LIMIT.as_secs());
            let failure = candidate.verdict.late(&what);
            self.take(Event::Late(failure));
        }
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.next()? {
            if signal == SIGCHLD {
                self.more_to_reap = true;
            } else if let Some((_, why)) = STOP_SIGNALS.iter().find(|(number, _)| *number == signal) {
                self.take(Event::StopRequested((*why).to_owned()));
            }
        }
        Ok(())
    }

    /// Reads the verdicts of children that have not executed their programs yet.
    fn take_verdicts(&mut self) {
        let mut received = Vec::new();
        for handle in &mut self.handles {
            if let Some(result) = handle.verdict.as_mut().and_then(super::Verdict::read) {
                handle.verdict = None;
                if result.is_ok() {
                    handle.main = handle.report.as_mut().and_then(Report::main);
                }
                // A service that is process 1 itself stops after exec, which is reported by `stopped`.
                if result.is_err() || handle.report.is_some() {
                    received.push((handle.pid, result));
                }
            }
        }
        if let Some(candidate) = &mut self.supervisor
            && let Some(result) = candidate.verdict.read()
        {
            received.push((candidate.pid, result));
            self.supervisor = None;
        }
        for (pid, result) in received {
            self.take(match result {
                Ok(()) => Event::Launched { pid },
                Err(failure) => Event::LaunchFailed { pid, failure },
            });
        }
    }

    /// Reaps every child that has exited, orphans included.
    fn reap(&mut self) -> io::Result<()> {
        for _ in 0..REAPED_AT_ONCE {
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(exited)) => exited,
                Ok(None) | Err(rustix::io::Errno::CHILD) => {
                    self.more_to_reap = false;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(signal) = status.stopping_signal() {
                self.stopped(pid, signal);
                continue;
            }
            let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or(0);
            // A verdict that was written before the exit is in its pipe by now.
            self.take_verdicts();
            let exit = self.exit_of(pid, status);
            self.take(Event::Reaped { pid, exit });
        }
        Ok(())
    }

    /// Handles a stop of a child that is traced until exec: because it has executed its program, or for a signal. A call fails
    /// here only if the child was killed, which its exit reports.
    fn stopped(&mut self, child: Pid, signal: i32) {
        if signal == Signal::TRAP.as_raw() {
            self.take_verdicts();
            if detach(child, 0).is_ok() {
                self.take(Event::Launched { pid: u32::try_from(child.as_raw_nonzero().get()).unwrap_or(0) });
            }
        } else if signal == Signal::SEGV.as_raw() {
            // This is how exec kills a process if it fails after the point of no return. The kernel spares process 1 of a
            // namespace while it is traced (`force_sig_info_to_task`, kernel/signal.c), and it would fault forever.
            detach(child, byte(Some(signal))).unwrap_or_default();
        } else {
            resume(child, byte(Some(signal))).unwrap_or_default();
        }
    }

    /// How the service exited whose first process this is, or how this process exited if it belongs to no service.
    fn exit_of(&mut self, pid: u32, status: WaitStatus) -> Exit {
        let handle = self.handles.iter_mut().find(|handle| handle.pid == pid);
        let main = handle.as_ref().and_then(|handle| handle.main.as_ref()).map_or(pid, |main| main.pid);
        let (reported, group) = match handle {
            Some(Handle { report, group, .. }) => (report.as_mut().and_then(Report::end), Some(&*group)),
            None => (None, None),
        };
        match (reported, status.terminating_signal()) {
            (Some(Note::Signal(signal)), _) => Exit::Signal { signal, cause: cause::of(signal, main, group) },
            (None | Some(Note::Main(_)), Some(signal)) => {
                let signal = byte(Some(signal));
                Exit::Signal { signal, cause: cause::of(signal, main, group) }
            }
            (Some(Note::Code(code)), _) => Exit::Code(code),
            (None | Some(Note::Main(_)), None) => Exit::Code(byte(status.exit_status())),
        }
    }

    fn take_emptied(&mut self, changed: &[usize]) {
        let mut emptied = Vec::new();
        for (number, handle) in self.handles.iter_mut().enumerate() {
            // A group that cannot be read counts as populated: its name is not used again.
            if changed.contains(&number) && !handle.group.is_populated().unwrap_or(true) {
                emptied.push(handle.name.clone());
            }
        }
        for name in emptied {
            self.take(Event::Emptied { name });
        }
    }

    fn take_requests(&mut self, ready: PollFlags) {
        let mut received = ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        while let Some(channel) = &mut self.channel {
            let result = channel.flush().and_then(|()| {
                if std::mem::take(&mut received) {
                    channel.receive()?;
                }
                channel.next_request()
            });
            match result {
                Ok(Some((request, fds))) => self.take_with(Event::Requested(request), fds),
                Ok(None) => return,
                Err(error) => self.take(Event::Lost(error.to_string())),
            }
        }
    }
}
