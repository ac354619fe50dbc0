//! Replies to authorized requests of the host and of programs inside.
//!
//! Invariant: every request gets an immediate reply; work that takes time shows in the status.

use std::sync::Arc;

use cloister_net::Identity;
use cloister_wire::control::{Reply, Request, Stats};
use cloister_wire::hold::{FromSupervisor, SignalTarget};
use tokio::sync::oneshot;

use super::CoreError;
use super::turn::Core;
use crate::launcher::{Event, RequestError};
use crate::servant::Servants;
use crate::status::{self, PendingRequest};

impl Core {
    pub(super) fn requested(&mut self, request: PendingRequest) -> Result<(), CoreError> {
        if request.request == Request::Stats {
            self.send_stats(request.reply);
            return Ok(());
        }
        let (reply, event) = match self.reply(&request) {
            Ok(reply) => reply,
            Err(error) => (Reply::Refused { why: error.to_string() }, None),
        };
        // The client may be gone by now; its request is performed regardless.
        request.reply.send(reply).unwrap_or_default();
        event.map_or(Ok(()), |event| self.dispatch(event))
    }

    /// The reply, and the event that the request causes.
    fn reply(&mut self, pending: &PendingRequest) -> Result<(Reply, Option<Event>), RequestError> {
        let done = |event| Ok((Reply::Done, event));
        let peer = &pending.peer;
        match &pending.request {
            // Statistics are sent by a task of their own.
            Request::Ping | Request::Stats => done(None),
            Request::Stop => done(Some(Event::Stop { why: format!("requested by {peer}") })),
            Request::Drain => done(Some(Event::DrainRequested)),
            Request::Seen { seq } => done(self.seen(*seq, peer)),
            Request::Signal { service, signal } => {
                let id = self.machine.find(service)?;
                self.machine.pid(id)?;
                let message =
                    FromSupervisor::Signal { name: service.clone(), signal: *signal, to: SignalTarget::Main };
                self.logs.log(Some(id), &format!("signal {signal} sent, requested by {peer}"));
                match self.hold.send(&message) {
                    Ok(()) => done(None),
                    Err(error) => Ok((Reply::Refused { why: error.to_string() }, None)),
                }
            }
            Request::Service { service, verb } => {
                let id = self.machine.find(service)?;
                self.machine.accepts_requests()?;
                let verb_name = format!("{verb:?}").to_lowercase();
                self.logs.log(Some(id), &format!("{verb_name} requested by {peer}"));
                done(Some(Event::Requested { id, verb: *verb }))
            }
            Request::Inspect { service } if Servants::is_name(service) => {
                let unknown = || RequestError::Unknown(service.clone());
                self.servants.names().contains(service).then_some(()).ok_or_else(unknown)?;
                let read = self.servants.pid(service).and_then(|pid| self.inspect_servant(service, pid).ok());
                Ok((Reply::Inspect(read.ok_or_else(|| RequestError::NotRunning(service.clone()))?), None))
            }
            Request::Inspect { service } => {
                let id = self.machine.find(service)?;
                let pid = self.machine.pid(id)?;
                let read = self.inspect(id, pid).map(Reply::Inspect);
                Ok((read.map_err(|_| RequestError::NotRunning(service.clone()))?, None))
            }
        }
    }

    /// Sends the current statistics. Servants are asked for their latest counters and get a short time to respond.
    fn send_stats(&self, reply: oneshot::Sender<Reply>) {
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
            // The client may be gone by now.
            reply.send(Reply::Stats(stats)).unwrap_or_default();
        }));
    }

    /// A host has read the final state, so that the shutdown no longer waits for it.
    fn seen(&self, seq: u64, peer: &Identity) -> Option<Event> {
        let is_final = self.machine.is_closing() && seq >= self.board.read().seq;
        (is_final && *peer == Identity::Host).then_some(Event::Seen)
    }
}
