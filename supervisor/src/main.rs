//! The supervisor's process: takes over the descriptors and the state that init holds, and runs.
//!
//! Invariant: every error ends the process, with its causes on stderr; init starts a successor, which continues.

use std::error::Error;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use cloister_net::{Entrance, Listener, prepare_diagnosis};
use cloister_supervisor::confine::confine_supervisor;
use cloister_supervisor::core::{Bind, CoreError, Given, Setup, run};
use cloister_supervisor::evidence;
use cloister_supervisor::hold::HoldError;
use cloister_supervisor::status::registers;
use cloister_supervisor::timekeeper::trusted_clock;
use cloister_supervisor::world::{Addresses, Paths};
use cloister_sys::inherited;
use cloister_sys::platform::Platform;
use cloister_wire::causes::REPORT;
use cloister_wire::hold::SUPERVISOR_FD;
use cloister_wire::{causes, ports};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&*error);
            ExitCode::FAILURE
        }
    }
}

fn supervise() -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let setup = setup()?;
        let keeps_time = matches!(setup.clock, Ok(Some(_)));
        // The listeners, the provider of evidence and the security module's registers, opened above, need more
        // privileges. There is only one thread.
        confine_supervisor(keeps_time)?;
        Ok(run(setup).await?)
    })
}

fn setup() -> Result<Setup, CoreError> {
    let system = |what| move |source: io::Error| CoreError::System { what, source };
    let init = inherited::copy(SUPERVISOR_FD).map_err(system("the inherited socket to init is not open"))?;
    let host = |port| Listener::vsock(port).map_err(system("cannot listen on vsock"));
    prepare_diagnosis().map_err(system("the kernel's socket diagnosis is unavailable"))?;
    // Bound while that is allowed; for a restarted supervisor the address is in use, and init holds the socket.
    let ingress = Listener::bind_vsock(ports::INGRESS);
    let sleeve = (Platform::detect(Path::new("/")) == Ok(Platform::Virtual))
        .then(|| Listener::bind_vsock(ports::MODULE));
    let mut seed = [0; 8];
    getrandom(&mut seed, GetRandomFlags::empty())
        .map_err(|e| system("cannot read random bytes")(e.into()))?;
    Ok(Setup {
        init: UnixStream::from(init),
        control: Entrance::host(host(ports::CONTROL)?),
        logs: Entrance::host(host(ports::LOGS)?),
        addresses: Addresses::known().map_err(system("a socket address is invalid"))?,
        paths: Paths::default(),
        servants: Given {
            ingress: Box::new(move || ingress),
            provider: evidence::open(Path::new("/")),
            sleeve: sleeve.map(|bound| -> Bind { Box::new(move || bound) }),
        },
        clock: trusted_clock(Path::new("/")),
        seed: u64::from_ne_bytes(seed),
        registers: registers::read(Path::new("/"))
            .map_err(system("cannot read the measurement registers"))?,
    })
}

/// Writes an error and its causes to stderr, which init's console shows.
fn report(error: &(dyn Error + 'static)) {
    let is_bug = error.downcast_ref().is_some_and(is_bug);
    let hint = if is_bug { format!("; {REPORT}") } else { String::new() };
    let line = format!("supervisor: {}{hint}\n", causes::line(error));
    // If stderr fails too, the error cannot be reported.
    io::stderr().write_all(line.as_bytes()).unwrap_or_default();
}

/// Whether init and the supervisor, which are of one image, disagree about the protocol: a bug in Cloister that no user
/// can fix.
fn is_bug(error: &CoreError) -> bool {
    match error {
        CoreError::Hold(HoldError::Frame(_) | HoldError::Descriptors { .. })
        | CoreError::Frame(_)
        | CoreError::NoWelcome
        | CoreError::Version(_) => true,
        // The stash's internal errors state that they are.
        CoreError::Hold(HoldError::Io(_) | HoldError::Closed)
        | CoreError::Stash(_)
        | CoreError::System { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_violation_between_init_and_the_supervisor_is_a_bug_and_a_system_error_is_not() {
        assert!(is_bug(&CoreError::NoWelcome));
        assert!(is_bug(&CoreError::Hold(HoldError::Descriptors { wanted: 1, got: 0 })));
        assert!(!is_bug(&CoreError::Hold(HoldError::Closed)));
        assert!(!is_bug(&CoreError::System { what: "no sockets", source: io::Error::other("no") }));
    }
}
