//! What the host and local programs ask, once it is known that they may.
//!
//! Its law: every request is answered, at once; what takes time shows in the status.

use std::sync::Arc;

use cloister_net::Identity;
use cloister_wire::control::{Reply, Request, Stats};
use cloister_wire::hold::{FromSupervisor, SignalTarget};
use tokio::sync::oneshot;

use super::CoreError;
use super::turn::Core;
use crate::launcher::{Ask, Event};
use crate::servant::Servants;
use crate::status::{self, Asked};

impl Core {
    pub(super) fn asked(&mut self, asked: Asked) -> Result<(), CoreError> {
        if asked.request == Request::Stats {
            self.count(asked.answer);
            return Ok(());
        }
        let (reply, event) = match self.answer(&asked) {
            Ok(answer) => answer,
            Err(ask) => (Reply::Refused { why: ask.to_string() }, None),
        };
        // Who asked may be gone by now; what was asked is done all the same.
        asked.answer.send(reply).unwrap_or_default();
        event.map_or(Ok(()), |event| self.dispatch(event))
    }

    /// The answer, and the event that follows it.
    fn answer(&mut self, asked: &Asked) -> Result<(Reply, Option<Event>), Ask> {
        let done = |event| Ok((Reply::Done, event));
        match &asked.request {
            // Statistics are answered in a task of their own.
            Request::Ping | Request::Stats => done(None),
            Request::Stop => done(Some(Event::Stop { why: format!("asked by {}", asked.peer) })),
            Request::Drain => done(Some(Event::DrainAsked)),
            Request::Seen { seq } => done(self.seen(*seq, &asked.peer)),
            Request::Signal { service, signal } => {
                let id = self.machine.find(service)?;
                self.machine.pid(id)?;
                let message =
                    FromSupervisor::Signal { name: service.clone(), signal: *signal, to: SignalTarget::Main };
                let line = format!("signal {signal} sent, asked by {}", asked.peer);
                self.logs.say(Some(id), &line);
                match self.hold.send(&message) {
                    Ok(()) => done(None),
                    Err(error) => Ok((Reply::Refused { why: error.to_string() }, None)),
                }
            }
            Request::Service { service, verb } => {
                let id = self.machine.find(service)?;
                self.machine.may_be_asked()?;
                let verb_word = format!("{verb:?}").to_lowercase();
                self.logs.say(Some(id), &format!("{verb_word} asked by {}", asked.peer));
                done(Some(Event::Asked { id, verb: *verb }))
            }
            Request::Inspect { service } if Servants::is_name(service) => {
                let unknown = || Ask::Unknown(service.clone());
                self.servants.names().contains(service).then_some(()).ok_or_else(unknown)?;
                let read = self.servants.pid(service).and_then(|pid| self.inspect_servant(service, pid).ok());
                Ok((Reply::Inspect(read.ok_or_else(|| Ask::NotRunning(service.clone()))?), None))
            }
            Request::Inspect { service } => {
                let id = self.machine.find(service)?;
                let pid = self.machine.pid(id)?;
                let read = self.inspect(id, pid).map(Reply::Inspect);
                Ok((read.map_err(|_| Ask::NotRunning(service.clone()))?, None))
            }
        }
    }

    /// Answers with what is used and counted, as of now: servants are asked for their newest numbers, and not waited for long.
    fn count(&self, answer: oneshot::Sender<Reply>) {
        let services: Vec<String> = self.services.iter().map(|service| service.name.clone()).collect();
        let (servants, refreshed) = (self.servants.names(), self.servants.refresh());
        let (paths, oom_kills, board) = (self.paths.clone(), self.oom_kills.clone(), Arc::clone(&self.board));
        drop(tokio::spawn(async move {
            refreshed.await;
            let names = services.iter().map(String::as_str);
            let mut services = status::stats(&paths.cgroups, names);
            for service in &mut services {
                let before = oom_kills.get(&service.name).copied().unwrap_or_default();
                service.oom_kills = service.oom_kills.saturating_add(before);
            }
            let servants = status::stats(&paths.servants, servants.iter().map(String::as_str));
            let stats = Stats { services, servants, ingress: board.read().ingress };
            // Who asked may be gone by now.
            answer.send(Reply::Stats(stats)).unwrap_or_default();
        }));
    }

    /// A host that has read the final state: nothing is left to wait for on its account.
    fn seen(&self, seq: u64, peer: &Identity) -> Option<Event> {
        let is_final = self.machine.is_closing() && seq >= self.board.read().seq;
        (is_final && *peer == Identity::Host).then_some(Event::Seen)
    }
}
