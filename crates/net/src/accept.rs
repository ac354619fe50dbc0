//! The one accept loop.
//!
//! Its law: it neither dies nor spins, whatever the system is out of, and each connection is served in a task of its own.
//! How many there may be, and whether one too many waits or is closed, is for its [`Admission`] to say; who is at the other
//! end is found out before that.

use std::convert::Infallible;
use std::path::PathBuf;

use crate::gate::{Gate, Pass};
use crate::identity::{self, Identity};
use crate::listener::Listener;
use crate::next::next;
use crate::stream::Stream;

/// A listener, and how it is known who connects to it.
#[derive(Debug)]
pub struct Entrance {
    listener: Listener,
    users: Users,
}

#[derive(Debug)]
enum Users {
    Host,
    /// Processes, which are looked up below this folder.
    Services(PathBuf),
    Anyone,
}

impl Entrance {
    /// Only the host reaches this listener.
    #[must_use]
    pub const fn host(listener: Listener) -> Self {
        Self { listener, users: Users::Host }
    }

    /// Processes of services connect to this Unix listener; `proc` is where they are looked up.
    #[must_use]
    pub const fn services(listener: Listener, proc: PathBuf) -> Self {
        Self { listener, users: Users::Services(proc) }
    }

    /// Whoever reaches this listener may use it alike: nobody is asked for.
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

/// Who may come in.
pub trait Admission {
    /// What is held for as long as the connection lasts.
    type Place: Send + 'static;

    /// Waits until another connection may be accepted.
    fn reserve(&self) -> impl Future<Output = Option<Self::Place>> + Send;

    /// A place for a connection of `peer`, if there is one. `reserved` is what [`Self::reserve`] gave.
    fn admit(&self, reserved: Option<Self::Place>, peer: &Identity) -> Option<Self::Place>;

    /// Waits until a connection ends.
    fn freed(&self) -> impl Future<Output = ()> + Send;
}

/// As many as the gate has room for; more wait to be accepted.
impl Admission for Gate {
    type Place = Pass;

    async fn reserve(&self) -> Option<Pass> {
        Some(self.enter().await)
    }

    fn admit(&self, reserved: Option<Pass>, _: &Identity) -> Option<Pass> {
        reserved
    }

    async fn freed(&self) {
        self.one_left().await;
    }
}

/// Hands each connection to `handle` in a task of its own, for as long as `admission` has a place for it. A connection that
/// has none is closed.
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

    /// A server that keeps every connection, and where it listens.
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
    async fn a_connection_without_a_place_is_closed_and_the_others_stay() {
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
    async fn a_process_inside_is_known_by_its_service() {
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
    async fn behind_a_gate_one_too_many_waits_until_another_leaves() {
        let gate = Gate::new(1);
        let pass = gate.enter().await;
        let (address, mut served) = serve(gate.clone(), Entrance::anyone);
        let _client = TcpStream::connect(address).unwrap();
        tokio::time::timeout(Duration::from_millis(50), served.recv()).await.unwrap_err();
        drop(pass);
        assert_eq!(served.recv().await.unwrap().1, Identity::Unknown);
    }
}
