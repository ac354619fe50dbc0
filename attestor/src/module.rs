//! The security module: requests in turn, on a thread of its own.
//!
//! Invariant: the module is asked for one thing at a time, in the order of the requests. A caller waits for at most
//! [`REQUEST_TIME`], its turn included; a request whose caller has stopped waiting is not sent to the module.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::exchange::{Answer, ModuleError, REQUEST_TIME, Request};
use crate::keeper::Keeper;

/// What waits for its turn: a request of each client, one for a certificate, and a connection of the sleeve.
const WAITING: usize = cloister_wire::attestor::MAX_CLIENTS + 2;

/// What the module's thread does next.
enum Order {
    /// Send a request to the module.
    Request(Request, oneshot::Sender<Answer>),
    /// From now on, use the module at the other end of this connection.
    Connect(OwnedFd),
}

/// Access to the module. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    orders: mpsc::Sender<Order>,
    platform: Arc<str>,
    /// How many events the log has.
    recorded: Arc<watch::Sender<usize>>,
}

impl Module {
    /// Starts the thread that uses the module and the event log of `keeper`.
    pub(crate) fn start(platform: &str, mut keeper: Keeper) -> io::Result<Self> {
        let recorded = Arc::new(watch::Sender::new(keeper.recorded()));
        let changes = Arc::clone(&recorded);
        Self::work(platform, recorded, move |order| match order {
            Order::Connect(stream) => keeper.connect(stream),
            Order::Request(request, reply) => {
                let answer = keeper.answer(request);
                changes.send_if_modified(|count| std::mem::replace(count, keeper.recorded()) != *count);
                // A caller that has just stopped waiting gets no answer.
                drop(reply.send(answer));
            }
        })
    }

    /// Starts the thread with the answers of `answer`.
    #[cfg(test)]
    pub(crate) fn serve(
        platform: &str,
        answer: impl Fn(Request) -> Answer + Send + 'static,
    ) -> io::Result<Self> {
        Self::work(platform, Arc::default(), move |order| {
            if let Order::Request(request, reply) = order {
                drop(reply.send(answer(request)));
            }
        })
    }

    fn work(
        platform: &str,
        recorded: Arc<watch::Sender<usize>>,
        mut perform: impl FnMut(Order) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, mut waiting) = mpsc::channel(WAITING);
        let serve = move || {
            while let Some(order) = waiting.blocking_recv() {
                if !matches!(&order, Order::Request(_, reply) if reply.is_closed()) {
                    perform(order);
                }
            }
        };
        drop(thread::Builder::new().name("module".to_owned()).spawn(serve)?);
        Ok(Self { orders, platform: platform.into(), recorded })
    }

    /// The platform that the module attests, by its name in a manifest and in a verdict.
    pub(crate) fn platform(&self) -> &str {
        &self.platform
    }

    /// Uses the development security module at the other end of this connection, from its turn on. It does not wait: a
    /// connection for which there is no space is closed, and the sleeve opens another.
    pub(crate) fn connect(&self, stream: OwnedFd) {
        drop(self.orders.try_send(Order::Connect(stream)));
    }

    /// How many events the log has.
    pub(crate) fn recorded(&self) -> usize {
        *self.recorded.borrow()
    }

    /// Changes with each event that is recorded.
    pub(crate) fn watch_recorded(&self) -> watch::Receiver<usize> {
        self.recorded.subscribe()
    }

    /// As if an event had been recorded.
    #[cfg(test)]
    pub(crate) fn note_recorded(&self) {
        self.recorded.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Sends a request to the module.
    pub(crate) async fn request(&self, request: Request) -> Answer {
        let answered = async {
            let (reply, answer) = oneshot::channel();
            // The thread lives as long as a sender exists.
            self.orders.send(Order::Request(request, reply)).await.ok()?;
            answer.await.ok()
        };
        match timeout(REQUEST_TIME, answered).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => Err(ModuleError::TimedOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Reply;

    #[tokio::test]
    async fn a_request_is_answered_by_the_module() {
        let module =
            Module::serve("nitro", |request| Ok(Reply::Random(format!("{request:?}").into_bytes()))).unwrap();
        let answered = module.request(Request::Random).await;
        assert!(matches!(&answered, Ok(Reply::Random(bytes)) if bytes == b"Random"), "{answered:?}");
    }

    #[tokio::test]
    async fn a_module_that_hangs_is_reported_and_abandoned_requests_are_not_sent() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (asked, mut begun) = mpsc::unbounded_channel();
        let module = Module::serve("nitro", move |request| {
            asked.send(request.clone()).unwrap();
            wait.recv().unwrap();
            Ok(Reply::Random(Vec::new()))
        });
        let module = module.unwrap();
        let first = tokio::spawn({
            let module = module.clone();
            async move { module.request(Request::Random).await }
        });
        begun.recv().await.unwrap();
        tokio::time::pause();
        let mut errors = vec![first.await.unwrap().unwrap_err()];
        for _ in 0..2 {
            errors.push(module.request(Request::Random).await.unwrap_err());
        }
        for error in errors {
            assert_eq!(error.to_string(), "the security module did not respond within 10 s");
        }
        // A paused clock would not wait for the thread.
        tokio::time::resume();
        release.send(()).unwrap();
        release.send(()).unwrap();
        module.request(Request::Random).await.unwrap();
        begun.recv().await.unwrap();
        assert!(begun.try_recv().is_err(), "the second and third request were abandoned before their turn");
    }
}
