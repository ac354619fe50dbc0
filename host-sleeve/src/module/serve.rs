//! Requests and responses over a channel.
//!
//! Invariant: one request at a time, in order. An enclave that sends anything but requests loses its connection, and one that sends
//! many delays only itself: each is performed on another thread.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloister_net::channel::{ChannelError, Limits, Receiver, Sender};
use cloister_wire::module::{REQUEST_LIMIT, response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::device::Module;

/// The limits of the channel. The enclave's program sends its hello as soon as a connection is made, so 5 s is many times what a
/// busy machine needs, and the next attempt is another chance.
pub(crate) const LIMITS: Limits =
    Limits { frame: REQUEST_LIMIT, hello: Duration::from_secs(5), ..Limits::HOST };

/// Answers the requests of a channel until it ends, which is an error.
pub(crate) async fn serve<R, W>(
    mut receiver: Receiver<R>,
    mut sender: Sender<W>,
    module: &Arc<Mutex<Module>>,
) -> Result<Infallible, ChannelError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let Some(request) = receiver.arrived()?.map(<[u8]>::to_vec) else {
            receiver.fill().await?;
            continue;
        };
        let module = Arc::clone(module);
        let answer = move || module.lock().unwrap_or_else(PoisonError::into_inner).answer(&request);
        let answer = tokio::task::spawn_blocking(answer).await.map_err(io::Error::other)?;
        sender.send_encoded(&response(&answer)?).await?;
    }
}
