//! What the host and local programs ask, once it is known that they may.
//!
//! Its law: every request is answered, at once; what takes time shows in the status.

use cloister_wire::control::{Reply, Request, Stats};
use cloister_wire::hold::{FromSupervisor, SignalTarget};

use super::CoreError;
use super::turn::Core;
use crate::launcher::{Ask, Event};
use crate::status::{self, Asked};
use crate::world::Peer;

impl Core {
    pub(super) fn asked(&mut self, asked: Asked) -> Result<(), CoreError> {
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
            Request::Ping => done(None),
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
            Request::Stats => {
                let names = self.services.iter().map(|s| s.name.as_str());
                let mut services = status::stats(&self.paths.cgroups, names);
                for service in &mut services {
                    let before = self.oom_kills.get(&service.name).copied().unwrap_or_default();
                    service.oom_kills = service.oom_kills.saturating_add(before);
                }
                Ok((Reply::Stats(Stats { services, ingress: self.board.read().ingress }), None))
            }
            Request::Inspect { service } => {
                let id = self.machine.find(service)?;
                let pid = self.machine.pid(id)?;
                let read = self.inspect(id, pid).map(Reply::Inspect);
                Ok((read.map_err(|_| Ask::NotRunning(service.clone()))?, None))
            }
        }
    }

    /// A host that has read the final state: nothing is left to wait for on its account.
    fn seen(&self, seq: u64, peer: &Peer) -> Option<Event> {
        let is_final = self.machine.is_closing() && seq >= self.board.read().seq;
        (is_final && *peer == Peer::Host).then_some(Event::Seen)
    }
}
