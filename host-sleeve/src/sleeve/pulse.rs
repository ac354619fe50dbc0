//! The pulse: whether a running enclave still responds.
//!
//! Invariant: it only pings and reports. A machine that is stalled keeps its connections open, so nothing else would notice;
//! but it may resume later, and whether to keep waiting is the operator's decision.

use std::time::Duration;

use cloister_wire::control::Request;
use tokio::sync::{mpsc, oneshot};
use tokio::time;

use super::lifecycle::Event;
use crate::client::EnclaveRequest;

/// The pause between two pings: as often as a monitoring system scrapes its targets, and negligible work for the enclave.
const PAUSE: Duration = Duration::from_secs(5);

/// How long a reply may take. A supervisor that crashed is back within a second; an emulated machine on a host with ten
/// times as much work as processors has been seen to need three.
const LIMIT: Duration = Duration::from_millis(LIMIT_MS);

/// The same in milliseconds: an enclave has been unresponsive since the ping was sent.
pub(crate) const LIMIT_MS: u64 = 10_000;

/// Pings until the receiver of `events` is gone, and sends an event with the result of each ping.
pub(crate) async fn run(requests: mpsc::Sender<EnclaveRequest>, events: mpsc::Sender<Event>) {
    loop {
        tokio::select! {
            () = time::sleep(PAUSE) => {}
            () = events.closed() => return,
        }
        if let Some(replied) = responds(&requests).await
            && events.send(Event::Pulse(replied)).await.is_err()
        {
            return;
        }
    }
}

/// Any reply counts, also a refusal. `None` if the ping was lost with its connection: the next one decides.
async fn responds(requests: &mpsc::Sender<EnclaveRequest>) -> Option<bool> {
    let (answer, reply) = oneshot::channel();
    let reply = async {
        requests.send(EnclaveRequest { request: Request::Ping, answer: Some(answer) }).await.ok()?;
        reply.await.ok()
    };
    match time::timeout(LIMIT, reply).await {
        Ok(reply) => reply.map(|_| true),
        Err(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use cloister_wire::control::Reply;

    use super::*;

    /// What an enclave does with a ping.
    #[derive(Debug)]
    enum Behaviour {
        Replies,
        Loses,
        Keeps,
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_and_a_missing_reply_are_reported_and_a_lost_ping_is_not() {
        let (requests, mut inbox) = mpsc::channel(8);
        let (events, mut received) = mpsc::channel(8);
        tokio::spawn(run(requests, events));
        let enclave = tokio::spawn(async move {
            let mut kept = Vec::new();
            for behaviour in
                [Behaviour::Replies, Behaviour::Loses, Behaviour::Keeps, Behaviour::Keeps, Behaviour::Replies]
            {
                let request: EnclaveRequest = inbox.recv().await.unwrap();
                assert_eq!(request.request, Request::Ping);
                match behaviour {
                    Behaviour::Replies => request.answer.unwrap().send(Reply::Done).unwrap(),
                    Behaviour::Loses => drop(request),
                    Behaviour::Keeps => kept.push(request),
                }
            }
            (inbox, kept)
        });
        for replied in [true, false, false, true] {
            let event = received.recv().await;
            assert!(matches!(event, Some(Event::Pulse(b)) if b == replied), "{event:?}");
        }
        drop(enclave.await.unwrap());
    }
}
