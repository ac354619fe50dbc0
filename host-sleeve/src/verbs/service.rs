//! `service`: controls one service of a running enclave.

use cloister_wire::control::{Reply, Request, Verb};

use crate::cli::Service;
use crate::client::{Asked, Client};
use crate::error::{Error, Result};
use crate::output;
use crate::state::{Folder, Root};

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
    let folder = Root::open()?.find(&args.name)?;
    match ask(&folder, request)? {
        Reply::Refused { why } => Err(Error::enclave(format!("{} refused the request", args.name))
            .because(std::io::Error::other(output::printable(&why)))
            .hint("only the actions listed under `control` in the image's manifest are allowed")),
        reply if json => output::json(&reply).map(|()| DONE),
        _ => Ok(DONE),
    }
}

/// Sends a request to a running enclave.
pub(crate) fn ask(folder: &Folder, request: Request) -> Result<Reply> {
    let Some(mut client) = Client::connect(folder)? else {
        return Err(Error::operator(format!("{} is not running", folder.name()))
            .hint("`host-sleeve ps` lists running enclaves"));
    };
    client.ask(Asked::Enclave(request))
}
