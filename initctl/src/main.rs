//! `initctl`: asks the supervisor from inside the enclave.
//!
//! Its law: it decides nothing. The supervisor knows by the socket who asks, and refuses whom the manifest does not name.
//! Exit codes: 0 done, 1 refused or not so, 2 not understood, 3 the supervisor cannot be reached.

mod client;
mod show;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use client::{Client, ClientError};
use cloister_wire::control::{Phase, Reply, Request, ServiceStatus, Status, Verb};
use cloister_wire::logs::{Record, Subscribe};
use words::{Goal, Words};

const REFUSED: u8 = 1;
const NOT_UNDERSTOOD: u8 = 2;
const UNREACHABLE: u8 = 3;

/// How a run ends when it does not end well.
enum Failure {
    /// The command line says nothing we know.
    Usage(String),
    /// The supervisor said no, or what was asked is not so.
    Refused(String),
    /// The supervisor cannot be spoken to.
    Client(ClientError),
    /// Our own output is gone.
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
    let words = Words::read(std::env::args().skip(1));
    let ran = words.map_err(Failure::Usage).and_then(|words| run(words, &mut io::stdout().lock()));
    let (code, message) = match ran {
        Ok(()) => return ExitCode::SUCCESS,
        // Whoever read us has read enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(Failure::Output(error)) => (REFUSED, error.to_string()),
        Err(Failure::Usage(message)) => (NOT_UNDERSTOOD, format!("{message}\n{}", words::USAGE)),
        Err(Failure::Refused(message)) => (REFUSED, message),
        Err(Failure::Client(ClientError::Refused(why))) => (REFUSED, why),
        Err(Failure::Client(error)) => (UNREACHABLE, error.to_string()),
    };
    // There is nobody to tell that nobody can be told.
    writeln!(io::stderr(), "initctl: {message}").unwrap_or_default();
    ExitCode::from(code)
}

fn run(words: Words, out: &mut dyn Write) -> Result<(), Failure> {
    match words {
        Words::Help => Ok(writeln!(out, "{}", words::USAGE)?),
        Words::List => {
            let status = Client::control()?.status()?;
            Ok(show::list(&status, out)?)
        }
        Words::Status { service: None } => {
            let status = Client::control()?.status()?;
            Ok(show::enclave(&status, out)?)
        }
        Words::Status { service: Some(name) } => {
            let status = Client::control()?.status()?;
            Ok(show::service(find(&status, &name)?, out)?)
        }
        Words::Do { verb, service } => ask(verb, service),
        Words::Wait { goal, service } => wait(goal, &service),
        Words::Logs { follow, service } => logs(follow, service.as_deref(), out),
    }
}

fn find<'a>(status: &'a Status, name: &str) -> Result<&'a ServiceStatus, Failure> {
    let found = status.services.iter().find(|service| service.name == name);
    found.ok_or_else(|| Failure::Refused(format!("there is no service {name:?}")))
}

fn ask(verb: Verb, service: String) -> Result<(), Failure> {
    match Client::control()?.ask(Request::Service { service, verb })? {
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
            Record::Gap { count, .. } => writeln!(out, "[{count} records are no longer there]")?,
        }
    }
    Ok(())
}
