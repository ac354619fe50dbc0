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
    let places = Places::new(CLIENTS);
    let mut buffer = vec![0; LIMIT];
    loop {
        let (message, mut fds) = channel.next(&mut buffer).await?;
        match (message, fds.pop()) {
            (ToAttestor::Confirm { id }, _) => channel.report(&FromAttestor::Ready { id }).await?,
            (ToAttestor::Client { service, allowed }, Some(socket)) => {
                let service = service.map_or(Identity::Unknown, Identity::Service);
                admit(socket, Client { service, allowed }, &places, &module).await;
            }
            (ToAttestor::Module, Some(socket)) => module.connect(socket),
            // Its descriptor was lost because this process had too many open.
            (ToAttestor::Client { .. } | ToAttestor::Module, None) => {}
        }
    }
}

/// Serves a client in its own task if the manifest allows it anything and its service has a place left, and refuses it
/// otherwise.
async fn admit(socket: OwnedFd, client: Client, places: &Arc<Places>, module: &Module) {
    // A socket that cannot be registered is closed.
    let Ok(stream) = Stream::local(socket) else { return };
    let Some(place) = places.enter(&client.service) else {
        return client::refuse_excess(stream, MAX_CLIENTS_OF_SERVICE).await;
    };
    let module = module.clone();
    drop(tokio::spawn(async move {
        if client.allowed.is_empty() {
            client::refuse_unlisted(stream, &client.service).await;
        } else {
            client::serve(stream, client, module).await;
        }
        drop(place);
    }));
}

#[cfg(test)]
mod tests;
