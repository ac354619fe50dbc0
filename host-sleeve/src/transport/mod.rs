//! How a port of an enclave is reached.
//!
//! Its law: whoever connects need not know which transport it is on, but for whether a half-close survives it. Every
//! connection is made within [`LIMIT`], or not at all.
//!
//! | module | the host reaches the enclave |
//! |---|---|
//! | `hybrid` | through a device's Unix socket and its `CONNECT` line |
//! | `kernel` | through the kernel, by CID |

mod hybrid;
mod kernel;

use std::fmt::Debug;
use std::io;
use std::time::Duration;

pub(crate) use cloister_relay::Stream;
pub(crate) use hybrid::Hybrid;
pub(crate) use kernel::Kernel;

use crate::backends::Pending;

/// How long a connection may take to be made. The enclave's kernel answers, not a program in it: milliseconds under
/// emulation, but the kernel may still be booting on busy CPUs.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);

/// A way to an enclave.
pub(crate) trait Transport: Debug + Send + Sync {
    /// Connects to a port.
    ///
    /// Errors: `ConnectionRefused` when nobody listens there, `TimedOut` when the enclave does not answer, `NotFound` when
    /// the device is gone.
    fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>>;

    /// Whether each direction of a connection can end alone. Where not, an end that must not take the other direction
    /// with it has to travel inside the stream ([`cloister_wire::ingress::Framing::Chunked`]).
    fn half_close(&self) -> bool;
}

/// Waits for `connecting`, at most [`LIMIT`].
async fn in_time<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(LIMIT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
