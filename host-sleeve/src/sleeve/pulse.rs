//! The pulse: whether an enclave that runs still answers.
//!
//! Its law: it only asks and tells. A machine that stands still keeps its connections, so nothing else would notice; but it
//! may go on later, and whether it is worth waiting for is the operator's decision.

use std::time::Duration;

use cloister_wire::control::Request;
use tokio::sync::{mpsc, oneshot};
use tokio::time;

use super::life::Event;
use crate::client::Ask;

/// The pause between two questions: what a monitoring system asks of its targets, and nothing for the enclave.
const PAUSE: Duration = Duration::from_secs(5);

/// How long an answer may take. A supervisor that crashed is back in a second; an emulated machine on a host with ten
/// times as much work as processors has been seen to need three.
const LIMIT: Duration = Duration::from_millis(LIMIT_MS);

/// The same in milliseconds: an enclave is silent since it was asked.
pub(crate) const LIMIT_MS: u64 = 10_000;

/// Asks until nobody listens to `events`, and tells what came of each question.
pub(crate) async fn run(asks: mpsc::Sender<Ask>, events: mpsc::Sender<Event>) {
    loop {
        tokio::select! {
            () = time::sleep(PAUSE) => {}
            () = events.closed() => return,
        }
        if let Some(beats) = answers(&asks).await
            && events.send(Event::Pulse(beats)).await.is_err()
        {
            return;
        }
    }
}

/// Any answer is one, a refusal too. Nothing where the question was lost with its connection: the next one tells.
async fn answers(asks: &mpsc::Sender<Ask>) -> Option<bool> {
    let (answer, reply) = oneshot::channel();
    let asked = async {
        asks.send(Ask { request: Request::Ping, answer: Some(answer) }).await.ok()?;
        reply.await.ok()
    };
    match time::timeout(LIMIT, asked).await {
        Ok(answered) => answered.map(|_| true),
        Err(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use cloister_wire::control::Reply;

    use super::*;

    /// What an enclave does with a question.
    #[derive(Debug)]
    enum Does {
        Answers,
        Loses,
        Keeps,
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_and_silence_are_told_and_a_lost_question_is_neither() {
        let (asks, mut asked) = mpsc::channel(8);
        let (events, mut told) = mpsc::channel(8);
        tokio::spawn(run(asks, events));
        let enclave = tokio::spawn(async move {
            let mut kept = Vec::new();
            for does in [Does::Answers, Does::Loses, Does::Keeps, Does::Keeps, Does::Answers] {
                let ask: Ask = asked.recv().await.unwrap();
                assert_eq!(ask.request, Request::Ping);
                match does {
                    Does::Answers => ask.answer.unwrap().send(Reply::Done).unwrap(),
                    Does::Loses => drop(ask),
                    Does::Keeps => kept.push(ask),
                }
            }
            (asked, kept)
        });
        for beats in [true, false, false, true] {
            let event = told.recv().await;
            assert!(matches!(event, Some(Event::Pulse(b)) if b == beats), "{event:?}");
        }
        drop(enclave.await.unwrap());
    }
}
