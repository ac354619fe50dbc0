//! The supervisor's process: takes what init left it and runs.
//!
//! Its law: every error ends the process, with its causes on stderr; init starts another, which goes on.

use std::error::Error;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use cloister_net::{Entrance, Listener, prepare_diagnosis};
use cloister_supervisor::confine::confine_supervisor;
use cloister_supervisor::core::{CoreError, Setup, run};
use cloister_supervisor::hold::HoldError;
use cloister_supervisor::status::registers;
use cloister_supervisor::world::{Addresses, Paths};
use cloister_sys::inherited;
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
        // The last that needs more: the listeners and the security module's registers. There is one thread.
        confine_supervisor()?;
        Ok(run(setup).await?)
    })
}

fn setup() -> Result<Setup, CoreError> {
    let system = |what| move |source: io::Error| CoreError::System { what, source };
    let init = inherited::copy(SUPERVISOR_FD).map_err(system("the socket to init is not there"))?;
    let host = |port| Listener::vsock(port).map_err(system("cannot listen on vsock"));
    prepare_diagnosis().map_err(system("the kernel's socket diagnosis does not answer"))?;
    // Bound while that is allowed; a supervisor that was started again finds it taken, and kept by init.
    let ingress = Listener::bind_vsock(ports::INGRESS);
    let mut seed = [0; 8];
    getrandom(&mut seed, GetRandomFlags::empty()).map_err(|e| system("there is no randomness")(e.into()))?;
    Ok(Setup {
        init: UnixStream::from(init),
        control: Entrance::host(host(ports::CONTROL)?),
        logs: Entrance::host(host(ports::LOGS)?),
        ingress: Box::new(move || ingress),
        addresses: Addresses::known().map_err(system("an address has no form"))?,
        paths: Paths::default(),
        seed: u64::from_ne_bytes(seed),
        registers: registers::read(Path::new("/"))
            .map_err(system("the measurement registers cannot be read"))?,
    })
}

/// Writes an error and its causes where init's console shows them.
fn report(error: &(dyn Error + 'static)) {
    let ours = error.downcast_ref().is_some_and(is_ours);
    let asked = if ours { format!("; {REPORT}") } else { String::new() };
    let line = format!("supervisor: {}{asked}\n", causes::line(error));
    // There is nobody to tell that nobody can be told.
    io::stderr().write_all(line.as_bytes()).unwrap_or_default();
}

/// Whether init and the supervisor, both of one image, misunderstand each other: nobody who runs an enclave can mend that.
fn is_ours(error: &CoreError) -> bool {
    match error {
        CoreError::Hold(HoldError::Frame(_) | HoldError::Descriptors { .. })
        | CoreError::Frame(_)
        | CoreError::NoWelcome
        | CoreError::Version(_) => true,
        // The stash's faults of our own say so themselves.
        CoreError::Hold(HoldError::Io(_) | HoldError::Closed)
        | CoreError::Stash(_)
        | CoreError::System { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misunderstanding_with_init_is_ours_and_a_refusal_of_the_system_is_not() {
        assert!(is_ours(&CoreError::NoWelcome));
        assert!(is_ours(&CoreError::Hold(HoldError::Descriptors { wanted: 1, got: 0 })));
        assert!(!is_ours(&CoreError::Hold(HoldError::Closed)));
        assert!(!is_ours(&CoreError::System { what: "no sockets", source: io::Error::other("no") }));
    }
}
