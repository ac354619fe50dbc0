//! The security module: requests in turn, on a thread of its own.
//!
//! Invariant: the module is asked for one thing at a time, in the order of the requests. A caller waits for at most
//! [`REQUEST_TIME`], its turn included; a request whose caller has stopped waiting is not sent to the module. How its
//! bytes reach the module is the caller's choice.

use std::io;
use std::thread;
use std::time::Duration;

use cloister_nsm::{Claims, NsmError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Requests that wait for their turn: one of each client.
const WAITING: usize = cloister_wire::attestor::MAX_CLIENTS;

/// Time limit for a request. The Nitro Security Module answers in some milliseconds; with every client waiting, the
/// last one's turn comes after less than a second. A device that hangs is reported after this time.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// A request to the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A signed document with these fields.
    Attest { user_data: Option<Vec<u8>>, nonce: Option<Vec<u8>>, public_key: Option<Vec<u8>> },
    /// Random bytes: as many as the module returns at once.
    Random,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    /// The module refused it, or failed.
    #[error(transparent)]
    Nsm(#[from] NsmError),
    /// It did not answer in time.
    #[error("the security module did not respond within {} s", REQUEST_TIME.as_secs())]
    TimedOut,
}

type Answer = Result<Vec<u8>, NsmError>;

/// Access to the module. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    requests: mpsc::Sender<(Request, oneshot::Sender<Answer>)>,
}

impl Module {
    /// Starts the thread that accesses the module through `exchange`, which sends it a request and returns its
    /// response.
    pub(crate) fn start(
        exchange: impl Fn(&[u8]) -> io::Result<Vec<u8>> + Send + 'static,
    ) -> io::Result<Self> {
        let module = cloister_nsm::Module::over(exchange);
        Self::serve(move |request| answer(&module, request))
    }

    /// Starts the thread with the answers of `answer`.
    pub(crate) fn serve(answer: impl Fn(&Request) -> Answer + Send + 'static) -> io::Result<Self> {
        let (requests, mut waiting) = mpsc::channel::<(Request, oneshot::Sender<Answer>)>(WAITING);
        let serve = move || {
            while let Some((request, reply)) = waiting.blocking_recv() {
                if !reply.is_closed() {
                    // A caller that has just stopped waiting gets no answer.
                    drop(reply.send(answer(&request)));
                }
            }
        };
        drop(thread::Builder::new().name("module".to_owned()).spawn(serve)?);
        Ok(Self { requests })
    }

    /// Sends a request to the module.
    pub(crate) async fn request(&self, request: Request) -> Result<Vec<u8>, ModuleError> {
        let answered = async {
            let (reply, answer) = oneshot::channel();
            // The thread lives as long as a sender exists.
            self.requests.send((request, reply)).await.ok()?;
            answer.await.ok()
        };
        match timeout(REQUEST_TIME, answered).await {
            Ok(Some(answer)) => Ok(answer?),
            Ok(None) | Err(_) => Err(ModuleError::TimedOut),
        }
    }
}

fn answer<X>(module: &cloister_nsm::Module<X>, request: &Request) -> Answer
where
    X: Fn(&[u8]) -> io::Result<Vec<u8>>,
{
    match request {
        Request::Attest { user_data, nonce, public_key } => module.attest(Claims {
            user_data: user_data.as_deref(),
            nonce: nonce.as_deref(),
            public_key: public_key.as_deref(),
        }),
        Request::Random => module.random(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_by_the_module() {
        let module = Module::serve(|request| Ok(format!("{request:?}").into_bytes())).unwrap();
        assert_eq!(module.request(Request::Random).await.unwrap(), b"Random");
    }

    #[tokio::test]
    async fn a_module_that_hangs_is_reported_and_abandoned_requests_are_not_sent() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (asked, mut begun) = mpsc::unbounded_channel();
        let module = Module::serve(move |request| {
            asked.send(request.clone()).unwrap();
            wait.recv().unwrap();
            Ok(Vec::new())
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
