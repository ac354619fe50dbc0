//! What the supervisor is given: where its files lie and where its listeners are.
//!
//! Its law: everything outside the process is reached through these values, so the whole supervisor runs on any Linux
//! machine, against an init of a test's own.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;

/// Where things lie inside the enclave.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The measured manifest.
    pub manifest: PathBuf,
    /// The application's root as init puts it together.
    pub root: PathBuf,
    /// The folder of the services' cgroups.
    pub cgroups: PathBuf,
    /// The kernel's processes.
    pub proc: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            manifest: PathBuf::from(cloister_manifest::model::PATH),
            root: PathBuf::from("/run/cloister/root"),
            cgroups: PathBuf::from("/sys/fs/cgroup/cloister"),
            proc: PathBuf::from("/proc"),
        }
    }
}

/// A connected stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The host.
    Host,
    /// A process inside the enclave, running as this user.
    Local {
        /// Its user, as the kernel tells it (`SO_PEERCRED`).
        uid: u32,
    },
}

/// A connection and its peer.
pub type Accepted = (Box<dyn Stream>, Peer);

/// What a listener waits for.
pub type Accepting<'a> = Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send + 'a>>;

/// Something that connections come from: vsock in an enclave, a unix socket inside it and in tests.
pub trait Listen: Send + Sync {
    /// The next connection.
    fn accept(&self) -> Accepting<'_>;
}

/// Where the host connects: a vsock port, or in tests a unix socket.
#[derive(Debug)]
pub struct HostSocket(pub cloister_relay::Listener);

impl Listen for HostSocket {
    fn accept(&self) -> Accepting<'_> {
        Box::pin(async {
            let (stream, _) = self.0.accept().await?;
            let stream: Box<dyn Stream> = Box::new(stream);
            Ok((stream, Peer::Host))
        })
    }
}

/// A unix socket for programs inside the enclave.
#[derive(Debug)]
pub struct LocalSocket(pub UnixListener);

impl Listen for LocalSocket {
    fn accept(&self) -> Accepting<'_> {
        Box::pin(async {
            let (stream, _) = self.0.accept().await?;
            let uid = stream.peer_cred()?.uid();
            let stream: Box<dyn Stream> = Box::new(stream);
            Ok((stream, Peer::Local { uid }))
        })
    }
}
