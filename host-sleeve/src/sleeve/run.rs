//! One run, from an order to its end.
//!
//! Its law: until the machine runs, any way out leaves nothing behind; from then on, every way out ends the machine and
//! writes the end into the record.

use std::time::Duration;

use cloister_wire::control::{Request, Status};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{self, Instant};

use crate::backends::Ending;
use crate::error::{Doing, Error, Result};
use crate::state::record::now_ms;
use crate::state::{End, Folder, Record};

use super::control::Ask;
use super::launch::{Launched, launch};
use super::life::{Act, Event};
use super::order::{Order, Watcher};
use super::pulse;

/// The shortest time between two writes of the record: an enclave that changes its state all the time costs no more.
const WRITE_PAUSE: Duration = Duration::from_millis(20);

/// How long the console may take to reach its end after the machine has ended.
const CONSOLE_LIMIT: Duration = Duration::from_secs(1);

/// How long the kernel may take to end what a machine leaves behind.
const DESTROY_LIMIT: Duration = Duration::from_secs(5);

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
            _ = signals.next() => return Err(Error::interrupted("interrupted before the boot")),
            launched = launch => launched?,
        }
    };
    launched.live(&mut signals, watcher).await
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
                self.perform(act, watcher);
            }
        };
        // A process that the kernel cannot end must not keep the end from being told: `ps` shows what is left.
        drop(time::timeout(DESTROY_LIMIT, self.deployment.destroy()).await);
        self.tasks.abort_all();
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
                drop(time::timeout(CONSOLE_LIMIT, console).await);
            }
            // A life that is over needs no end.
            drop(speak.send(Event::Ended(ending)).await);
        });
    }

    fn perform(&mut self, act: Act, watcher: &mut dyn Watcher) {
        // A full queue means that the enclave does not listen: its deadline deals with that.
        let tell = |request| drop(self.asks.try_send(Ask { request, answer: None }));
        match act {
            Act::AskStop => tell(Request::Stop),
            Act::Seen(seq) => tell(Request::Seen { seq }),
            Act::Drain => {
                self.drain.send_replace(true);
            }
            Act::Kill => self.deployment.kill(),
            Act::Ready => {
                self.record.ready_ms.get_or_insert_with(now_ms);
                self.write();
                watcher.ready(&self.record);
            }
            Act::Changed => watcher.changed(&self.record),
            Act::Silent => self.turn(Some(now_ms().saturating_sub(pulse::LIMIT_MS)), watcher),
            Act::Answers => self.turn(None, watcher),
        }
    }

    /// It fell silent, or answers again.
    fn turn(&mut self, silent_since_ms: Option<u64>, watcher: &mut dyn Watcher) {
        self.record.silent_since_ms = silent_since_ms;
        self.shown.send_replace(self.record.clone());
        self.write();
        watcher.changed(&self.record);
    }

    fn take_status(&mut self, status: &Status) {
        let booted = || now_ms().saturating_sub(status.uptime_ms);
        self.record.booted_ms.get_or_insert_with(booted);
        self.record.status = Some(status.clone());
        self.shown.send_replace(self.record.clone());
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
