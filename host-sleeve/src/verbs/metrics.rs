//! `metrics`: every enclave of this user, for Prometheus.

use cloister_net::Listener;
use serde::Serialize;

use crate::cli::Metrics;
use crate::error::{Error, Result};
use crate::metrics::{Source, serve};
use crate::output;
use crate::signals::Signals;
use crate::state::Root;

use super::{DONE, block_on};

/// Where metrics are served, as `metrics --json` shows it.
#[derive(Serialize)]
struct Serving {
    url: String,
}

/// Serves until it is interrupted or asked to end.
pub(crate) fn metrics(asked: &Metrics, json: bool) -> Result<u8> {
    let root = Root::open()?;
    block_on(async {
        let mut signals = Signals::listen()?;
        let listener = Listener::tcp(asked.listen).map_err(|error| {
            let error = Error::operator(format!("cannot listen on {}", asked.listen)).because(error);
            error.hint("choose another address with --listen")
        })?;
        let url = format!("http://{}/metrics", listener.tcp_address().unwrap_or(asked.listen));
        if json {
            output::json(&Serving { url })?;
        } else {
            output::data(&url)?;
        }
        tokio::select! {
            () = serve(listener, Source::Every(root)) => {}
            _ = signals.next() => {}
        }
        Ok(DONE)
    })
}
