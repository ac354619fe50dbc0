//! What the supervisor is given: where its files lie, where its listeners are and which addresses are its own inside.
//!
//! Its law: everything outside the process is reached through these values, so the whole supervisor runs on any Linux
//! machine, against an init of a test's own.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::PathBuf;
use std::pin::Pin;

use cloister_wire::ports;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;

use crate::confine::NOTIFY_ADDRESS;
use crate::peer::service_behind;

/// Where things lie inside the enclave.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The measured manifest.
    pub manifest: PathBuf,
    /// The application's root as init puts it together.
    pub root: PathBuf,
    /// The folder of the services' cgroups.
    pub cgroups: PathBuf,
    /// The folder of the servants' cgroups.
    pub servants: PathBuf,
    /// The kernel's processes.
    pub proc: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            manifest: PathBuf::from(cloister_manifest::model::PATH),
            root: PathBuf::from("/run/cloister/root"),
            cgroups: PathBuf::from("/sys/fs/cgroup/cloister"),
            servants: PathBuf::from("/sys/fs/cgroup/servants"),
            proc: PathBuf::from("/proc"),
        }
    }
}

/// The unix addresses that are the supervisor's inside the enclave: abstract, so that no mount hides them, but in tests.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Where programs inside read and ask.
    pub control: SocketAddr,
    /// Where they read the log.
    pub logs: SocketAddr,
    /// Where services notify.
    pub notify: SocketAddr,
}

impl Addresses {
    /// Those that services know.
    ///
    /// # Errors
    /// None but for a name that is too long.
    pub fn known() -> io::Result<Self> {
        Ok(Self {
            control: SocketAddr::from_abstract_name(ports::LOCAL_CONTROL)?,
            logs: SocketAddr::from_abstract_name(ports::LOCAL_LOGS)?,
            notify: SocketAddr::from_abstract_name(NOTIFY_ADDRESS)?,
        })
    }
}

/// A connected stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The host.
    Host,
    /// A process inside the enclave.
    Local {
        /// The service it belongs to ([`crate::peer`]).
        service: Option<String>,
    },
}

impl Peer {
    /// Whether it may ask for what concerns other services: the host, and the services that the manifest names.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn may_control(&self, services: &[String]) -> Result<(), String> {
        match self {
            Self::Host => Ok(()),
            Self::Local { service: Some(name) } if services.contains(name) => Ok(()),
            Self::Local { service: Some(name) } => Err(format!(
                "service {name:?} may not control services: control.services of the manifest does not name it"
            )),
            Self::Local { service: None } => {
                Err("a process that belongs to no service may not ask".to_owned())
            }
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("the host"),
            Self::Local { service } => write!(f, "service {}", service.as_deref().unwrap_or("unknown")),
        }
    }
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
pub struct HostSocket(pub cloister_net::Listener);

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
pub struct LocalSocket {
    listener: UnixListener,
    /// Where processes are looked up.
    proc: PathBuf,
}

impl LocalSocket {
    /// A listening socket at `address`, for [`Self::serving`].
    ///
    /// # Errors
    /// When the address is taken.
    pub fn bind(address: &SocketAddr) -> io::Result<OwnedFd> {
        let listener = StdListener::bind_addr(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener.into())
    }

    /// Serves a socket that was bound by this supervisor or one before it.
    ///
    /// # Errors
    /// When the reactor does not take it.
    pub fn serving(socket: OwnedFd, proc: PathBuf) -> io::Result<Self> {
        Ok(Self { listener: UnixListener::from_std(socket.into())?, proc })
    }
}

impl Listen for LocalSocket {
    fn accept(&self) -> Accepting<'_> {
        Box::pin(async {
            let (stream, _) = self.listener.accept().await?;
            let service = service_behind(&stream, &self.proc);
            let stream: Box<dyn Stream> = Box::new(stream);
            Ok((stream, Peer::Local { service }))
        })
    }
}
