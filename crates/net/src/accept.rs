//! The accept loop of all servers.
//!
//! Invariant: it neither exits nor busy-loops when the system runs out of resources, and each connection is served in
//! its own task. The [`Admission`] decides how many connections are allowed, and whether further ones wait or are
//! closed; the peer is identified before that.

use std::convert::Infallible;
use std::path::PathBuf;

use crate::gate::{Gate, Permit};
use crate::identity::{self, Identity};
use crate::listener::Listener;
use crate::next::next;
use crate::stream::Stream;

/// A listener, and how its peers are identified.
#[derive(Debug)]
pub struct Entrance {
    listener: Listener,
    users: Users,
}

#[derive(Debug)]
enum Users {
    Host,
    /// Processes of services, looked up in this `/proc` directory.
    Services(PathBuf),
    Anyone,
}

impl Entrance {
    /// A listener that only the host can reach.
    #[must_use]
    pub const fn host(listener: Listener) -> Self {
        Self { listener, users: Users::Host }
    }

    /// A Unix listener for processes of services, which are looked up in `proc`.
    #[must_use]
    pub const fn services(listener: Listener, proc: PathBuf) -> Self {
        Self { listener, users: Users::Services(proc) }
    }

    /// A listener whose peers are not identified, because all have the same rights.
    #[must_use]
    pub const fn anyone(listener: Listener) -> Self {
        Self { listener, users: Users::Anyone }
    }

    fn identify(&self, stream: &Stream) -> Identity {
        match &self.users {
            Users::Host => Identity::Host,
            Users::Services(proc) => identity::of_peer(stream, proc),
            Users::Anyone => Identity::Unknown,
        }
    }
}

/// Limits the number of connections.
pub trait Admission {
    /// Held as long as the connection is open.
    type Place: Send + 'static;

    /// Waits until another connection can be accepted.
    fn reserve(&self) -> impl Future<Output = Option<Self::Place>> + Send;

    /// A place for a connection of `peer`, if one is free. `reserved` is the result of [`Self::reserve`].
    fn admit(&self, reserved: Option<Self::Place>, peer: &Identity) -> Option<Self::Place>;

    /// Waits until a connection is closed.
    fn freed(&self) -> impl Future<Output = ()> + Send;
}

/// Connections over the limit wait to be accepted.
impl Admission for Gate {
    type Place = Permit;

    async fn reserve(&self) -> Option<Permit> {
        Some(self.enter().await)
    }

    fn admit(&self, reserved: Option<Permit>, _: &Identity) -> Option<Permit> {
        reserved
    }

    async fn freed(&self) {
        self.connection_closed().await;
    }
}

/// Accepts connections forever and passes each to `handle` in its own task. A connection for which `admission` has no
/// place is closed.
pub async fn accept_each<A, H, F>(entrance: Entrance, admission: A, handle: H) -> Infallible
where
    A: Admission,
    H: Fn(Stream, Identity) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let reserved = admission.reserve().await;
        let (stream, _) = next(&entrance.listener, || admission.freed()).await;
        let peer = entrance.identify(&stream);
        if let Some(place) = admission.admit(reserved, &peer) {
            let connection = handle(stream, peer);
            drop(tokio::spawn(async move {
                connection.await;
                drop(place);
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::{Limits, Places};
    use std::io::Read;
    use std::net::{SocketAddr, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;
    use tokio::sync::mpsc;

    /// Starts a server that keeps every connection open, and returns its address.
    fn serve<A>(
        admission: A,
        entrance: fn(Listener) -> Entrance,
    ) -> (SocketAddr, mpsc::Receiver<(Stream, Identity)>)
    where
        A: Admission + Send + Sync + 'static,
    {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.tcp_address().unwrap();
        let (seen, served) = mpsc::channel(16);
        drop(tokio::spawn(accept_each(entrance(listener), admission, move |stream, peer| {
            let seen = seen.clone();
            async move {
                seen.send((stream, peer)).await.unwrap();
                seen.closed().await;
            }
        })));
        (address, served)
    }

    #[tokio::test]
    async fn a_connection_without_a_place_is_closed_and_the_others_stay_open() {
        let limits = Limits { host: 1, service: 1, shared: 0 };
        let (address, mut served) = serve(Places::new(limits), Entrance::host);
        let _first = TcpStream::connect(address).unwrap();
        assert_eq!(served.recv().await.unwrap().1, Identity::Host);
        let mut second = TcpStream::connect(address).unwrap();
        let closed = tokio::task::spawn_blocking(move || second.read(&mut [0]));
        assert!(matches!(closed.await.unwrap(), Ok(0) | Err(_)));
        assert!(served.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_process_is_identified_by_its_service() {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join(std::process::id().to_string());
        std::fs::create_dir(&process).unwrap();
        std::fs::write(process.join("cgroup"), "0::/cloister/web\n").unwrap();
        let socket = folder.path().join("socket");
        let listener = Listener::from_unix(UnixListener::bind(&socket).unwrap()).unwrap();
        let entrance = Entrance::services(listener, folder.path().to_owned());
        let (seen, mut served) = mpsc::channel(1);
        let limits = Limits { host: 0, service: 1, shared: 0 };
        drop(tokio::spawn(accept_each(entrance, Places::new(limits), move |_, peer| {
            let seen = seen.clone();
            async move { seen.send(peer).await.unwrap() }
        })));
        let _client = UnixStream::connect(&socket).unwrap();
        assert_eq!(served.recv().await, Some(Identity::Service("web".to_owned())));
    }

    #[tokio::test]
    async fn behind_a_gate_a_connection_over_the_limit_waits_until_another_closes() {
        let gate = Gate::new(1);
        let permit = gate.enter().await;
        let (address, mut served) = serve(gate.clone(), Entrance::anyone);
        let _client = TcpStream::connect(address).unwrap();
        tokio::time::timeout(Duration::from_millis(50), served.recv()).await.unwrap_err();
        drop(permit);
        assert_eq!(served.recv().await.unwrap().1, Identity::Unknown);
    }
}
