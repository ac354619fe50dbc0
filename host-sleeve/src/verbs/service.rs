//! `service`: one service of a running enclave.

use cloister_wire::control::{Reply, Request, Verb};

use crate::cli::Service;
use crate::client::{Asked, Client};
use crate::error::{Error, Result};
use crate::output;
use crate::state::{Folder, Root};

use super::DONE;

/// Asks the enclave to do something with one of its services.
pub(crate) fn service(asked: &Service, json: bool) -> Result<u8> {
    let service = asked.target.clone();
    let request = match (asked.verb.as_str(), asked.signal) {
        ("start", _) => Request::Service { service, verb: Verb::Start },
        ("stop", _) => Request::Service { service, verb: Verb::Stop },
        ("restart", _) => Request::Service { service, verb: Verb::Restart },
        (_, Some(signal)) => Request::Signal { service, signal },
        (verb, None) => return Err(Error::operator(format!("`{verb}` needs a signal"))),
    };
    let folder = Root::open()?.find(&asked.name)?;
    match ask(&folder, request)? {
        Reply::Refused { why } => Err(Error::enclave(format!("{} refused", asked.name))
            .because(std::io::Error::other(output::printable(&why)))
            .hint("only what the image's manifest names under `control` is allowed")),
        reply if json => output::json(&reply).map(|()| DONE),
        _ => Ok(DONE),
    }
}

/// Passes a request on to a running enclave.
pub(crate) fn ask(folder: &Folder, request: Request) -> Result<Reply> {
    let Some(mut client) = Client::connect(folder)? else {
        return Err(Error::operator(format!("{} is not running", folder.name()))
            .hint("`host-sleeve ps` lists what runs"));
    };
    client.ask(Asked::Enclave(request))
}
