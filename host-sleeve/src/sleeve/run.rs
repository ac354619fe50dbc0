//! One run, from an order to the end of the enclave.
//!
//! Invariant: until the machine runs, every exit leaves nothing behind; from then on, every exit terminates the machine and
//! writes how it ended into the record.

use std::time::Duration;

use cloister_wire::control::{Request, State, Status};
use tokio::time::{self, Instant};

use crate::backends::MachineExit;
use crate::error::{Error, Result};
use crate::output;
use crate::signals::{Sent, Signals};
use crate::state::record::now_ms;
use crate::state::{EnclaveDir, End, Record, Verified};

use super::keeper::Due;
use super::launch::{Launched, launch};
use super::lifecycle::{Action, Event};
use super::order::{Order, Watcher};
use super::pulse;
use super::requests;
use crate::client::{EnclaveRequest, SOCKET};

/// How long the console may take to reach end of file after the machine has exited.
const CONSOLE_LIMIT: Duration = Duration::from_secs(1);

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The last record.
    pub(crate) record: Record,
    /// How it ended; the record contains this too.
    pub(crate) end: End,
    /// The enclave's directory, still locked.
    pub(crate) directory: EnclaveDir,
    /// The last status from before it was ready.
    pub(crate) starting: Option<Status>,
}

/// Runs an order until the enclave has ended.
pub(crate) async fn run(order: Order, watcher: &mut dyn Watcher) -> Result<Ran> {
    let mut signals = Signals::listen()?;
    let launched = {
        let launch = launch(&order, watcher);
        tokio::select! {
            biased;
            _ = signals.next() => return Err(interrupted()),
            launched = launch => launched,
        }
    };
    let launched = match launched {
        Ok(launched) => launched,
        // Ctrl-C may also have ended a program that the launch needed; the two can arrive in either order.
        Err(_) if signals.pending().await => return Err(interrupted()),
        Err(error) => return Err(error),
    };
    launched.live(&mut signals, watcher).await
}

/// The error for a launch that was interrupted by a signal.
pub(crate) fn interrupted() -> Error {
    Error::interrupted("interrupted before the boot")
}

impl Launched {
    async fn live(mut self, signals: &mut Signals, watcher: &mut dyn Watcher) -> Result<Ran> {
        let mut ended = false;
        let verdict = loop {
            if let Some(verdict) = self.lifecycle.verdict() {
                break verdict.clone();
            }
            let deadline = self.lifecycle.deadline();
            let event = tokio::select! {
                Some(event) = self.events.recv() => event,
                ending = self.deployment.ended(), if !ended => {
                    ended = true;
                    self.after_console(ending);
                    continue;
                }
                sent = signals.next() => match sent {
                    Sent::Interrupt => Event::Interrupt,
                    Sent::Terminate | Sent::Hangup => Event::Stop { why: "the sleeve was terminated by a signal".to_owned(), grace: None },
                },
                () = until(deadline) => Event::Tick,
                due = self.keeper.due() => {
                    match due {
                        Due::Write => self.keeper.write_in_background(self.record.clone()),
                        Due::Check => self.check_directory(watcher),
                    }
                    continue;
                }
            };
            match &event {
                Event::Status(status) => self.take_status(status),
                Event::Verified => self.record.verified = Verified::Yes,
                _ => {}
            }
            for action in self.lifecycle.on(event, Instant::now()) {
                self.perform(action, watcher);
            }
        };
        // A process that the kernel cannot end must not delay the report; `ps` shows what is left.
        drop(time::timeout(self.destroy_limit, self.deployment.destroy()).await);
        self.tasks.abort_all();
        let end = End { code: verdict.code, outcome: verdict.outcome, at_ms: now_ms() };
        self.record.end = Some(end.clone());
        self.check_directory(watcher);
        // A failure is reported there; the exit code is that of the enclave.
        self.keeper.write_end(&self.record);
        Ok(Ran { record: self.record, end, directory: self.keeper.into_directory(), starting: self.starting })
    }

    /// Sends [`Event::Ended`] as soon as the console has been read to end of file.
    fn after_console(&mut self, ending: MachineExit) {
        let (events, console) = (self.channels.events.clone(), self.console.take());
        tokio::spawn(async move {
            if let Some(console) = console {
                // Another process may keep the console open: do not wait for it any longer.
                drop(time::timeout(CONSOLE_LIMIT, console).await);
            }
            // If the receiver is gone, the run is over.
            drop(events.send(Event::Ended(ending)).await);
        });
    }

    fn perform(&mut self, action: Action, watcher: &mut dyn Watcher) {
        // A full queue means that the enclave does not read requests: its deadline handles that.
        let send = |request| drop(self.channels.requests.try_send(EnclaveRequest { request, answer: None }));
        match action {
            Action::RequestStop => send(Request::Stop),
            Action::Seen(seq) => send(Request::Seen { seq }),
            Action::Drain => {
                self.drain.send_replace(true);
            }
            Action::Kill => self.deployment.kill(),
            Action::Verify => {
                if let Some(verification) = self.verification.take() {
                    let (transport, events) = (self.deployment.transport(), self.channels.events.clone());
                    drop(self.tasks.spawn(verification.run(transport, events)));
                }
            }
            Action::Ready => {
                self.record.ready_ms.get_or_insert_with(now_ms);
                self.keeper.write(&self.record);
                self.shown.send_replace(self.record.clone());
                watcher.ready(&self.record);
            }
            Action::Changed => watcher.changed(&self.record),
            Action::Unresponsive => {
                self.response_changed(Some(now_ms().saturating_sub(pulse::LIMIT_MS)), watcher);
            }
            Action::Responsive => self.response_changed(None, watcher),
        }
    }

    /// Records and reports that the enclave has stopped or resumed responding.
    fn response_changed(&mut self, unresponsive_since_ms: Option<u64>, watcher: &mut dyn Watcher) {
        self.record.unresponsive_since_ms = unresponsive_since_ms;
        self.shown.send_replace(self.record.clone());
        self.keeper.changed();
        watcher.changed(&self.record);
    }

    fn take_status(&mut self, status: &Status) {
        let booted = || now_ms().saturating_sub(status.uptime_ms);
        self.record.booted_ms.get_or_insert_with(booted);
        self.record.status = Some(status.clone());
        if matches!(status.state, State::Booting | State::Starting) {
            self.starting = Some(status.clone());
        }
        self.shown.send_replace(self.record.clone());
        self.keeper.changed();
    }

    /// Recreates the directory if it was removed, so that `ps` shows the enclave and `stop` reaches it.
    fn check_directory(&mut self, watcher: &mut dyn Watcher) {
        if !self.keeper.check() {
            return;
        }
        let directory = self.keeper.directory();
        directory.name().clone_into(&mut self.record.name);
        match requests::listen(directory) {
            Ok(socket) => drop(self.tasks.spawn(requests::serve(socket, self.channels.clone()))),
            // The old socket still exists; if it is removed, the next check tries again.
            Err(error) if directory.has(SOCKET) => drop(error),
            Err(error) => output::error(&error),
        }
        self.keeper.write(&self.record);
        self.shown.send_replace(self.record.clone());
        watcher.restored(self.keeper.directory());
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
