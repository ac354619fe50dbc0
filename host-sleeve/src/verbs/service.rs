//! `service`: controls one service of a running enclave.

use cloister_wire::control::{Reply, Request, Verb};

use crate::cli::Service;
use crate::client::{Client, SleeveRequest};
use crate::error::{Error, Result};
use crate::output;
use crate::state::{EnclaveDir, Root};

use super::DONE;

/// Requests an action on a service from the enclave.
pub(crate) fn service(args: &Service, json: bool) -> Result<u8> {
    let service = args.target.clone();
    let request = match (args.verb.as_str(), args.signal) {
        ("start", _) => Request::Service { service, verb: Verb::Start },
        ("stop", _) => Request::Service { service, verb: Verb::Stop },
        ("restart", _) => Request::Service { service, verb: Verb::Restart },
        (_, Some(signal)) => Request::Signal { service, signal },
        (verb, None) => return Err(Error::operator(format!("`{verb}` needs a signal"))),
    };
    let directory = Root::open()?.find(&args.name)?;
    match send(&directory, request)? {
        Reply::Refused { why } => Err(Error::enclave(format!("{} refused the request", args.name))
            .because(std::io::Error::other(output::printable(&why)))
            .hint("only the actions listed under `control` in the image's manifest are allowed")),
        reply if json => output::json(&reply).map(|()| DONE),
        _ => Ok(DONE),
    }
}

/// Sends a request to a running enclave.
pub(crate) fn send(directory: &EnclaveDir, request: Request) -> Result<Reply> {
    let Some(mut client) = Client::connect(directory)? else {
        return Err(Error::operator(format!("{} is not running", directory.name()))
            .hint("`host-sleeve ps` lists running enclaves"));
    };
    client.request(SleeveRequest::Enclave(request))
}
