//! The channel to the supervisor, from which clients come.
//!
//! Invariant: reading the channel never waits for a client, so that no service delays another. A client that was passed
//! on is served even while the supervisor is being restarted.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister_net::Stream;
use cloister_net::identity::Identity;
use cloister_net::packets::{MessageError, Packets};
use cloister_net::places::{Limits, Places};
use cloister_wire::attestor::{FromAttestor, MAX_CLIENTS_OF_SERVICE, MAX_SHARED_CLIENTS, ToAttestor};
use cloister_wire::packet::LIMIT;

use crate::client::{self, Client};
use crate::module::Module;

/// Maximum numbers of clients. Each service always has its first place; the host never connects.
const CLIENTS: Limits = Limits { host: 0, service: MAX_CLIENTS_OF_SERVICE, shared: MAX_SHARED_CLIENTS };

/// Serves the clients that the supervisor passes on, until an error occurs.
pub(crate) async fn converse(channel: Packets, module: Module) -> Result<(), MessageError> {
    channel.report(&FromAttestor::Ready).await?;
    let places = Places::new(CLIENTS);
    let mut buffer = vec![0; LIMIT];
    loop {
        let (message, mut fds) = channel.next(&mut buffer).await?;
        let Some(socket) = fds.pop() else { continue };
        match message {
            ToAttestor::Client { service, allowed } => {
                let service = service.map_or(Identity::Unknown, Identity::Service);
                admit(socket, Client { service, allowed }, &places, &module).await;
            }
            ToAttestor::Module => module.connect(socket),
        }
    }
}

/// Serves a client in its own task if its service has a place left, and refuses it otherwise.
async fn admit(socket: OwnedFd, client: Client, places: &Arc<Places>, module: &Module) {
    // A socket that cannot be registered is closed.
    let Ok(stream) = Stream::local(socket) else { return };
    let Some(place) = places.enter(&client.service) else {
        return client::refuse(stream, MAX_CLIENTS_OF_SERVICE).await;
    };
    let module = module.clone();
    drop(tokio::spawn(async move {
        client::serve(stream, client, module).await;
        drop(place);
    }));
}

#[cfg(test)]
mod tests;
