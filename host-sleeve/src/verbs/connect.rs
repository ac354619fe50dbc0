//! `connect`: a local port whose connections end in a port of an enclave.
//!
//! Invariant: with `--verify` no byte of a client is forwarded before evidence that was requested for this connection has passed. A
//! client whose connection is refused is reset.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister_net::{Entrance, Gate, Listener, Stream, accept_each};
use serde::Serialize;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};

use super::{DONE, attested, block_on};
use crate::cli::Connect;
use crate::client::{Tunnel, tunnel};
use crate::error::{Error, ErrorContext as _, Result};
use crate::output;
use crate::signals::Signals;
use crate::state::record::now_ms;
use crate::state::{EnclaveDir, Root};
use crate::verify::Required;

/// Maximum number of connections at once; further clients wait. The sleeve has 256 for all commands.
const MAX_CLIENTS: usize = 64;

/// The result of `connect --json`.
#[derive(Serialize)]
struct Listening {
    address: String,
}

/// Where connections go, and what must be proved before.
#[derive(Debug)]
struct Tunnels {
    directory: EnclaveDir,
    port: u16,
    required: Option<Required>,
}

/// Serves until it receives SIGINT, SIGTERM or SIGHUP.
pub(crate) fn connect(args: &Connect, json: bool) -> Result<u8> {
    let directory = Root::open()?.find(&args.name)?;
    let required = if args.verify { Some(Required::read(args)?) } else { None };
    let tunnels = Arc::new(Tunnels { directory, port: args.port, required });
    // What is refused now need not be found out by the first client.
    tunnels.verify()?;
    block_on(async {
        let mut signals = Signals::listen()?;
        let listener = Listener::tcp(args.listen).map_err(|error| {
            let error = Error::operator(format!("cannot listen on {}", args.listen)).because(error);
            error.hint("choose another address with --listen")
        })?;
        let address = listener.tcp_address().unwrap_or(args.listen).to_string();
        if json {
            output::json(&Listening { address })?;
        } else {
            output::data(&address)?;
        }
        let handle = move |client, _| Arc::clone(&tunnels).serve(client);
        tokio::select! {
            _ = accept_each(Entrance::anyone(listener), Gate::new(MAX_CLIENTS), handle) => {}
            _ = signals.next() => {}
        }
        Ok(DONE)
    })
}

impl Tunnels {
    /// Verifies the enclave, if that is required.
    fn verify(&self) -> Result<()> {
        let Some(required) = &self.required else { return Ok(()) };
        let answer = attested::evidence(&self.directory)?;
        let name = self.directory.name();
        required.check(&answer, now_ms() / 1000).map_err(|refusal| {
            Error::not_verified(format!("{name} is not the enclave that was expected")).because(refusal)
        })
    }

    async fn serve(self: Arc<Self>, client: Stream) {
        // An error means that the client is already gone.
        drop(client.reset_on_close());
        let opening = tokio::task::spawn_blocking(move || {
            // First the connection, which ends with its sleeve: so the enclave that is verified is the one that it leads to.
            let tunnel = tunnel::open(&self.directory, self.port)?;
            self.verify()?;
            Ok(tunnel)
        });
        let opened = opening
            .await
            .unwrap_or_else(|error| Err(Error::internal("a connection was not opened").because(error)));
        let carried = match opened {
            Ok(tunnel) => carry(client, tunnel).await,
            Err(error) => Err(error),
        };
        if let Err(error) = carried {
            output::error(&error);
        }
    }
}

/// Forwards bytes both ways until both directions have ended. After an error the client is reset.
async fn carry(mut client: Stream, Tunnel { early, stream }: Tunnel) -> Result<()> {
    let broken = || "a connection broke".to_owned();
    stream.set_nonblocking(true).context(broken)?;
    let mut enclave = Stream::local(OwnedFd::from(stream)).context(broken)?;
    client.write_all(&early).await.context(broken)?;
    copy_bidirectional(&mut client, &mut enclave).await.context(broken)?;
    client.end_on_close().context(broken)
}
