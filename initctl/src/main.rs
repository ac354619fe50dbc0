//! `initctl`: controls services from inside the enclave.
//!
//! Invariant: it makes no access decisions. The supervisor identifies the caller by its socket and refuses services
//! that the manifest does not name. Exit codes: 0 success, 1 refused or condition not met, 2 invalid arguments, 3
//! supervisor not reachable.

mod arguments;
mod client;
mod show;

use std::io::{self, Write};
use std::process::ExitCode;

use arguments::{Arguments, Goal};
use client::{Client, ClientError};
use cloister_wire::control::{Phase, Reply, Request, ServiceStatus, Status, Verb};
use cloister_wire::logs::{Record, Subscribe};

const REFUSED: u8 = 1;
const INVALID_ARGUMENTS: u8 = 2;
const UNREACHABLE: u8 = 3;

/// Why a run failed.
enum Failure {
    /// The command line is invalid.
    Usage(String),
    /// The supervisor refused, or the condition is not met.
    Refused(String),
    /// The supervisor is not reachable.
    Client(ClientError),
    /// Standard output failed.
    Output(io::Error),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    let ran =
        arguments.map_err(Failure::Usage).and_then(|arguments| run(arguments, &mut io::stdout().lock()));
    let (code, message) = match ran {
        Ok(()) => return ExitCode::SUCCESS,
        // The reader has closed the pipe.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(Failure::Output(error)) => (REFUSED, error.to_string()),
        Err(Failure::Usage(message)) => (INVALID_ARGUMENTS, format!("{message}\n{}", arguments::USAGE)),
        Err(Failure::Refused(message)) => (REFUSED, message),
        Err(Failure::Client(ClientError::Refused(why))) => (REFUSED, why),
        Err(Failure::Client(error)) => (UNREACHABLE, error.to_string()),
    };
    // If stderr fails too, there is nowhere left to report it.
    writeln!(io::stderr(), "initctl: {message}").unwrap_or_default();
    ExitCode::from(code)
}

fn run(arguments: Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    match arguments {
        Arguments::Help => Ok(writeln!(out, "{}", arguments::USAGE)?),
        Arguments::List => {
            let status = Client::control()?.status()?;
            Ok(show::list(&status, out)?)
        }
        Arguments::Status { service: None } => {
            let status = Client::control()?.status()?;
            Ok(show::enclave(&status, out)?)
        }
        Arguments::Status { service: Some(name) } => {
            let status = Client::control()?.status()?;
            Ok(show::service(find(&status, &name)?, out)?)
        }
        Arguments::Time => time(out),
        Arguments::Do { verb, service } => request(verb, service),
        Arguments::Wait { goal, service } => wait(goal, &service),
        Arguments::Logs { follow, service } => logs(follow, service.as_deref(), out),
    }
}

/// Prints what the supervisor states, and fails if the date is not trusted.
fn time(out: &mut dyn Write) -> Result<(), Failure> {
    let time = client::time()?;
    writeln!(out, "{}", serde_json::to_string(&time).map_err(io::Error::from)?)?;
    if time.trusted { Ok(()) } else { Err(Failure::Refused("the date is not trusted".into())) }
}

fn find<'a>(status: &'a Status, name: &str) -> Result<&'a ServiceStatus, Failure> {
    let found = status.services.iter().find(|service| service.name == name);
    found.ok_or_else(|| Failure::Refused(format!("service {name:?} not found")))
}

fn request(verb: Verb, service: String) -> Result<(), Failure> {
    match Client::control()?.request(Request::Service { service, verb })? {
        Reply::Refused { why } => Err(Failure::Refused(why)),
        Reply::Done | Reply::Stats(_) | Reply::Inspect(_) => Ok(()),
    }
}

fn wait(goal: Goal, name: &str) -> Result<(), Failure> {
    let mut client = Client::control()?;
    loop {
        let status = client.status()?;
        let phase = find(&status, name)?.phase;
        match (goal, phase) {
            (Goal::Ready, Phase::Ready) | (_, Phase::Done) => return Ok(()),
            (_, Phase::Failed) => return Err(Failure::Refused(format!("{name} has failed"))),
            _ if status.state.is_final() => return Err(Failure::Refused("the enclave has ended".into())),
            _ => {}
        }
    }
}

fn logs(follow: bool, wanted: Option<&str>, out: &mut dyn Write) -> Result<(), Failure> {
    let mut client = Client::logs(Subscribe { from: 0, follow })?;
    while let Some(record) = client.record()? {
        match record {
            Record::Output { service, .. } if wanted.is_some_and(|name| name != service) => {}
            Record::Output { bytes, .. } => {
                out.write_all(&bytes)?;
                out.flush()?;
            }
            Record::Gap { count, .. } => writeln!(out, "[{count} records lost]")?,
        }
    }
    Ok(())
}
