//! `metrics`: serves metrics of all enclaves of this user for Prometheus.

use cloister_net::Listener;
use serde::Serialize;

use crate::cli::Metrics;
use crate::error::{Error, Result};
use crate::metrics::{Source, serve};
use crate::output;
use crate::signals::Signals;
use crate::state::Root;

use super::{DONE, block_on};

/// The result of `metrics --json`.
#[derive(Serialize)]
struct Serving {
    url: String,
}

/// Serves until it receives SIGINT, SIGTERM or SIGHUP.
pub(crate) fn metrics(args: &Metrics, json: bool) -> Result<u8> {
    let root = Root::open()?;
    block_on(async {
        let mut signals = Signals::listen()?;
        let listener = Listener::tcp(args.listen).map_err(|error| {
            let error = Error::operator(format!("cannot listen on {}", args.listen)).because(error);
            error.hint("choose another address with --listen")
        })?;
        let url = format!("http://{}/metrics", listener.tcp_address().unwrap_or(args.listen));
        if json {
            output::json(&Serving { url })?;
        } else {
            output::data(&url)?;
        }
        tokio::select! {
            () = serve(listener, Source::All(root)) => {}
            _ = signals.next() => {}
        }
        Ok(DONE)
    })
}
