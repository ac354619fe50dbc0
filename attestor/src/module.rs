//! What provides evidence: requests in turn, on a thread of its own.
//!
//! Invariant: it is asked for one thing at a time, in the order of the requests. A caller waits for at most [`REQUEST_TIME`], its
//! turn included; a request whose caller has stopped waiting is not sent to it. What can be answered without it does not wait.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::exchange::{Answer, ModuleError, REQUEST_TIME, Request};
use crate::provider::{Provider, Ready};

/// What waits for its turn: a request of each client, one for a certificate, and a connection of the sleeve.
const WAITING: usize = cloister_wire::attestor::MAX_CLIENTS + 2;

/// What the thread does next.
enum Order {
    /// Send a request to the provider.
    Request(Request, oneshot::Sender<Answer>),
    /// From now on, use the module at the other end of this connection.
    Connect(OwnedFd),
}

/// Access to what provides evidence. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    orders: mpsc::Sender<Order>,
    platform: Arc<str>,
    ready: Ready,
    /// The length of the log.
    recorded: Arc<watch::Sender<usize>>,
    /// What a message calls the provider.
    name: &'static str,
}

impl Module {
    /// Starts the thread that uses the provider.
    pub(crate) fn start(platform: &str, mut provider: Provider) -> io::Result<Self> {
        let (ready, name) = (provider.ready(), provider.name());
        Self::work(platform, ready, name, move |order| match order {
            Order::Connect(stream) => provider.connect(stream),
            // A caller that has just stopped waiting gets no answer.
            Order::Request(request, reply) => drop(reply.send(provider.answer(request))),
        })
    }

    /// Starts the thread with the answers of `answer`.
    #[cfg(test)]
    pub(crate) fn serve(
        platform: &str,
        answer: impl Fn(Request) -> Answer + Send + 'static,
    ) -> io::Result<Self> {
        Self::work(platform, Ready::Nothing, "the security module", move |order| {
            if let Order::Request(request, reply) = order {
                drop(reply.send(answer(request)));
            }
        })
    }

    fn work(
        platform: &str,
        ready: Ready,
        name: &'static str,
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
        Ok(Self { orders, platform: platform.into(), recorded: ready.recorded(), ready, name })
    }

    /// The platform that is attested, by its name in a manifest and in a verdict.
    pub(crate) fn platform(&self) -> &str {
        &self.platform
    }

    /// Uses the development security module at the other end of this connection, from its turn on. It does not wait: a
    /// connection for which there is no space is closed, and the sleeve opens another.
    pub(crate) fn connect(&self, stream: OwnedFd) {
        drop(self.orders.try_send(Order::Connect(stream)));
    }

    /// The length of the log.
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
        self.recorded.send_modify(|length| *length = length.wrapping_add(1));
    }

    /// Answers a request, or sends it to the provider.
    pub(crate) async fn request(&self, request: Request) -> Answer {
        let request = match self.ready.answer(request) {
            Ok(answer) => return answer,
            Err(request) => request,
        };
        let answered = async {
            let (reply, answer) = oneshot::channel();
            // The thread lives as long as a sender exists.
            self.orders.send(Order::Request(request, reply)).await.ok()?;
            answer.await.ok()
        };
        match timeout(REQUEST_TIME, answered).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => Err(ModuleError::TimedOut(self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use cloister_sys::tsm::TsmError;

    use super::*;
    use crate::events::Events;
    use crate::exchange::{Reply, Values};
    use crate::reports::Reports;

    #[tokio::test]
    async fn a_request_is_answered_by_the_module() {
        let module =
            Module::serve("nitro", |request| Ok(Reply::Random(format!("{request:?}").into_bytes()))).unwrap();
        let answered = module.request(Request::Random).await;
        assert!(matches!(&answered, Ok(Reply::Random(bytes)) if bytes == b"Random"), "{answered:?}");
    }

    #[tokio::test]
    async fn hardware_that_hangs_delays_only_evidence() {
        let events = Events::open(tempfile::tempfile().unwrap().into(), 1).unwrap();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (asked, mut begun) = mpsc::unbounded_channel();
        let hardware = move |_: &[u8; 64]| {
            asked.send(()).unwrap();
            // Until the test ends.
            wait.recv().unwrap_or_default();
            Err(TsmError::TimedOut)
        };
        let reports = Reports::new("tdx", Box::new(hardware), events);
        let module = Module::start("tdx", Provider::Tsm(reports)).unwrap();
        let values = Values { nonce: vec![1; 32], ..Values::default() };
        let evidence = tokio::spawn({
            let module = module.clone();
            async move { module.request(Request::Evidence(values)).await }
        });
        begun.recv().await.unwrap();
        let event = Request::Extend { service: "web".into(), label: "x".into(), data: Vec::new() };
        assert!(matches!(module.request(event).await, Ok(Reply::Recorded { position: 1, .. })));
        assert!(matches!(module.request(Request::Log).await, Ok(Reply::Log(log)) if log.len() > 44));
        assert!(matches!(module.request(Request::Random).await, Err(ModuleError::Unsupported(_))));
        tokio::time::pause();
        let error = evidence.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the hardware that makes reports did not respond within 10 s");
        drop(release);
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
