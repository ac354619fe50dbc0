//! What every transport guarantees.
//!
//! Invariant: callers need not know which transport they use: each failure means the same on all of them. Every connection
//! attempt ends within [`LIMIT`].

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::time::Duration;

pub(crate) use cloister_net::Stream;

use rustix::io::Errno;

/// Time limit for a connection attempt. The enclave's kernel accepts it, not a program in it: that takes milliseconds under
/// emulation, but the kernel may still be booting on busy CPUs.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);

/// The future returned by a trait's method.
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A transport to an enclave. It may be vsock, TCP or any other ordered byte stream: one that encrypts returns one end of a
/// local socket pair and forwards the data from the other.
pub(crate) trait Transport: Debug + Send + Sync {
    /// Connects to a port of the contract between host and enclave (`cloister_wire::ports`), regardless of the transport's own
    /// numbers.
    ///
    /// Errors: `ConnectionRefused` if nothing listens there, `NotFound` if there is no such machine or its device is gone,
    /// `TimedOut` if the enclave does not respond.
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>>;
}

/// Whether a connection that failed with this error may succeed a moment later: the program that listens is being restarted,
/// or the machine is not running yet.
pub(crate) fn may_succeed_later(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound, WouldBlock};
    matches!(error.kind(), ConnectionRefused | NotFound | WouldBlock)
}

/// Waits for `connecting`, at most [`LIMIT`], and translates its error.
pub(super) async fn with_limit<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let connected = tokio::time::timeout(LIMIT, connecting).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(translated)
}

/// Translates each transport's own errors into those of the contract.
///
/// | transport | nothing listens on the port | no such machine |
/// |---|---|---|
/// | the kernel's vsock (Linux 6.1 and 6.12 behind vhost-vsock) | `ECONNRESET` | `ENODEV` |
/// | `vhost-device-vsock` 0.3.0 | end of file or `ECONNRESET` in place of `OK` | `ENOENT`, or `ECONNREFUSED` once it has exited |
fn translated(error: io::Error) -> io::Error {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => io::ErrorKind::ConnectionRefused,
        _ if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => io::ErrorKind::NotFound,
        _ => return error,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    /// An enclave on another host, one address for each of its ports.
    #[derive(Debug)]
    struct Remote(SocketAddr);

    impl Transport for Remote {
        fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>> {
            let known = port == cloister_wire::ports::CONTROL;
            Box::pin(with_limit(async move {
                if known { Stream::connect_tcp(self.0).await } else { Err(Errno::CONNREFUSED.into()) }
            }))
        }
    }

    #[tokio::test]
    async fn a_transport_need_not_be_vsock() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let transport: Box<dyn Transport> = Box::new(Remote(listener.local_addr().unwrap()));
        let (stream, accepted) =
            tokio::join!(transport.connect(cloister_wire::ports::CONTROL), listener.accept());
        accepted.unwrap().0.write_all(b"hello").await.unwrap();
        assert_eq!(stream.unwrap().recv_some(64).await.unwrap(), b"hello");
        let refused = transport.connect(cloister_wire::ports::LOGS).await.unwrap_err();
        assert!(may_succeed_later(&refused), "{refused:?}");
    }

    #[tokio::test]
    async fn a_failure_means_the_same_on_every_transport() {
        let kind =
            async |error: io::Error| with_limit(async { Err::<(), _>(error) }).await.unwrap_err().kind();
        let of = |errno: Errno| io::Error::from(errno);
        assert_eq!(kind(of(Errno::CONNRESET)).await, io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(of(Errno::CONNREFUSED)).await, io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(io::ErrorKind::UnexpectedEof.into()).await, io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(of(Errno::NODEV)).await, io::ErrorKind::NotFound);
        assert_eq!(kind(of(Errno::NOENT)).await, io::ErrorKind::NotFound);
        assert_eq!(kind(of(Errno::INVAL)).await, io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_program_that_is_starting_may_accept_later_and_a_timeout_is_final() {
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound, io::ErrorKind::WouldBlock] {
            assert!(may_succeed_later(&kind.into()), "{kind:?}");
        }
        for kind in [io::ErrorKind::TimedOut, io::ErrorKind::InvalidData, io::ErrorKind::PermissionDenied] {
            assert!(!may_succeed_later(&kind.into()), "{kind:?}");
        }
    }
}
