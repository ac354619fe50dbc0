//! Sockets that the supervisor creates, for connections that find every source port of this machine in use.
//!
//! Invariant: at most [`MAX_LOANS`] are requested at once, and a caller that stops waiting leaves nothing behind.
//! Binding a socket to a port that another one uses requires `CAP_NET_ADMIN`, which the gateway does not have.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloister_wire::gateway::{FromGateway, MAX_LOANS};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The pending requests.
#[derive(Debug)]
pub(crate) struct Loans {
    permits: Semaphore,
    waiting: Mutex<Waiting>,
    outgoing: mpsc::Sender<FromGateway>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    replies: BTreeMap<u64, oneshot::Sender<io::Result<OwnedFd>>>,
}

impl Loans {
    /// Starts without requests.
    pub(crate) fn new(outgoing: mpsc::Sender<FromGateway>) -> Self {
        Self { permits: Semaphore::new(MAX_LOANS), waiting: Mutex::default(), outgoing }
    }

    /// Requests a socket that can be connected to `to`. The caller limits the time.
    pub(crate) async fn borrow(&self, to: SocketAddr) -> io::Result<OwnedFd> {
        let _permit = self.permits.acquire().await.map_err(io::Error::other)?;
        let (reply, replied) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting();
            let id = waiting.next;
            waiting.next = id.wrapping_add(1);
            waiting.replies.insert(id, reply);
            id
        };
        let _entry = Entry { loans: self, id };
        self.outgoing.send(FromGateway::Borrow { id, to }).await.map_err(io::Error::other)?;
        replied.await.map_err(io::Error::other)?
    }

    /// Handles a reply of the supervisor. If its request was abandoned, it is dropped with its socket.
    pub(crate) fn resolve(&self, id: u64, socket: Option<OwnedFd>, errno: Option<i32>) {
        let Some(reply) = self.waiting().replies.remove(&id) else { return };
        let result =
            socket.ok_or_else(|| errno.map_or(io::ErrorKind::NotFound.into(), io::Error::from_raw_os_error));
        // If the connection has just stopped waiting, this closes the socket.
        drop(reply.send(result));
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a request when it is dropped.
struct Entry<'a> {
    loans: &'a Loans,
    id: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.loans.waiting().replies.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

    #[tokio::test]
    async fn a_loan_is_requested_and_granted() {
        let (outgoing, mut requests) = mpsc::channel(4);
        let loans = Loans::new(outgoing);
        let supervisor = async {
            let Some(FromGateway::Borrow { id, to: TO }) = requests.recv().await else { panic!() };
            loans.resolve(id, Some(std::fs::File::open("/dev/null").unwrap().into()), None);
            let Some(FromGateway::Borrow { id, .. }) = requests.recv().await else { panic!() };
            loans.resolve(id, None, Some(1));
        };
        let gateway = async {
            loans.borrow(TO).await.unwrap();
            assert_eq!(loans.borrow(TO).await.unwrap_err().raw_os_error(), Some(1));
        };
        tokio::join!(supervisor, gateway);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_request_leaves_nothing_behind() {
        let (outgoing, _requests) = mpsc::channel(64);
        let loans = Loans::new(outgoing);
        for _ in 0..2 * MAX_LOANS {
            let waited = tokio::time::timeout(Duration::from_secs(1), loans.borrow(TO)).await;
            assert!(waited.is_err());
        }
        assert!(loans.waiting().replies.is_empty());
        loans.resolve(0, None, None);
    }
}
