//! The pulse: whether an enclave that runs still answers.
//!
//! Its law: it only asks and tells. A machine that stands still keeps its connections, so nothing else would notice; but it
//! may go on later, and whether it is worth waiting for is the operator's decision.

use std::time::Duration;

use cloister_wire::control::Request;
use tokio::sync::{mpsc, oneshot};
use tokio::time;

use super::control::Ask;
use super::life::Event;

/// The pause between two questions: what a monitoring system asks of its targets, and nothing for the enclave.
const PAUSE: Duration = Duration::from_secs(5);

/// How long an answer may take. A supervisor that crashed is back in a second; an emulated machine on a host with ten
/// times as much work as processors has been seen to need three.
const LIMIT: Duration = Duration::from_millis(LIMIT_MS);

/// The same in milliseconds: an enclave is silent since it was asked.
pub(crate) const LIMIT_MS: u64 = 10_000;

/// Asks until nobody listens to `events`. Each change is told once; an enclave begins as one that answers.
pub(crate) async fn run(asks: mpsc::Sender<Ask>, events: mpsc::Sender<Event>) {
    let mut beat = true;
    loop {
        tokio::select! {
            () = time::sleep(PAUSE) => {}
            () = events.closed() => return,
        }
        let beats = answers(&asks).await;
        if std::mem::replace(&mut beat, beats) != beats && events.send(Event::Pulse(beats)).await.is_err() {
            return;
        }
    }
}

/// Any answer is one, a refusal too.
async fn answers(asks: &mpsc::Sender<Ask>) -> bool {
    let (answer, reply) = oneshot::channel();
    let asked = async {
        asks.send(Ask { request: Request::Ping, answer: Some(answer) }).await.ok()?;
        reply.await.ok()
    };
    // Asked on a connection that broke: the next question tells.
    time::timeout(LIMIT, asked).await.is_ok_and(|reply| reply.is_some())
}

#[cfg(test)]
mod tests {
    use cloister_wire::control::Reply;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_and_its_end_are_told_once() {
        let (asks, mut asked) = mpsc::channel(8);
        let (events, mut told) = mpsc::channel(8);
        tokio::spawn(run(asks, events));
        let enclave = tokio::spawn(async move {
            for (number, answers) in [true, true, false, false, true, true, true].into_iter().enumerate() {
                let ask: Ask = asked.recv().await.unwrap();
                assert_eq!(ask.request, Request::Ping);
                if answers {
                    ask.answer.unwrap().send(Reply::Done).unwrap();
                } else {
                    // Kept, as an enclave that stands still keeps it.
                    time::sleep(LIMIT * 2).await;
                    drop((number, ask));
                }
            }
            asked
        });
        assert!(matches!(told.recv().await, Some(Event::Pulse(false))));
        assert!(matches!(told.recv().await, Some(Event::Pulse(true))));
        let _asked = enclave.await.unwrap();
        assert!(told.try_recv().is_err());
    }
}
