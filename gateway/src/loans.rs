//! Sockets that the supervisor makes, for connections that find every port of this machine taken.
//!
//! Its law: at most [`MAX_LOANS`] are asked for at once, and whoever has stopped waiting leaves nothing behind. To bind a socket
//! beside another's takes `CAP_NET_ADMIN`, which the gateway does not have.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloister_wire::gateway::{FromGateway, MAX_LOANS};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// What is asked for and not given yet.
#[derive(Debug)]
pub(crate) struct Loans {
    permits: Semaphore,
    waiting: Mutex<Waiting>,
    outgoing: mpsc::Sender<FromGateway>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    answers: BTreeMap<u64, oneshot::Sender<io::Result<OwnedFd>>>,
}

impl Loans {
    /// Nothing is asked for yet.
    pub(crate) fn new(outgoing: mpsc::Sender<FromGateway>) -> Self {
        Self { permits: Semaphore::new(MAX_LOANS), waiting: Mutex::default(), outgoing }
    }

    /// A socket that can be connected to `to`. How long it may take is the caller's business.
    pub(crate) async fn borrow(&self, to: SocketAddr, speaks: bool) -> io::Result<OwnedFd> {
        let _permit = self.permits.acquire().await.map_err(io::Error::other)?;
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting();
            let id = waiting.next;
            waiting.next = id.wrapping_add(1);
            waiting.answers.insert(id, answer);
            id
        };
        let _entry = Entry { loans: self, id };
        self.outgoing
            .send(FromGateway::Borrow { id, to, sends_first: speaks })
            .await
            .map_err(io::Error::other)?;
        answered.await.map_err(io::Error::other)?
    }

    /// Takes an answer of the supervisor. One that nobody waits for any more is dropped with its socket.
    pub(crate) fn answered(&self, id: u64, socket: Option<OwnedFd>, errno: Option<i32>) {
        let Some(answer) = self.waiting().answers.remove(&id) else { return };
        let given =
            socket.ok_or_else(|| errno.map_or(io::ErrorKind::NotFound.into(), io::Error::from_raw_os_error));
        // A connection that gave up in this moment closes it.
        drop(answer.send(given));
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those that wait.
struct Entry<'a> {
    loans: &'a Loans,
    id: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.loans.waiting().answers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

    #[tokio::test]
    async fn a_loan_is_asked_for_and_given() {
        let (outgoing, mut asked) = mpsc::channel(4);
        let loans = Loans::new(outgoing);
        let supervisor = async {
            let Some(FromGateway::Borrow { id, to: TO, sends_first: true }) = asked.recv().await else {
                panic!()
            };
            loans.answered(id, Some(std::fs::File::open("/dev/null").unwrap().into()), None);
            let Some(FromGateway::Borrow { id, .. }) = asked.recv().await else { panic!() };
            loans.answered(id, None, Some(1));
        };
        let gateway = async {
            loans.borrow(TO, true).await.unwrap();
            assert_eq!(loans.borrow(TO, true).await.unwrap_err().raw_os_error(), Some(1));
        };
        tokio::join!(supervisor, gateway);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_nothing_behind() {
        let (outgoing, _asked) = mpsc::channel(64);
        let loans = Loans::new(outgoing);
        for _ in 0..2 * MAX_LOANS {
            let waited = tokio::time::timeout(Duration::from_secs(1), loans.borrow(TO, true)).await;
            assert!(waited.is_err());
        }
        assert!(loans.waiting().answers.is_empty());
        loans.answered(0, None, None);
    }
}
