//! What provides evidence: requests in turn, on a thread of its own.
//!
//! Invariant: it is asked for one thing at a time, and its callers have their turns in rotation ([`Turns`]). A caller waits for at
//! most [`REQUEST_TIME`], its turn included; a request whose caller has stopped waiting is not sent to it. What can be answered
//! without it does not wait.

use std::io;
use std::mem::discriminant;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::exchange::{Answer, ModuleError, REQUEST_TIME, Request};
use crate::provider::{Provider, Ready};
use crate::turns::{Order, Party, Turns, Waiting};

/// Access to what provides evidence. Clones share it.
#[derive(Clone)]
pub(crate) struct Module {
    turns: Arc<Mutex<Turns>>,
    /// Wakes the thread, which ends with the last sender.
    wake: SyncSender<()>,
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
            Order::Request(Waiting { request, reply, .. }) => {
                let answer = provider.answer(request, &|| !reply.is_closed());
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
        Self::work(platform, Ready::Nothing, "the security module", move |order| {
            if let Order::Request(Waiting { request, reply, .. }) = order {
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
        let turns = Arc::new(Mutex::new(Turns::new(name)));
        // One is enough: the thread takes everything that waits.
        let (wake, woken) = sync_channel(1);
        let shared = Arc::clone(&turns);
        let serve = move || {
            while woken.recv().is_ok() {
                while let Some(order) = next(&shared) {
                    let (kind, begin) = (kind(&order), Instant::now());
                    perform(order);
                    if let Some(kind) = kind {
                        lock(&shared).note(kind, begin.elapsed());
                    }
                }
            }
        };
        drop(thread::Builder::new().name("module".to_owned()).spawn(serve)?);
        Ok(Self { turns, wake, platform: platform.into(), recorded: ready.recorded(), ready, name })
    }

    /// The platform that is attested, by its name in a manifest and in a verdict.
    pub(crate) fn platform(&self) -> &str {
        &self.platform
    }

    /// Uses the development security module at the other end of this connection, before the next request. It does not wait: a
    /// connection that is not used yet is replaced and closed.
    pub(crate) fn connect(&self, stream: OwnedFd) {
        lock(&self.turns).connect(stream);
        self.wake();
    }

    fn wake(&self) {
        // If it is full, the thread has not yet looked for what came before either.
        self.wake.try_send(()).unwrap_or_default();
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

    /// Answers a request of this party, or sends it to the provider in the party's turn.
    pub(crate) async fn request(&self, party: Party, request: Request) -> Answer {
        let request = match self.ready.answer(request) {
            Ok(answer) => return answer,
            Err(request) => request,
        };
        let (reply, answer) = oneshot::channel();
        let until = Instant::now().checked_add(REQUEST_TIME).unwrap_or_else(Instant::now);
        lock(&self.turns).push(party, Waiting { request, reply, until })?;
        self.wake();
        match timeout(REQUEST_TIME, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(ModuleError::TimedOut(self.name)),
        }
    }
}

/// What is next. The lock is not held while it is performed.
fn next(turns: &Mutex<Turns>) -> Option<Order> {
    lock(turns).next(Instant::now())
}

fn kind(order: &Order) -> Option<std::mem::Discriminant<Request>> {
    match order {
        Order::Request(waiting) => Some(discriminant(&waiting.request)),
        Order::Connect(_) => None,
    }
}

fn lock(turns: &Mutex<Turns>) -> MutexGuard<'_, Turns> {
    turns.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use cloister_sys::tsm::TsmError;

    use super::*;
    use crate::events::Events;
    use crate::exchange::{Reply, Values};
    use crate::reports::{Reports, Wanted};

    fn service() -> Party {
        Party::Service("web".to_owned())
    }

    #[tokio::test]
    async fn strangers_that_keep_asking_do_not_keep_a_service_or_the_certificate_from_its_turn() {
        // Each permit makes the provider answer one request.
        let (permit, permitted) = std::sync::mpsc::channel::<()>();
        let (asked, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let module = Module::serve("tdx", move |request| {
            asked.send(request).unwrap();
            permitted.recv().unwrap_or_default();
            Ok(Reply::Random(Vec::new()))
        });
        let module = module.unwrap();
        let request = |party: Party, number: u8| {
            let module = module.clone();
            let values = Values { nonce: vec![number], ..Values::default() };
            async move { module.request(party, Request::Evidence(values)).await }
        };
        let strangers: Vec<_> = (0..16).map(|_| tokio::spawn(request(Party::Remote, 0))).collect();
        begun.recv().await.unwrap();
        // All others wait now.
        tokio::task::yield_now().await;
        let certificate = tokio::spawn(request(Party::Certificate, 1));
        let inside = tokio::spawn(request(service(), 2));
        tokio::task::yield_now().await;
        let mut order = Vec::new();
        for _ in 0..4 {
            permit.send(()).unwrap();
            let Some(Request::Evidence(values)) = begun.recv().await else { panic!("no evidence") };
            order.push(values.nonce[0]);
        }
        assert_eq!(order, [0, 1, 2, 0], "one stranger was ahead of them");
        certificate.await.unwrap().unwrap();
        inside.await.unwrap().unwrap();
        drop(permit);
        for stranger in strangers {
            stranger.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_request_is_answered_by_the_module() {
        let module =
            Module::serve("nitro", |request| Ok(Reply::Random(format!("{request:?}").into_bytes()))).unwrap();
        let answered = module.request(service(), Request::Random).await;
        assert!(matches!(&answered, Ok(Reply::Random(bytes)) if bytes == b"Random"), "{answered:?}");
    }

    #[tokio::test]
    async fn hardware_that_hangs_delays_only_evidence() {
        let events = Events::open(tempfile::tempfile().unwrap().into(), 1).unwrap();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (asked, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let hardware = move |_: &[u8; 64], _: Wanted<'_>| {
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
            async move { module.request(service(), Request::Evidence(values)).await }
        });
        begun.recv().await.unwrap();
        let event = Request::Extend { service: "web".into(), label: "x".into(), data: Vec::new() };
        assert!(matches!(module.request(service(), event).await, Ok(Reply::Recorded { position: 1, .. })));
        assert!(
            matches!(module.request(service(), Request::Log).await, Ok(Reply::Log(log)) if log.len() > 44)
        );
        assert!(matches!(module.request(service(), Request::Random).await, Err(ModuleError::Unsupported(_))));
        tokio::time::pause();
        let error = evidence.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the hardware that makes reports did not respond within 10 s");
        drop(release);
    }

    #[tokio::test]
    async fn a_module_that_hangs_is_reported_and_abandoned_requests_are_not_sent() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (asked, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let module = Module::serve("nitro", move |request| {
            asked.send(request.clone()).unwrap();
            wait.recv().unwrap();
            Ok(Reply::Random(Vec::new()))
        });
        let module = module.unwrap();
        let first = tokio::spawn({
            let module = module.clone();
            async move { module.request(service(), Request::Random).await }
        });
        begun.recv().await.unwrap();
        tokio::time::pause();
        let mut errors = vec![first.await.unwrap().unwrap_err()];
        for _ in 0..2 {
            errors.push(module.request(service(), Request::Random).await.unwrap_err());
        }
        for error in errors {
            assert_eq!(error.to_string(), "the security module did not respond within 10 s");
        }
        // A paused clock would not wait for the thread.
        tokio::time::resume();
        release.send(()).unwrap();
        release.send(()).unwrap();
        module.request(service(), Request::Random).await.unwrap();
        begun.recv().await.unwrap();
        assert!(begun.try_recv().is_err(), "the second and third request were abandoned before their turn");
    }
}
